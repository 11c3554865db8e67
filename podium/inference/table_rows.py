"""Convert CSV files, Parquet files and HTML forms to typed rows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from podium.inference.panel_rows import check_window_size, rows_from_panel, typed_panel
from podium.inference.parsed_rows import DEFAULT_OPTIONS, ParsedRows, ParseOptions
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData, Problem, TooLarge, unknown_column
from podium.tables.csv_header import HeaderOptions
from podium.tables.frames import coerce_by_row, coerce_frame, column_problems, frame_to_rows
from podium.tables.input_warnings import frame_warnings
from podium.tables.parquet import as_text
from podium.tables.readers import ReadOptions, read_typed
from podium.tables.size_limits import MAX_EXTRA, REQUEST, Limits

MAX_SUGGESTED, MAX_COMPARED = 20, 64
"""Maximum number of unknown fields that get a suggestion, and of characters compared with the inputs in each."""
ROWS_FIELD = "rows"
"""The form field that holds a panel's rows as CSV."""
MAX_FORM_ROWS = 1_000_000


def rows_from_table(data: bytes, signature: Signature, max_rows: int, options: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """Parse CSV or Parquet. Raises BadData."""
    table = read_typed(data, read_options(signature, options, replace(REQUEST, rows=max_rows)))
    return rows_from_text(table, signature, max_rows, options)


def read_options(signature: Signature, options: ParseOptions, limits: Limits) -> ReadOptions:
    """Return how to read a client's table: like the training table, with at most MAX_EXTRA columns that are not known."""
    return ReadOptions(
        gzipped=options.gzipped,
        header=HeaderOptions(signature.reading, signature.names, options.delimiter),
        limits=replace(limits, columns=len(signature.names) + len(signature.ignored) + MAX_EXTRA),
        check=functools.partial(check_columns, signature, options),
    )


def check_columns(signature: Signature, options: ParseOptions, names: Sequence[str]) -> None:
    """Raise BadData for unknown columns. If columns are only missing, parsing reports them with the other problems."""
    problems = column_problems(names, signature.request_columns, set(names) if options.keep_extra else set(signature.ignored))
    if any(problem.code != "missing-field" for problem in problems):
        raise BadData(problems)


def rows_from_text(table: pa.Table, signature: Signature, max_rows: int, options: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """Parse a text table. Raises BadData."""
    if table.num_rows > max_rows:
        raise TooLarge([Problem("too-many-rows", f"the table has {table.num_rows} rows", expected=f"at most {max_rows}")])
    if signature.panel:
        panel_rows = typed_panel(table, signature, options)
        check_window_size(panel_rows, signature)
        return rows_from_panel(panel_rows, signature, by_row=options.by_row)
    ignored = set(table.column_names) if options.keep_extra else set(signature.ignored)
    if not options.by_row:
        invalid: Mapping[int, list[Problem]] = {}
        frame = coerce_frame(table, signature.inputs, ignored)
        warnings = frame_warnings(frame, signature.inputs)
    else:
        frame, invalid = coerce_by_row(table, signature.inputs, ignored)
        valid = np.delete(np.arange(table.num_rows), list(invalid))
        frame = frame.iloc[valid].reset_index(drop=True)
        warnings = [
            replace(warning, row=int(valid[warning.row - 1]) + 1)
            for warning in frame_warnings(frame, signature.inputs)
            if warning.row
        ]
    text = functools.cache(lambda: as_text(table))
    return ParsedRows(table.num_rows, warnings, lambda: frame_to_rows(frame), lambda: frame, text, invalid)


def rows_from_form(fields: Mapping[str, str], signature: Signature) -> ParsedRows:
    """Parse form fields: one per input or, for panels, a single field with rows as CSV. Raises BadData."""
    if signature.panel:
        return _rows_from_csv_field(fields, signature)
    if unknown := [name for name in fields if name not in signature.names]:
        raise BadData(
            [_unknown_field(name, signature.names if index < MAX_SUGGESTED else ()) for index, name in enumerate(unknown)]
        )
    cells = {name: fields.get(name, "").encode(errors="replace").decode() for name in signature.names}
    row = pa.table({name: pa.array([text], pa.string()) for name, text in cells.items()})
    return rows_from_text(row, signature, 1)


def _unknown_field(name: str, known: Sequence[str]) -> Problem:
    close = get_close_matches(name[:MAX_COMPARED], known, 1)
    return unknown_column(name, suggestion=close[0] if close else None)


def _rows_from_csv_field(fields: Mapping[str, str], signature: Signature) -> ParsedRows:
    if unknown := [unknown_column(name) for name in fields if name != ROWS_FIELD]:
        raise BadData(unknown)
    if not fields.get(ROWS_FIELD, "").strip():
        raise BadData([Problem("empty-input", "is empty", column=ROWS_FIELD, expected="CSV with a header row")])
    return rows_from_table(fields[ROWS_FIELD].replace("\r\n", "\n").encode(errors="replace"), signature, MAX_FORM_ROWS)

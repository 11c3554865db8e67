"""A request's body to typed rows, whatever form it came in."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.schema.columns import EPOCH, Panel, Signature, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, TooLarge, check_names, max_problems_per_row
from podium.tables.frames import coerce_by_row, coerce_frame, column_problems, frame_to_rows, rows_to_frame
from podium.tables.input_warnings import UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE, frame_warnings, row_warnings
from podium.tables.json_values import coerce_rows
from podium.tables.panel import DAY, INDEX, INDEX_NAME, windows
from podium.tables.parquet import as_text
from podium.tables.readers import read_typed
from podium.tables.size_limits import MAX_EXTRA, REQUEST, Limits
from podium.tables.strict_json import decode_json, too_deep

MAX_CELLS = 10_000_000
"""Of the table that is made of records, with a column for every field of any."""


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """How a table is read and what becomes of wrong rows and of columns that the model does not know."""

    by_row: bool = False
    keep_extra: bool = False
    gzipped: bool = False
    delimiter: str = ","


DEFAULT_OPTIONS = ParseOptions()


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """The good rows, typed, as tuples and as a frame; all rows as the table of texts that came; warnings and wrong rows.

    `bad` has the problems of each wrong row by its place among all `total` ones; it is empty unless asked for by row.
    """

    total: int
    warnings: list[Problem]
    as_rows: Callable[[], list[tuple[Value, ...]]]
    as_frame: Callable[[], pd.DataFrame]
    as_table: Callable[[], pa.Table]
    bad: Mapping[int, list[Problem]]
    keys: pd.DataFrame | None = None
    """Of a panel: the entity and day of each of its windows, which are the rows then."""

    @property
    def count(self) -> int:
        return self.total - len(self.bad)


def rows_from_table(data: bytes, signature: Signature, most: int, asked: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """CSV or Parquet bytes; raises BadData."""
    limits = size_limits(signature, replace(REQUEST, rows=most))
    check = functools.partial(check_columns, signature, asked)
    table = read_typed(data, gzipped=asked.gzipped, delimiter=asked.delimiter, limits=limits, check=check)
    return rows_from_text(table, signature, most, asked)


def size_limits(signature: Signature, limits: Limits) -> Limits:
    """The limits with as many columns as a model knows, and some more."""
    return replace(limits, columns=len(signature.names) + len(signature.ignored) + MAX_EXTRA)


def check_columns(signature: Signature, asked: ParseOptions, names: Sequence[str]) -> None:
    """Raises BadData for columns that are not wanted; that one is missing is found with what is wrong in the others."""
    problems = column_problems(names, signature.request_columns, set(names) if asked.keep_extra else set(signature.ignored))
    if any(problem.code != "missing-field" for problem in problems):
        raise BadData(problems)


def rows_from_form(fields: Mapping[str, str], signature: Signature) -> ParsedRows:
    """The fields of a form, each a text; of a panel one field that holds its rows as CSV. Raises BadData."""
    if signature.panel:
        return _from_text_field(fields, signature)
    if unknown := [name for name in fields if name not in signature.names]:
        raise BadData([_unknown(name, signature.names if index < MAX_SUGGESTED else ()) for index, name in enumerate(unknown)])
    cells = {name: fields.get(name, "").encode(errors="replace").decode() for name in signature.names}
    row = pa.table({name: pa.array([text], pa.string()) for name, text in cells.items()})
    return rows_from_text(row, signature, 1)


def _unknown(name: str, known: Sequence[str]) -> Problem:
    close = get_close_matches(name[:MAX_COMPARED], known, 1)
    return Problem("unknown-field", f"is no input of this model{f'; did you mean `{close[0]}`?' if close else ''}", column=name)


MAX_SUGGESTED, MAX_COMPARED = 20, 64
"""Unknown names that get a suggestion, and the characters of each that are compared with the inputs."""
ROWS_FIELD = "rows"
"""The field of a form that holds a panel's rows."""
MAX_FORM_ROWS = 1_000_000


def _from_text_field(fields: Mapping[str, str], signature: Signature) -> ParsedRows:
    if unknown := [Problem("unknown-field", "is no input of this model", column=name) for name in fields if name != ROWS_FIELD]:
        raise BadData(unknown)
    if not fields.get(ROWS_FIELD, "").strip():
        raise BadData([Problem("empty-input", "there is no row", column=ROWS_FIELD, expected="CSV with a header line")])
    return rows_from_table(fields[ROWS_FIELD].replace("\r\n", "\n").encode(errors="replace"), signature, MAX_FORM_ROWS)


def typed_panel(table: pa.Table, signature: Signature, asked: ParseOptions) -> pd.DataFrame:
    """The rows of a panel as they came. Raises BadData."""
    return coerce_frame(table, signature.request_columns, table.column_names if asked.keep_extra else signature.ignored)


def _check_size(frame: pd.DataFrame, signature: Signature) -> None:
    """Each row becomes a window of many numbers. Raises TooLarge."""
    most = REQUEST.decoded_bytes // (8 * len(signature.inputs))
    if len(frame) > most:
        said = f"has {len(frame)} rows"
        raise TooLarge([Problem("too-many-rows", said, expected=f"at most {most}; send more to /batch as a file")])


def rows_from_panel(frame: pd.DataFrame, signature: Signature, *, by_row: bool) -> ParsedRows:
    """The windows of a panel's rows; `by_row` leaves out entities that the model does not know. Raises BadData."""
    panel = signature.panel
    assert panel is not None
    _check_days(frame, panel)
    made = windows(frame, panel)
    columns = [column for column in panel.columns if column.name != panel.time]  # what is asked for comes after the training
    lenient = [replace(column, handle_unknown="warn") for column in columns]
    doubts = frame_warnings(frame, lenient if by_row else columns)
    strange = ~made.keys[panel.entity].isin(panel.entity_column.categories).to_numpy()
    places = np.flatnonzero(strange).tolist() if by_row and panel.entity_column.handle_unknown == "reject" else []
    bad = {place: [Problem(UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE, place + 1, panel.entity)] for place in places}
    good = made.inputs.drop(index=places).reset_index(drop=True) if places else made.inputs
    table = functools.partial(key_table, made.keys, panel)
    return ParsedRows(len(made.keys), doubts, lambda: frame_to_rows(good), lambda: good, table, bad, made.keys)


def _check_days(frame: pd.DataFrame, panel: Panel) -> None:
    """The day after the last must be one. Raises BadData."""
    if panel.time_column.kind == "date":
        late = np.flatnonzero(frame[panel.time].to_numpy() >= date.max.toordinal() - EPOCH)[:MAX_REPORTED]
        if len(late):
            raise BadData([Problem("out-of-range", "has no day after it", row + 1, panel.time) for row in late.tolist()])


def key_table(keys: pd.DataFrame, panel: Panel) -> pa.Table:
    """Entity, number of the day within it, and the day."""
    days = {day: day_text(day, panel) for day in keys[DAY].unique().tolist()}
    cells = {panel.entity: keys[panel.entity], INDEX_NAME: keys[INDEX], panel.time: keys[DAY].map(days)}
    return pa.table({name: pa.array(list(column)) for name, column in cells.items()})


def day_text(day: float, panel: Panel) -> str | int:
    """A day as ISO 8601, or its number where days are numbers."""
    if panel.time_column.kind != "date":
        return int(day)
    return panel.time_column.format_value(day)


def rows_from_text(table: pa.Table, signature: Signature, most: int, asked: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """A table of texts; raises BadData."""
    if table.num_rows > most:
        raise TooLarge([Problem("too-many-rows", f"has {table.num_rows} rows", expected=f"at most {most}")])
    if signature.panel:
        frame = typed_panel(table, signature, asked)
        _check_size(frame, signature)
        return rows_from_panel(frame, signature, by_row=asked.by_row)
    ignored = set(table.column_names) if asked.keep_extra else set(signature.ignored)
    if not asked.by_row:
        bad: Mapping[int, list[Problem]] = {}
        frame = coerce_frame(table, signature.inputs, ignored)
        doubts = frame_warnings(frame, signature.inputs)
    else:
        frame, bad = coerce_by_row(table, signature.inputs, ignored)
        good = np.delete(np.arange(table.num_rows), list(bad))
        frame = frame.iloc[good].reset_index(drop=True)
        doubts = [
            replace(doubt, row=int(good[doubt.row - 1]) + 1) for doubt in frame_warnings(frame, signature.inputs) if doubt.row
        ]
    text = functools.cache(lambda: as_text(table))
    return ParsedRows(table.num_rows, doubts, lambda: frame_to_rows(frame), lambda: frame, text, bad)


def rows_from_json(data: bytes, signature: Signature, most: int, asked: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """A record, a list of records, `{"records": […]}`, a bare array or a list of bare arrays; raises BadData."""
    return rows_from_records(decode_json(data), signature, most, asked)


def rows_from_records(decoded: Any, signature: Signature, most: int, asked: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """The same, decoded; raises BadData."""
    records = _listed(decoded, signature)
    if len(records) > most:
        raise TooLarge([Problem("too-many-rows", f"has {len(records)} records", expected=f"at most {most}")])
    known = set(signature.names).union(signature.ignored)
    extra = _extra_names(records, known)
    ignored = extra.union(signature.ignored) if asked.keep_extra else set(signature.ignored)
    if signature.panel:
        rows = coerce_rows(_named(records, signature), signature.panel.columns, ignored)
        typed = rows_to_frame(rows, signature.panel.columns)
        _check_size(typed, signature)
        return rows_from_panel(typed, signature, by_row=asked.by_row)
    if asked.by_row:
        named, rows, doubts, bad = _by_row(records, signature, ignored)
    else:
        named, bad = _named(records, signature), {}
        rows = coerce_rows(named, signature.inputs, ignored)
        doubts = row_warnings(rows, signature.inputs)
    frame = functools.partial(rows_to_frame, rows, signature.inputs)
    table = functools.cache(functools.partial(_text_table, named, signature.names))
    return ParsedRows(len(records), doubts, lambda: rows, frame, table, bad)


def _extra_names(records: Sequence[Any], known: set[str]) -> set[str]:
    """The fields that the model does not know, of all records. Raises BadData for too many, or for odd names."""
    extra: set[str] = set()
    for record in records:
        if isinstance(record, dict) and not record.keys() <= known:
            extra |= record.keys() - known
            if len(extra) > MAX_EXTRA:
                said = f"the records have more than {MAX_EXTRA} fields that the model does not know"
                raise TooLarge([Problem("too-many-fields", said, expected="fields of the model")])
    check_names(extra)
    return extra


def _listed(decoded: Any, signature: Signature) -> list[Any]:
    """A list of records or arrays, whatever came. Raises BadData."""
    wrapped = isinstance(decoded, dict) and list(decoded) == ["records"] and "records" not in signature.names
    records = decoded["records"] if wrapped else decoded
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise BadData([Problem("invalid-type", "is neither a record nor a list of records")])
    if records and not any(isinstance(each, dict | list) for each in records):
        records = [records]
    if not records:
        raise BadData([Problem("empty-input", "there is no record")])
    return records


Rows = tuple[list[dict[str, Any]], list[tuple[Value, ...]], list[Problem], dict[int, list[Problem]]]


def _by_row(records: Sequence[Any], signature: Signature, ignored: set[str]) -> Rows:
    """Every record by itself: all of them named, the good ones typed, their warnings, and what is wrong with the others."""
    named: list[dict[str, Any]] = []
    good: list[tuple[Value, ...]] = []
    doubts: list[Problem] = []
    bad: dict[int, list[Problem]] = {}
    each = max_problems_per_row(len(records))
    for place, record in enumerate(records):
        named.append(record if isinstance(record, dict) else {})
        try:
            named[-1:] = _named([record], signature)
            (row,) = coerce_rows(named[-1:], signature.inputs, ignored)
            found = row_warnings([row], signature.inputs)
            doubts += [replace(doubt, row=place + 1) for doubt in found[: MAX_REPORTED - len(doubts)]]
            good.append(row)
        except BadData as error:
            bad[place] = [replace(problem, row=place + 1) for problem in error.problems[:each]]
    return named, good, doubts, bad


def _named(records: Sequence[Any], signature: Signature) -> list[dict[str, Any]]:
    """Bare arrays as records; raises BadData."""
    problems, named = [], []
    names = signature.names
    width = len(names)
    for number, record in enumerate(records, 1):
        if isinstance(record, dict):
            named.append(record)
        elif not isinstance(record, list):
            problems.append(Problem("invalid-type", "is neither a record nor an array", number))
        elif len(record) != width:
            problems.append(
                Problem("wrong-length", f"has {len(record)} values", number, None, f"{width} values in training order")
            )
        else:
            named.append(dict(zip(names, record, strict=True)))
        if len(problems) >= MAX_REPORTED:
            break
    if problems:
        raise BadData(problems)
    return named


def _text_table(records: Sequence[Mapping[str, Any]], inputs: Sequence[str]) -> pa.Table:
    names = list(dict.fromkeys([*(name for record in records for name in record), *inputs]))
    if len(names) * len(records) > MAX_CELLS:
        said = f"{len(records)} records of {len(names)} different fields make too large a table"
        raise TooLarge([Problem("too-many-fields", said, expected=f"at most {MAX_CELLS} cells; send less at a time")])
    return pa.table({name: pa.array([_text(record.get(name)) for record in records], pa.string()) for name in names})


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    try:
        return "" if value is None else json.dumps(value)
    except RecursionError:
        raise too_deep() from None

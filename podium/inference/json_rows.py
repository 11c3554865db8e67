"""Convert JSON records and arrays to typed rows."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from podium.inference.json_columns import columns_of_json
from podium.inference.panel_rows import check_window_size, rows_from_panel
from podium.inference.parsed_rows import DEFAULT_OPTIONS, ParsedRows, ParseOptions
from podium.inference.record_decoder import NeedsReport, decoder_of
from podium.schema.columns import Signature, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, TooLarge, check_names, max_problems_per_row
from podium.tables.frames import frame_to_rows, rows_to_columns, rows_to_frame
from podium.tables.input_warnings import row_warnings
from podium.tables.json_values import coerce_rows
from podium.tables.size_limits import MAX_EXTRA
from podium.tables.strict_json import decode_json, too_deep

MAX_BYTES_BY_ROW = 1 << 16
"""Longer JSON is decoded by column."""
MAX_CELLS = 10_000_000
"""Maximum number of cells in the text table made from records, which has a column for each distinct field."""


def rows_from_json(data: bytes, signature: Signature, max_rows: int, options: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """Parse a record, a list of records, `{"records": […]}`, an array or a list of arrays. Raises BadData."""
    if not (signature.panel or options.by_row or options.keep_extra):
        with contextlib.suppress(NeedsReport):
            return _valid_rows(data, signature, max_rows)
    return rows_from_records(decode_json(data), signature, max_rows, options)


def _valid_rows(data: bytes, signature: Signature, max_rows: int) -> ParsedRows:
    """Parse valid records: a few by row, many by column. Raises NeedsReport, BadData."""
    records = functools.partial(_named_records, data, signature)
    table = functools.cache(lambda: _text_table(records(), signature.names))
    if len(data) <= MAX_BYTES_BY_ROW:
        decoded = decoder_of(signature).rows_of_json(data, max_rows)
        rows, frame = list(decoded.rows), functools.cache(lambda: rows_to_frame(decoded.rows, signature.inputs))
        return ParsedRows(len(rows), list(decoded.warnings), lambda: rows, frame, table, {})
    columns = columns_of_json(data, signature, max_rows)
    typed = columns.frame
    return ParsedRows(len(typed), columns.warnings, lambda: frame_to_rows(typed), lambda: typed, table, {})


def _named_records(data: bytes, signature: Signature) -> list[dict[str, Any]]:
    return _as_records(_as_list(decode_json(data), signature), signature)


def rows_from_records(decoded: Any, signature: Signature, max_rows: int, options: ParseOptions = DEFAULT_OPTIONS) -> ParsedRows:
    """Parse decoded JSON; see `rows_from_json`. Raises BadData."""
    records = _as_list(decoded, signature)
    if len(records) > max_rows:
        raise TooLarge([Problem("too-many-rows", f"the request has {len(records)} records", expected=f"at most {max_rows}")])
    known = set(signature.names).union(signature.ignored)
    extra = _extra_names(records, known)
    ignored = extra.union(signature.ignored) if options.keep_extra else set(signature.ignored)
    if signature.panel:
        rows = coerce_rows(_as_records(records, signature), signature.panel.columns, ignored)
        typed = rows_to_columns(rows, signature.panel.columns)
        check_window_size(typed, signature)
        return rows_from_panel(typed, signature, by_row=options.by_row)
    if options.by_row:
        named, rows, warnings, invalid = _parse_each(records, signature, ignored)
    else:
        named, invalid = _as_records(records, signature), {}
        rows = coerce_rows(named, signature.inputs, ignored)
        warnings = row_warnings(rows, signature.inputs)
    frame = functools.partial(rows_to_frame, rows, signature.inputs)
    table = functools.cache(functools.partial(_text_table, named, signature.names))
    return ParsedRows(len(records), warnings, lambda: rows, frame, table, invalid)


def _as_list(decoded: Any, signature: Signature) -> list[Any]:
    """Return a list of records or arrays, unwrapping `records` and wrapping a single record or array. Raises BadData."""
    wrapped = isinstance(decoded, dict) and list(decoded) == ["records"] and "records" not in signature.names
    records = decoded["records"] if wrapped else decoded
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise BadData([Problem("invalid-type", "expected a record or a list of records")])
    if records and not any(isinstance(record, dict | list) for record in records):
        records = [records]
    if not records:
        raise BadData([Problem("empty-input", "the list of records is empty")])
    return records


def _extra_names(records: Sequence[Any], known: set[str]) -> set[str]:
    """Return the fields that the model does not know. Raises BadData for too many and for invalid names."""
    extra: set[str] = set()
    for record in records:
        if isinstance(record, dict) and not record.keys() <= known:
            extra |= record.keys() - known
            if len(extra) > MAX_EXTRA:
                message = f"the records have more than {MAX_EXTRA} fields that the model does not know"
                raise TooLarge([Problem("too-many-fields", message, expected="fields of the model")])
    check_names(extra)
    return extra


ParsedRecords = tuple[list[dict[str, Any]], list[tuple[Value, ...]], list[Problem], dict[int, list[Problem]]]


def _parse_each(records: Sequence[Any], signature: Signature, ignored: set[str]) -> ParsedRecords:
    """Return all records with field names, the valid ones as typed rows, their warnings, and the problems of invalid ones."""
    named: list[dict[str, Any]] = []
    rows: list[tuple[Value, ...]] = []
    warnings: list[Problem] = []
    invalid: dict[int, list[Problem]] = {}
    max_problems = max_problems_per_row(len(records))
    for index, record in enumerate(records):
        named.append(record if isinstance(record, dict) else {})
        try:
            named[-1:] = _as_records([record], signature)
            (row,) = coerce_rows(named[-1:], signature.inputs, ignored)
            new_warnings = row_warnings([row], signature.inputs)
            warnings += [replace(warning, row=index + 1) for warning in new_warnings[: MAX_REPORTED - len(warnings)]]
            rows.append(row)
        except BadData as error:
            invalid[index] = [replace(problem, row=index + 1) for problem in error.problems[:max_problems]]
    return named, rows, warnings, invalid


def _as_records(records: Sequence[Any], signature: Signature) -> list[dict[str, Any]]:
    """Return all rows as records; the values of arrays must be in the order of the inputs. Raises BadData."""
    problems, named = [], []
    names = signature.names
    width = len(names)
    for number, record in enumerate(records, 1):
        if isinstance(record, dict):
            named.append(record)
        elif not isinstance(record, list):
            problems.append(Problem("invalid-type", "expected a record or an array", number))
        elif len(record) != width:
            message = f"has {len(record)} values instead of {width}"
            problems.append(Problem("wrong-length", message, number, None, f"{width} values in training order"))
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
        message = f"{len(records)} records with {len(names)} different fields make too large a table"
        raise TooLarge([Problem("too-many-fields", message, expected=f"at most {MAX_CELLS} cells; send fewer records")])
    return pa.table({name: pa.array([_text(record.get(name)) for record in records], pa.string()) for name in names})


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    try:
        return "" if value is None else json.dumps(value)
    except RecursionError:
        raise too_deep() from None

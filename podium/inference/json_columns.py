"""Decode many JSON records by column: the cells of a column become one array, with the cells of `json_values`."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from msgspec.structs import astuple

from podium.inference.plain_records import have_plain_names
from podium.inference.record_decoder import NeedsReport, check_quotes, decode_any_json
from podium.schema.columns import Column, Signature, Value
from podium.schema.data_errors import BadData, Problem
from podium.tables.cell_rules import are_valid_numbers, missing_sentinels
from podium.tables.frames import frame_of
from podium.tables.input_warnings import frame_warnings
from podium.tables.json_values import InvalidCell, json_cell
from podium.tables.strict_json import MAX_DECODED_BYTES, check_json_size

RECORD_BYTES, CELL_BYTES = 64, 40
"""Approximate memory of a decoded record, and of each cell."""
RECORDS_AT_A_TIME = 256
JSON_TYPES: dict[str, Any] = {"number": float, "integer": float, "boolean": bool, "category": str, "text": str, "date": str}


@dataclass(frozen=True, slots=True)
class DecodedColumns:
    """A typed frame and the warnings about its cells."""

    frame: pd.DataFrame
    warnings: list[Problem]


def columns_of_json(body: bytes, signature: Signature, max_rows: int) -> DecodedColumns:
    """Decode a list of records or arrays, or `{"records": […]}`. Raises NeedsReport if a cell or the form is not valid.

    Raises TooLarge if the decoded records would need too much memory.
    """
    inputs = signature.inputs
    cells = _decode_plain(body, signature) or _decode_any(body, signature, max_rows)
    rows = len(cells[0]) if cells else 0
    if not 0 < rows <= max_rows:
        raise NeedsReport
    try:
        columns = {column.name: _typed(values, column) for column, values in zip(inputs, cells, strict=True)}
        return DecodedColumns(frame_of(columns), frame_warnings(columns, inputs))
    except (InvalidCell, BadData, TypeError, OverflowError):
        raise NeedsReport from None


Cells = list[list[Any] | np.ndarray]
"""The cells of each column, or their numbers as float64."""


def _decode_plain(body: bytes, signature: Signature) -> Cells | None:
    """Return the cells by column if all records have all fields, with cells of the usual JSON type, else None."""
    decoder, text_columns = _record_decoder(signature.inputs)
    inputs = signature.inputs
    max_records = len(body) // sum(len(column.name) + len('"":0,') for column in inputs)
    if decoder is None or max_records * (RECORD_BYTES + CELL_BYTES * len(inputs)) > MAX_DECODED_BYTES:
        return None
    try:
        records = decoder.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return None
    cells = _by_column(records, signature.inputs)
    strings = sum(len(records) - list(cells[index]).count(None) for index in text_columns)
    is_complete = body.count(b'"') == 2 * (len(records) * len(signature.inputs) + strings)
    return cells if is_complete else None  # a field is repeated or left out, or a text contains an escaped quote


def _by_column(records: Sequence[Any], inputs: Sequence[Column]) -> Cells:
    """Return the cells of decoded records, taken from a few records at a time, which are still in the processor's cache."""
    cells: Cells = [np.empty(len(records)) if column.kind in ("number", "integer") else [] for column in inputs]
    for start in range(0, len(records), RECORDS_AT_A_TIME):
        rows = map(astuple, records[start : start + RECORDS_AT_A_TIME])
        for column, values in zip(cells, zip(*rows, strict=True), strict=True):
            if isinstance(column, list):
                column += values
            else:
                column[start : start + len(values)] = np.array(values, dtype=float)
    return cells


@functools.lru_cache(64)
def _record_decoder(inputs: tuple[Column, ...]) -> tuple[msgspec.json.Decoder[Any] | None, list[int]]:
    """Return the decoder of a list of records, if there can be one, and the indices of the columns whose cells are strings."""
    if not have_plain_names(inputs):
        return None, []
    fields = [(f"f{index}", JSON_TYPES[column.kind] | None) for index, column in enumerate(inputs)]
    names = {f"f{index}": column.name for index, column in enumerate(inputs)}
    record = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, gc=False)
    text_columns = [index for index, column in enumerate(inputs) if column.kind in ("category", "text", "date")]
    return msgspec.json.Decoder(list[record]), text_columns  # type: ignore[valid-type]


def _decode_any(body: bytes, signature: Signature, max_rows: int) -> Cells:
    """Return the cells by column; a field that a record lacks is None."""
    check_json_size(body)
    if body.count(b"[") + body.count(b"{") > max_rows + 2:  # a list of this many records, and `records`
        raise NeedsReport
    decoded = decode_any_json(body)
    names, known = signature.names, {*signature.names, *signature.ignored}
    wrapped = isinstance(decoded, dict) and list(decoded) == ["records"] and "records" not in names
    records = decoded["records"] if wrapped else decoded
    if not isinstance(records, list) or len(records) > max_rows:
        raise NeedsReport
    kinds = set(map(type, records))
    if kinds == {list} and set(map(len, records)) == {len(names)}:
        check_quotes(body, decoded)
        return [list(values) for values in zip(*records, strict=True)]
    if kinds != {dict} or not all(map(known.issuperset, records)):
        raise NeedsReport
    check_quotes(body, decoded)
    return [list(map(methodcaller("get", name), records)) for name in names]


def _typed(values: list[Any] | np.ndarray, column: Column) -> np.ndarray:
    """Return float64 with NaN, or an object array of strings and None. Raises InvalidCell."""
    if isinstance(values, np.ndarray):
        return _numbers(values, column)
    kinds = set(map(type, values))
    if column.kind in ("number", "integer") and kinds <= {float, int, types.NoneType}:
        return _numbers(np.array(values, dtype=float), column)
    if column.kind == "boolean" and kinds == {bool}:
        return np.array(values, dtype=float)
    unique = set(values) if kinds <= {str, types.NoneType} else set(zip(map(type, values), values, strict=True))
    return _converted(values, unique, column, by_kind=not kinds <= {str, types.NoneType})


def _numbers(numbers: np.ndarray, column: Column) -> np.ndarray:
    if sentinels := missing_sentinels(column):
        numbers[np.isin(numbers, list(sentinels))] = np.nan
    if not column.nullable and np.isnan(numbers).any():
        raise InvalidCell("missing-field", "is required")
    if not are_valid_numbers(numbers, column):
        raise InvalidCell("out-of-range", "is too large, or not a whole number")
    return numbers


def _converted(values: list[Any], unique: set[Any], column: Column, *, by_kind: bool) -> np.ndarray:
    """Convert each distinct cell once; 1, 1.0 and true are distinct."""
    convert: Callable[[object], Value] = json_cell(column)
    table = {key: convert(key[1] if by_kind else key) for key in unique}
    keys: Sequence[Any] = list(zip(map(type, values), values, strict=True)) if by_kind else values
    typed = keys if not by_kind and all(key == cell for key, cell in table.items()) else list(map(table.__getitem__, keys))
    return np.array(typed, dtype=object if column.is_text else float)

"""Decode records and arrays that have every cell, of the usual JSON types: msgspec checks them while it decodes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import astuple

from podium.schema.columns import EPOCH, Column, Value
from podium.tables.cell_rules import largest_number, missing_sentinels, normalize_category

Row = tuple[Value, ...]


def have_plain_names(columns: Sequence[Column]) -> bool:
    """Return whether no name needs escaping in JSON, as msgspec requires."""
    return all(json.dumps(column.name, ensure_ascii=False) == f'"{column.name}"' for column in columns)


RECORD, RECORDS, ARRAY, ARRAYS, SPLIT = b"{", b"[{", b"[", b"[[", b'{"dataframe_split"'
"""The forms of a body, by how it starts: a record, records, an array, arrays, and the split form of MLflow."""
Decoders = Mapping[bytes, msgspec.json.Decoder[Any]]


@dataclass(frozen=True, slots=True)
class PlainRecords:
    """Decodes records and arrays that have every cell, of the usual JSON types, and the split form of MLflow."""

    perfect: Decoders
    """Accept only known categories and values in the training range, so that no loop over the cells is needed."""
    complete: Decoders
    names: list[str]
    conversions: tuple[tuple[int, Callable[[Any], Value]], ...]

    @classmethod
    def of(cls, columns: Sequence[Column]) -> PlainRecords | None:
        """Return the decoders, or None if a name does not allow one."""
        if not have_plain_names(columns):
            return None
        perfect = [_json_type(column) for column in columns]
        complete = _decoders([JSON_TYPES[column.kind] | None for column in columns], columns)
        conversions = [(index, convert) for index, column in enumerate(columns) if (convert := _conversion(column))]
        names = [column.name for column in columns]
        return cls({} if None in perfect else _decoders(perfect, columns), complete, names, tuple(conversions))

    def decode_perfect(self, body: bytes, form: bytes) -> Sequence[Row] | None:
        """Return the typed rows, or None if one is not perfect."""
        rows = self._decode(self.perfect, body, form) if self.perfect else None
        if rows is None or not self.conversions:
            return rows
        try:
            return [self._converted(row) for row in rows]
        except ValueError:
            return None

    def _converted(self, row: Row) -> Row:
        cells: list[Any] = list(row)
        for index, convert in self.conversions:
            cells[index] = convert(cells[index])
        return tuple(cells)

    def decode_complete(self, body: bytes, form: bytes) -> Sequence[Row] | None:
        """Return the cells before conversion, or None if one is missing or not of the usual type."""
        return self._decode(self.complete, body, form)

    def _decode(self, decoders: Decoders, body: bytes, form: bytes) -> Sequence[Row] | None:
        try:
            decoded = decoders[form].decode(body)
        except (msgspec.MsgspecError, ValueError):
            return None
        names = 0
        if form is SPLIT:
            table = decoded.dataframe_split
            if table.columns != self.names:
                return None
            decoded, names = table.data, 3 + len(self.names) + (table.index is not msgspec.UNSET)
        rows = list(map(astuple, decoded)) if form in (RECORDS, ARRAYS, SPLIT) else [astuple(decoded)]
        if form in (RECORD, RECORDS):
            names = len(self.names) * len(rows)
        strings = sum([value.__class__ is str or value.__class__ is date for row in rows for value in row])
        is_exact = body.count(b'"') == 2 * (names + strings)
        return rows if is_exact and rows else None  # a field is repeated, or a text contains an escaped quote


def form_of(body: bytes) -> bytes:
    """Return the form that a body may have."""
    if body.startswith(b"{"):
        return RECORD
    return RECORDS if body.startswith(RECORDS) else ARRAYS if body.startswith(ARRAYS) else ARRAY


def _decoders(types: Sequence[Any], columns: Sequence[Column]) -> Decoders:
    fields = [(f"f{index}", json_type) for index, json_type in enumerate(types)]
    names = {f"f{index}": column.name for index, column in enumerate(columns)}
    record: Any = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True)
    array: Any = msgspec.defstruct("Array", fields, array_like=True, forbid_unknown_fields=True)
    index = ("index", list[int] | msgspec.UnsetType, msgspec.UNSET)
    table = msgspec.defstruct("Table", [("columns", list[str]), ("data", list[array]), index], forbid_unknown_fields=True)
    split = msgspec.defstruct("Split", [("dataframe_split", table)], forbid_unknown_fields=True)
    forms = {RECORD: record, RECORDS: list[record], ARRAY: array, ARRAYS: list[array], SPLIT: split}
    return {form: msgspec.json.Decoder(json_type) for form, json_type in forms.items()}


JSON_TYPES: dict[str, Any] = {
    "number": float | str,
    "integer": float | str,
    "boolean": bool,
    "category": str,
    "text": str,
    "date": str,
}


def _json_type(column: Column) -> Any:
    """Return the msgspec type of the JSON values of a column, or None if there is none."""
    json_type: Any
    if column.kind == "category":
        usual = [category for category in column.categories if normalize_category(category) == category]
        categories = [category for category in usual if category not in column.na_values]
        json_type = Literal[tuple(categories)] if categories else None
    elif column.kind == "text":
        json_type = None
    elif column.kind == "date":
        json_type = date if column.date_format == "%Y-%m-%d" and not column.na_values else None
    elif column.kind == "boolean":
        json_type = bool if (column.low, column.high) == (0.0, 1.0) else None
    else:
        bounds = valid_range(column)
        json_type = Annotated[float, msgspec.Meta(ge=bounds[0], le=bounds[1])] if bounds else None
    return json_type | None if json_type is not None and column.nullable else json_type


def valid_range(column: Column) -> tuple[float, float] | None:
    """Return the training range within the numbers that are valid, or None if there is none."""
    if column.low is None or column.high is None or math.isnan(column.low + column.high):
        return None
    largest = largest_number(column)
    return max(column.low, -largest), min(column.high, largest)


def _conversion(column: Column) -> Callable[[Any], Value] | None:
    """Return a function that converts decoded to typed cells, if needed; it raises ValueError if it is not perfect."""
    if column.kind == "date":
        low, high = column.low or 0.0, column.high or 0.0

        def to_days(day: date | None) -> Value:
            if day is None:
                return None
            days = float(day.toordinal() - EPOCH)
            if not low <= days <= high:
                raise ValueError("outside the training range")
            return days

        return to_days
    sentinels, is_integer = missing_sentinels(column), column.kind == "integer"
    if not (sentinels or is_integer):
        return None

    def checked_number(number: float | None) -> Value:
        if number is not None and number in sentinels:
            number = None
        if number is None and not column.nullable:
            raise ValueError("a required value is missing")
        if is_integer and number is not None and not number.is_integer():
            raise ValueError("not a whole number")
        return number

    return checked_number

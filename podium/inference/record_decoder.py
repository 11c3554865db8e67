"""Decode a few records without a table: compiled from the signature, with the cells and warnings of the detailed parsers.

Every valid cell is decoded here. Anything else raises NeedsReport, and the detailed parser then reports what is wrong.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from podium.inference.plain_records import SPLIT, PlainRecords, Row, form_of, valid_range
from podium.schema.columns import Column, Signature, Value
from podium.schema.data_errors import MAX_REPORTED, Problem
from podium.tables.cell_rules import missing_sentinels, normalize_category
from podium.tables.input_warnings import not_whole, out_of_range, unknown_category
from podium.tables.json_values import InvalidCell, json_cell
from podium.tables.strict_json import is_too_deep
from podium.tables.text_values import PLAIN_NUMBER, text_cell


class NeedsReport(Exception):
    """The request is invalid or of a rare form."""


@dataclass(frozen=True, slots=True)
class DecodedRows:
    """Typed rows and the warnings about them."""

    rows: Sequence[Row]
    warnings: Sequence[Problem] = ()


def decoder_of(signature: Signature) -> RecordDecoder:
    """Return the decoder of a signature without a panel; decoders are cached."""
    return _decoder_of(signature.inputs, tuple(signature.ignored))


@functools.lru_cache(64)
def _decoder_of(inputs: tuple[Column, ...], ignored: tuple[str, ...]) -> RecordDecoder:
    return RecordDecoder(inputs, ignored)


class RecordDecoder:
    """Decodes JSON, decoded JSON and text fields to typed rows. All methods raise NeedsReport."""

    def __init__(self, inputs: Sequence[Column], ignored: Iterable[str]) -> None:
        self._names = tuple(column.name for column in inputs)
        self._inputs = frozenset(self._names)
        self._known = self._inputs.union(ignored)
        self._columns = [_ColumnDecoder(column) for column in inputs]
        self._plain = PlainRecords.of(inputs)

    def rows_of_json(self, body: bytes, max_rows: int) -> DecodedRows:
        """Decode a record, an array, a list of either, or `{"records": […]}`."""
        return self._plain_rows(body, form_of(body), max_rows) or self.rows_of(decode_small_json(body), max_rows)

    def rows_of_split(self, body: bytes, max_rows: int) -> DecodedRows | None:
        """Decode `{"dataframe_split": …}` with the columns in order; return None for any other body."""
        return self._plain_rows(body, SPLIT, max_rows) if body.startswith(SPLIT) else None

    def _plain_rows(self, body: bytes, form: bytes, max_rows: int) -> DecodedRows | None:
        if not self._plain:
            return None
        warnings: list[Problem] = []
        rows = self._plain.decode_perfect(body, form)
        if rows is None and (complete := self._plain.decode_complete(body, form)):
            rows = [self._row(cells, number, warnings) for number, cells in enumerate(complete[: max_rows + 1], 1)]
        if rows is not None and len(rows) > max_rows:
            raise NeedsReport
        return None if rows is None else DecodedRows(rows, warnings[:MAX_REPORTED])

    def rows_of(self, decoded: Any, max_rows: int) -> DecodedRows:
        """Decode what `decode_small_json` returned."""
        if isinstance(decoded, dict):
            wrapped = list(decoded) == ["records"] and "records" not in self._inputs
            decoded = decoded["records"] if wrapped else [decoded]
        if isinstance(decoded, list) and decoded and not any(isinstance(item, dict | list) for item in decoded):
            decoded = [decoded]
        if not isinstance(decoded, list) or not 0 < len(decoded) <= max_rows:
            raise NeedsReport
        warnings: list[Problem] = []
        rows = [self._row(self._cells(item), number, warnings) for number, item in enumerate(decoded, 1)]
        return DecodedRows(rows, warnings[:MAX_REPORTED])

    def _cells(self, record: Any) -> list[Any]:
        if isinstance(record, list):
            if len(record) != len(self._names):
                raise NeedsReport
            return record
        if not isinstance(record, dict):
            raise NeedsReport
        cells = list(map(record.get, self._names))
        if not record.keys() <= self._known:
            raise NeedsReport
        return cells

    def _row(self, cells: Sequence[Any], number: int, warnings: list[Problem]) -> Row:
        typed: list[Value] = []
        try:
            for cell, column in zip(cells, self._columns, strict=True):
                if (cell.__class__ is float and column.low <= cell <= column.high) or (
                    cell.__class__ is str and cell in column.exact
                ):
                    typed.append(cell)
                else:
                    value = column.json(cell)
                    typed.append(value)
                    column.check(value, number, warnings)
        except InvalidCell:
            raise NeedsReport from None
        return tuple(typed)

    def row_of_text(self, fields: Mapping[str, str]) -> DecodedRows:
        """Decode the fields of a form or a query; a field that is not there is empty."""
        if not fields.keys() <= self._inputs:
            raise NeedsReport
        warnings: list[Problem] = []
        typed: list[Value] = []
        try:
            for name, column in zip(self._names, self._columns, strict=True):
                text = fields.get(name, "")
                if text in column.exact:
                    typed.append(text)
                    continue
                if column.is_plain and PLAIN_NUMBER.fullmatch(text) and column.low <= (number := float(text)) <= column.high:
                    typed.append(number)
                    continue
                if not text.isprintable():
                    raise NeedsReport
                value = column.text(text)
                typed.append(value)
                column.check(value, 1, warnings)
        except InvalidCell:
            raise NeedsReport from None
        return DecodedRows([tuple(typed)], warnings[:MAX_REPORTED])


class _ColumnDecoder:
    """The converters of a column, and what needs no conversion: floats from `low` to `high` and strings in `exact`."""

    def __init__(self, column: Column) -> None:
        self.json, self.text, self._column = json_cell(column), text_cell(column), column
        self._categories = frozenset(column.categories)
        self._out_of_range = functools.lru_cache(16)(functools.partial(out_of_range, column=column))
        self._unknown_category = functools.lru_cache(16)(functools.partial(unknown_category, column=column))
        bounds = valid_range(column) if column.kind == "number" and not missing_sentinels(column) else None
        self.low, self.high = bounds or (math.inf, -math.inf)
        self.is_plain = bounds is not None and not column.has_number_format
        is_exact = column.is_text and column.fuzzy == "exact"
        known = {text for text in column.categories if text and normalize_category(text) == text}
        self.exact = known.difference(column.na_values) if is_exact else set()

    def check(self, value: Value, row: int, warnings: list[Problem]) -> None:
        """Add the warning about a typed cell. Raises NeedsReport for one that the column rejects."""
        column = self._column
        if isinstance(value, str):
            if value not in self._categories and column.kind == "category":
                if column.handle_unknown == "reject":
                    raise NeedsReport
                warnings.append(self._unknown_category(row))
        elif (
            value is not None and column.low is not None and column.high is not None and not column.low <= value <= column.high
        ):
            if column.rejects_outside_range:
                raise NeedsReport
            warnings.append(self._out_of_range(row))
        elif column.kind == "integer" and value is not None and value % 1:
            warnings.append(not_whole(row, column))


def decode_small_json(body: bytes) -> Any:
    """Decode JSON; a field that occurs twice, or an escaped quote, raises NeedsReport."""
    decoded = decode_any_json(body)
    check_quotes(body, decoded)
    return decoded


def decode_any_json(body: bytes) -> Any:
    """Decode JSON; of a field that occurs twice, the last value is kept. Raises NeedsReport."""
    if is_too_deep(body):
        raise NeedsReport
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise NeedsReport from None


def check_quotes(body: bytes, decoded: Any) -> None:
    """Check that no field occurs twice: each name and each text has two quotes, if none is escaped. Raises NeedsReport."""
    try:
        strings = _count_strings(decoded)
    except RecursionError:
        raise NeedsReport from None
    if body.count(b'"') != 2 * strings:
        raise NeedsReport


def _count_strings(decoded: Any) -> int:
    if decoded.__class__ is dict:
        return len(decoded) + _count_in(decoded.values())
    return _count_in(decoded) if decoded.__class__ is list else int(decoded.__class__ is str)


def _count_in(values: Iterable[Any]) -> int:
    return sum([1 if value.__class__ is str else _count_strings(value) for value in values if value.__class__ is not float])

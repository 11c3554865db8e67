"""Convert JSON values to typed cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from podium.schema.columns import Column, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, unknown_column
from podium.tables.cell_rules import (
    BOOLEANS,
    MAX_EXACT_INTEGER,
    MAX_MAGNITUDE,
    MAX_TEXT_LENGTH,
    epoch_days,
    expected,
    missing_sentinels,
    normalize_category,
    parse_date,
)
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.number_formats import plain_text


class InvalidCell(Exception):
    """A cell is not valid in its column."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def _number(value: object, column: Column) -> float:
    if isinstance(value, str) and column.has_number_format:
        digits = plain_text(value.strip(), column)
        value = float(digits) if digits else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidCell("invalid-type", "is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidCell("out-of-range", "is not finite")
    if abs(value) > MAX_MAGNITUDE:
        raise InvalidCell("out-of-range", "is too large")
    return float(value)


def _integer(value: object, column: Column) -> float:
    number = _number(value, column)
    if abs(number) > MAX_EXACT_INTEGER:
        raise InvalidCell("out-of-range", "is too large for a whole number")
    if column.require_whole and not number.is_integer():
        raise InvalidCell("invalid-type", "is not a whole number")
    return number


def _boolean(value: object, column: Column) -> float:
    spelling = BOOLEANS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if spelling is None:
        raise InvalidCell("invalid-type", "is not true or false")
    return spelling


def _category(value: object, column: Column) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidCell("invalid-type", "is not text")
    text = normalize_category(value) if isinstance(value, str) else str(value)
    if len(text) > MAX_TEXT_LENGTH:
        raise InvalidCell("out-of-range", "is too long")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidCell("invalid-encoding", "contains NUL or an unpaired surrogate")
    return resolve_category(text, column)


def _date(value: object, column: Column) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        days = epoch_days(value)
    else:
        days = parse_date(value, column.date_format, column.last_year) if isinstance(value, str) else None
    if days is None:
        raise InvalidCell("invalid-type", f"is not {expected(column)}")
    return days


VALUE_CONVERTERS: dict[str, Callable[[object, Column], Value]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "date": _date,
    "category": _category,
    "text": _category,
}


def _is_missing(value: object, column: Column) -> bool:
    if value is None or (column.needs_parsing and isinstance(value, str) and not value.strip()):
        return True
    if not column.na_values or isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return value in missing_sentinels(column)
    if not isinstance(value, str):
        return False
    text = value.strip()
    digits = plain_text(text, column) if column.has_number_format else None
    return text in column.na_values or (bool(digits) and float(digits or 0) in missing_sentinels(column))


def json_cell(column: Column) -> Callable[[object], Value]:
    """Return the converter of a column's JSON values to typed cells.

    It raises InvalidCell, including for a missing cell in a required column.
    """
    convert = VALUE_CONVERTERS[column.kind]

    def typed_cell(value: object) -> Value:
        if not _is_missing(value, column):
            return convert(value, column)
        if not column.nullable:
            raise InvalidCell("missing-field", "is required")
        return None

    return typed_cell


def coerce_rows(
    rows: Sequence[Mapping[str, object]], columns: Sequence[Column], ignored: Iterable[str] = ()
) -> list[tuple[Value, ...]]:
    """Return one tuple of typed cells, in the order of `columns`, per decoded JSON object.

    Fields in `ignored` are allowed and dropped. Raises BadData with every invalid cell, up to a bound.
    """
    names = {column.name for column in columns} | set(ignored)
    cells = [(column, json_cell(column)) for column in columns]
    problems: list[Problem] = []
    typed_rows = []
    for number, row in enumerate(rows, 1):
        unknown = itertools.islice((name for name in row if name not in names), MAX_REPORTED)
        problems += [unknown_column(name, number) for name in unknown]
        typed: list[Value] = []
        for column, typed_cell in cells:
            try:
                typed.append(typed_cell(row.get(column.name)))
            except InvalidCell as error:
                problems.append(Problem(error.code, error.message, number, column.name, expected(column)))
        typed_rows.append(tuple(typed))
        if len(problems) >= MAX_REPORTED:
            break
    if problems:
        raise BadData(problems)
    return typed_rows

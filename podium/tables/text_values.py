"""Convert one text cell, of a form or a query, to a typed cell by the rules of `typed_columns`."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable

from podium.schema.columns import Column, Value
from podium.tables.cell_rules import (
    BOOLEANS,
    MAX_TEXT_LENGTH,
    NUMBER,
    largest_number,
    missing_sentinels,
    parse_date,
)
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.json_values import InvalidCell
from podium.tables.number_formats import plain_text, with_hyphen

PLAIN_NUMBER = re.compile(NUMBER)


def text_cell(column: Column) -> Callable[[str], Value]:
    """Return the converter of a column's text to typed cells.

    It raises InvalidCell, including for a missing cell in a required column.
    """
    convert, missing = CONVERTERS[column.kind](column), {"", *column.na_values}

    def typed_cell(text: str) -> Value:
        text = text.strip()
        cell = None if text in missing else convert(text)
        if cell is None and not column.nullable:
            raise InvalidCell("missing-field", "is required")
        return cell

    return typed_cell


def _number(column: Column) -> Callable[[str], Value]:
    sentinels, largest = missing_sentinels(column), largest_number(column)

    def convert(text: str) -> Value:
        digits = plain_text(text, column) if column.has_number_format else with_hyphen(text)
        if not digits or not PLAIN_NUMBER.fullmatch(digits):
            raise InvalidCell("invalid-type", "is not a number")
        number = float(digits)
        if not math.isfinite(number) or abs(number) > largest:
            raise InvalidCell("out-of-range", "is too large")
        if column.require_whole and not number.is_integer():
            raise InvalidCell("invalid-type", "is not a whole number")
        return None if number in sentinels else number

    return convert


def _boolean(column: Column) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        try:
            return BOOLEANS[text.lower()]
        except KeyError:
            raise InvalidCell("invalid-type", "is not true or false") from None

    return convert


def _date(column: Column) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        days = parse_date(text, column.date_format, column.last_year)
        if days is None:
            raise InvalidCell("invalid-type", "is not a date")
        return days

    return convert


def _category(column: Column) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        if len(text) > MAX_TEXT_LENGTH or "\0" in text:
            raise InvalidCell("out-of-range", "is too long or contains NUL")
        return resolve_category(unicodedata.normalize("NFC", text), column)

    return convert


CONVERTERS: dict[str, Callable[[Column], Callable[[str], Value]]] = {
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "date": _date,
    "category": _category,
    "text": _category,
}

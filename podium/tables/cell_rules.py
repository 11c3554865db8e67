"""Cell rules shared by JSON values and text columns."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

import numpy as np

from podium.schema.arrays import FloatVector
from podium.schema.columns import EPOCH, Column

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
INTEGER = r"[+-]?[0-9]+(\.0*)?"
BOOLEANS = {"true": 1.0, "false": 0.0}
MAX_MAGNITUDE = 1e30
"""Larger numbers are rejected: no measured quantity needs them, and their squares overflow in trees that use float32."""
MAX_EXACT_INTEGER = 2.0**53
"""Largest integer up to which float64 represents every integer exactly."""
MAX_TEXT_LENGTH = 10_000

EXPECTED = {
    "number": "a number, such as 3 or 2.5",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "text",
    "money": "an amount, such as 1234.5, $1,234.5 or ($8.2)",
    "percent": "a percentage, such as 12 or 12%",
}


def expected(column: Column) -> str:
    """Return a description of valid cells."""
    return EXPECTED.get(column.number_format) or EXPECTED.get(column.kind) or f"a date of the form {column.date_format}"


def normalize_category(text: str) -> str:
    """Return the text in Unicode normalization form NFC, without surrounding whitespace."""
    return unicodedata.normalize("NFC", text).strip()


def parse_date(text: str, date_format: str) -> float | None:
    """Return days since 1970, or None if the text is not a date in this format."""
    try:
        return float(datetime.strptime(text.strip(), date_format).toordinal() - EPOCH)
    except ValueError:
        return None


def largest_number(column: Column) -> float:
    """Return the largest magnitude of a valid number."""
    return MAX_EXACT_INTEGER if column.kind == "integer" else MAX_MAGNITUDE


def are_valid_numbers(numbers: FloatVector, column: Column) -> bool:
    """Return whether no number is too large and, in an integer column, all are whole; NaN is valid."""
    size = np.abs(numbers)
    is_fractional = (np.floor(size) < size) if column.kind == "integer" else np.False_
    return not ((size > largest_number(column)) | is_fractional).any()


def missing_sentinels(column: Column) -> set[float]:
    """Return the numbers among the NA values of a numeric column; other columns have none."""
    if column.kind not in ("number", "integer"):
        return set()
    return {float(text) for text in column.na_values if re.fullmatch(NUMBER, text)}

"""Cell rules shared by JSON values and text columns."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

import numpy as np

from podium.schema.arrays import FloatVector
from podium.schema.columns import EPOCH_TIME, ISO_FORMAT, LAST_YEAR, Column

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
INTEGER = r"[+-]?[0-9]+(\.0*)?"
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1", "1.0"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", "0.0"), 0.0),
}
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
    "text": "text",
    "money": "an amount, such as 1234.5, $1,234.5 or ($8.2)",
    "percent": "a percentage, such as 12 or 12%",
    "quantity": "an amount, such as 12.5",
}


def expected(column: Column) -> str:
    """Return a description of valid cells."""
    return EXPECTED.get(column.number_format) or EXPECTED.get(column.kind) or f"a date of the form {column.date_format}"


def normalize_category(text: str) -> str:
    """Return the text in Unicode normalization form NFC, without surrounding whitespace."""
    return unicodedata.normalize("NFC", text).strip()


def parse_date(text: str, date_format: str, last_year: int = LAST_YEAR) -> float | None:
    """Return days since 1970, with the time of day as a fraction; None if the text is not in this format or ISO 8601.

    Times with an offset are converted to UTC. A whole number is the time since 1970 in seconds, or in milli-, micro- or
    nanoseconds if it is large. Two-digit years are in the hundred years up to `last_year`.
    """
    text = text.strip()

    def parse_format(text: str) -> datetime:
        time = datetime.strptime(text, date_format)
        return time.replace(year=last_year - (last_year - time.year) % 100) if "%y" in date_format else time

    for parse in (_parse_iso,) if date_format == ISO_FORMAT else (parse_format, _parse_iso):
        try:
            return _days(parse(text))
        except (ValueError, OverflowError):
            pass
    return epoch_days(float(text)) if re.fullmatch(r"-?[0-9]{9,19}(\.0*)?", text) else None


def _parse_iso(text: str) -> datetime:
    """Parse an ISO 8601 date with hyphens, optionally with a time and an offset. Raises ValueError."""
    if not text[4:5] == text[7:8] == "-":
        raise ValueError("not an ISO date")
    return datetime.fromisoformat(text.replace(" UTC", "Z").replace(" +", "+").replace(" -", "-"))


def _days(time: datetime) -> float:
    if time.tzinfo:
        time = time.astimezone(UTC).replace(tzinfo=None)
    days, rest = divmod(time - EPOCH_TIME, timedelta(days=1))
    return days + rest.total_seconds() / 86_400 if rest else float(days)


def epoch_days(number: float) -> float | None:
    """Return a time since 1970 in seconds, milli-, micro- or nanoseconds as days; None if it is too small to tell the unit."""
    for smallest, per_second in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0)):
        if abs(number) >= smallest:
            days = number / per_second / 86_400
            return days if abs(days) < 1e6 else None
    return None


def largest_number(column: Column) -> float:
    """Return the largest magnitude of a valid number."""
    return MAX_EXACT_INTEGER if column.kind == "integer" else MAX_MAGNITUDE


def are_valid_numbers(numbers: FloatVector, column: Column) -> bool:
    """Return whether no number is too large and all are whole if the column requires it; NaN is valid."""
    size = np.abs(numbers)
    is_fractional = (np.floor(size) < size) if column.require_whole else np.False_
    return not ((size > largest_number(column)) | is_fractional).any()


def missing_sentinels(column: Column) -> set[float]:
    """Return the numbers among the NA values of a numeric column; other columns have none."""
    if column.kind not in ("number", "integer"):
        return set()
    return {float(text) for text in column.na_values if re.fullmatch(NUMBER, text)}

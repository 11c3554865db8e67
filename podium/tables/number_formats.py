"""Formatted numbers such as `$1,234.5`, `($8.2)`, `12%`, `1.234,5`, `1.2k`, `<0.5` and `12.5 kg`."""

from __future__ import annotations

import re
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.columns import Column, DecimalMark, NumberFormat

SPACES = " \u00a0\u202f"
SEPARATORS: dict[DecimalMark, str] = {".": f",'{SPACES}", ",": f".'{SPACES}"}
"""The thousands separators for each decimal mark."""
CURRENCY = r"(?:US\$|[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR)"
MAGNITUDES = {"k": 3, "K": 3, "M": 6, "mn": 6, "mio": 6, "Mio": 6, "B": 9, "bn": 9, "Bn": 9}
LIMITS = "(?:[<>≤≥~≈]=?)"
MINUS = "^([$€£¥₹<>≤≥~≈=( ]*)[\u2212\u2013]([$€£¥₹ ]*[.,]?[0-9])"
"""A minus sign or en dash before a number; programs for typesetting and statistics write them."""
MAX_LENGTH = 64
"""Longer strings are not parsed."""


@lru_cache
def number_pattern(decimal: DecimalMark, grouped: bool = True) -> str:
    """Return a regular expression for a number, optionally with thousands separators."""
    if decimal == "," and not grouped:  # 1.500 is 1.5, because no number of the training table had thousands separators
        return r"(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
    point, separator = re.escape(decimal), SEPARATORS[decimal]
    return (
        rf"(?:[1-9][0-9]{{0,2}}(?:[{separator}][0-9]{{3}})+(?:{point}[0-9]*)?|[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)"
        r"(?:[eE][+-]?[0-9]+)?"
    )


@lru_cache
def format_pattern(number_format: NumberFormat, decimal: DecimalMark, suffix: str = "", grouped: bool = True) -> str:
    """Return a regular expression for whole cells. A number in parentheses is negative, and so is one before a minus."""
    space, number = f"[{SPACES}]?", number_pattern(decimal, grouped)
    magnitude = f"(?:{'|'.join(MAGNITUDES)})"
    amounts = [
        f"[+-]?{space}{CURRENCY}?{space}{number}{space}{CURRENCY}?",
        f"[+-]?{space}{CURRENCY}{space}[+-]?{space}{number}{space}{magnitude}?",
        f"[+-]?{space}{number}{space}{magnitude}{space}{CURRENCY}",
        rf"\({CURRENCY}?{space}{number}{space}{CURRENCY}?\)",
        f"{CURRENCY}?{space}[0-9{SEPARATORS[decimal]}]*[0-9]{re.escape(decimal)}[0-9]+{space}{CURRENCY}?-",
    ]
    return {
        "plain": rf"[+-]?{number}",
        "money": "|".join(amounts),
        "percent": rf"[+-]?{number}{space}%?|\({number}{space}%?\)",
        "quantity": rf"{LIMITS}?{space}[+-]?{number}{space}(?:{re.escape(suffix) or magnitude})?",
    }[number_format]


@lru_cache
def _parts(decimal: DecimalMark, grouped: bool) -> str:
    """Return a regular expression that finds the number and the magnitude after it."""
    return (
        rf"(?P<number>{number_pattern(decimal, grouped)})[{SPACES}]?(?P<magnitude>(?:{'|'.join(MAGNITUDES)})(?:[^A-Za-z]|$))?"
    )


def _separators(column: Column) -> str:
    """Return a regular expression for the characters to remove from a number."""
    return f"[{SEPARATORS[column.decimal] if column.grouped or column.decimal == '.' else SPACES}]"


def with_hyphen(text: str) -> str:
    """Return a number with a hyphen as its minus sign, as in `with_hyphens`."""
    return text if text.isascii() else _PATTERNS(MINUS).sub(r"\1-\2", text)


def with_hyphens(text: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return numbers with a hyphen instead of a Unicode minus sign or an en dash; other strings stay unchanged."""
    return pc.replace_substring_regex(text, MINUS, r"\1-\2")


NEGATIVE = r"^[^0-9.,]*-|-$|^\("
_PATTERNS = lru_cache(re.compile)


def plain_text(text: str, column: Column) -> str | None:
    """Return the number without formatting, like `plain_texts`; None if the text does not have the column's format."""
    pattern = format_pattern(column.number_format, column.decimal, column.suffix, column.grouped)
    text = with_hyphen(text[: MAX_LENGTH + 1])
    if len(text) > MAX_LENGTH or _PATTERNS(pattern).fullmatch(text) is None:
        return None
    parts = _PATTERNS(_parts(column.decimal, column.grouped)).search(text)
    assert parts is not None
    digits = re.sub(_separators(column), "", parts["number"]).replace(",", ".")
    magnitude = None if column.suffix else MAGNITUDES.get(re.sub("[^A-Za-z]", "", parts["magnitude"] or ""))
    sign = "-" if _PATTERNS(NEGATIVE).search(text) else ""
    return f"{sign}{digits}e{magnitude}" if magnitude else sign + digits


def plain_texts(text: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Return the numbers without formatting; strings that do not have the column's format stay unchanged."""
    pattern = format_pattern(column.number_format, column.decimal, column.suffix, column.grouped)
    text = with_hyphens(text)
    is_formatted = pc.and_(pc.less_equal(pc.utf8_length(text), MAX_LENGTH), pc.match_substring_regex(text, f"^(?:{pattern})$"))
    parts = pc.extract_regex(text, _parts(column.decimal, column.grouped))
    number, magnitude = pc.struct_field(parts, [0]), pc.struct_field(parts, [1])
    digits = pc.replace_substring_regex(number, _separators(column), "")
    digits = pc.replace_substring(digits, ",", ".")
    exponent = "" if column.suffix else _exponents(pc.replace_substring_regex(magnitude, "[^A-Za-z]", ""))
    sign = pc.if_else(pc.match_substring_regex(text, NEGATIVE), "-", "")
    return pc.if_else(is_formatted, pc.binary_join_element_wise(sign, digits, exponent, ""), text)


def _exponents(magnitudes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the exponent that each magnitude stands for, such as e3 for k; empty for none."""
    exponents = pa.array(["", *(f"e{power}" for power in MAGNITUDES.values())])
    return exponents.take(pc.fill_null(pc.index_in(magnitudes, pa.array(["", *MAGNITUDES])), 0))

"""Formatted numbers such as `$1,234.5`, `($8.2)` and `12%`."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.columns import NumberFormat

_GROUPED = r"([1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?|[0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
MAX_LENGTH = 64
"""Longer strings are not parsed."""
PATTERNS: dict[NumberFormat, str] = {
    "money": rf"([+-]?[$€£]? ?|[$€£] ?[+-]){_GROUPED} ?[$€£]?|\([$€£]? ?{_GROUPED} ?[$€£]?\)",
    "percent": rf"[+-]?{_GROUPED} ?%?|\({_GROUPED} ?%?\)",
}
"""Regular expressions for the formats. A number in parentheses is negative."""
MARKS: dict[NumberFormat, str] = {"money": r"[$€£(]|,[0-9]{3}[,.]|^[0-9]{1,3}$|^[+-]?[0-9]{2,3},[0-9]{3}$", "percent": "%"}
"""Patterns that identify a format if any cell matches. If all cells are like 1,500, the comma may be a decimal one."""
_FORMATTING = r"[^0-9.eE+-]"


def plain_text(text: str, number_format: NumberFormat) -> str | None:
    """Return the number without formatting, like `plain_texts`; None if the text does not have the format."""
    if len(text) > MAX_LENGTH or re.fullmatch(PATTERNS[number_format], text) is None:
        return None
    return ("-" if text.startswith("(") else "") + re.sub(_FORMATTING, "", text)


def plain_texts(text: pa.ChunkedArray, number_format: NumberFormat) -> pa.ChunkedArray:
    """Return the numbers without formatting; strings that do not have the format stay unchanged."""
    is_short = pc.less_equal(pc.utf8_length(text), MAX_LENGTH)
    is_formatted = pc.and_(is_short, pc.match_substring_regex(text, f"^(?:{PATTERNS[number_format]})$"))
    digits = pc.replace_substring_regex(text, _FORMATTING, "")
    sign = pc.if_else(pc.starts_with(text, "("), "-", "")
    return pc.if_else(is_formatted, pc.binary_join_element_wise(sign, digits, ""), text)

"""Amounts and percentages as people write them: `$1,234.5`, `($8.2)`, `12%`."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.columns import NumberFormat

_GROUPED = r"([1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?|[0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
MAX_LENGTH = 64
"""A longer text is no number that anybody writes."""
PATTERNS: dict[NumberFormat, str] = {
    "money": rf"([+-]?[$€£]? ?|[$€£] ?[+-]){_GROUPED} ?[$€£]?|\([$€£]? ?{_GROUPED} ?[$€£]?\)",
    "percent": rf"[+-]?{_GROUPED} ?%?|\({_GROUPED} ?%?\)",
}
"""What a number may look like; in parentheses it is negative."""
MARKS: dict[NumberFormat, str] = {"money": r"[$€£(]|,[0-9]{3},|,[0-9]{3}\.|^[0-9]{1,3}$", "percent": "%"}
"""What shows that a column is written so. 1,500 may have three decimals: commas alone count beside small numbers only."""
_ORNAMENT = r"[^0-9.eE+-]"


def plain_text(text: str, number_format: NumberFormat) -> str | None:
    """The number as digits, as `plain_texts` does it; None when it is not written like this."""
    if len(text) > MAX_LENGTH or re.fullmatch(PATTERNS[number_format], text) is None:
        return None
    return ("-" if text.startswith("(") else "") + re.sub(_ORNAMENT, "", text)


def plain_texts(text: pa.ChunkedArray, number_format: NumberFormat) -> pa.ChunkedArray:
    """The numbers as digits; what is not written like this stays as it is."""
    short = pc.less_equal(pc.utf8_length(text), MAX_LENGTH)
    written = pc.and_(short, pc.match_substring_regex(text, f"^(?:{PATTERNS[number_format]})$"))
    digits = pc.replace_substring_regex(text, _ORNAMENT, "")
    negative = pc.if_else(pc.starts_with(text, "("), "-", "")
    return pc.if_else(written, pc.binary_join_element_wise(negative, digits, ""), text)

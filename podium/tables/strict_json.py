"""Strict JSON (RFC 8259) with bounds on memory and nesting."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from podium.schema.data_errors import Malformed, Problem, TooLarge

MAX_DEPTH = 100
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
MAX_DECODED_BYTES = 300_000_000
"""Approximate memory for decoded JSON: its text, plus the bytes in OVERHEAD_BYTES for each character listed there."""
OVERHEAD_BYTES = {b"[": 100, b"{": 100, b":": 60, b",": 30, b'"': 12}
ALWAYS_WITHIN_BOUNDS = MAX_DECODED_BYTES // (1 + max(OVERHEAD_BYTES.values()))
MAX_FIELDS = 12_000
"""Maximum number of fields in a JSON object."""


def decode_json(data: bytes, *, nan: bool = False) -> Any:
    """Decode UTF-8 JSON, rejecting duplicate fields and, unless `nan`, NaN. Raises BadData, including if it is too large."""
    check_json_size(data)
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise Malformed([Problem("invalid-encoding", f"byte {error.start} is not UTF-8")]) from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_fields,
            parse_constant=_parse_constant if nan else _reject_constant,
            parse_int=_parse_int,
        )
    except json.JSONDecodeError as error:
        raise Malformed([Problem("invalid-json", f"line {error.lineno}, column {error.colno}: {error.msg}")]) from None
    except RecursionError:
        raise too_deep() from None


def check_json_size(data: bytes) -> None:
    """Estimate the memory and nesting of the decoded values by counting characters. Raises BadData."""
    if len(data) > ALWAYS_WITHIN_BOUNDS:
        overhead = sum(data.count(mark) * size for mark, size in OVERHEAD_BYTES.items())
        if len(data) + overhead > MAX_DECODED_BYTES:
            message = "the request has too many records, fields or values"
            raise TooLarge([Problem("too-large", message, expected="fewer records, or CSV or Parquet")])
    if is_too_deep(data):
        raise too_deep()


def is_too_deep(data: bytes) -> bool:
    """Return whether JSON is nested deeper than MAX_DEPTH; brackets within strings count too, so this is an estimate."""
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH


def too_deep() -> Malformed:
    return Malformed([Problem("invalid-json", f"the JSON is nested deeper than {MAX_DEPTH} levels")])


def _depth(data: bytes) -> int:
    """Return the nesting depth. Brackets within strings count too, so this is an estimate."""
    brackets = np.frombuffer(data.translate(None, NO_BRACKETS), dtype=np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_FIELDS:
        raise TooLarge([Problem("too-many-fields", "a record has too many fields", expected=f"at most {MAX_FIELDS}")])
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed([Problem("duplicate-field", "a record has a duplicate field")])
    return fields


def _parse_constant(name: str) -> float:
    return math.nan if name == "NaN" else _reject_constant(name)


def _reject_constant(name: str) -> float:
    raise Malformed([Problem("not-finite", f"{name} is not valid JSON")])


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 300 else math.inf

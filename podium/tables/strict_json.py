"""JSON as RFC 8259 has it, with bounds on what it decodes to."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from podium.schema.data_errors import Malformed, Problem, TooLarge

MAX_DEPTH = 100
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
JSON_BYTES = 300_000_000
"""What decoded JSON may take in memory, about: its text, and what Python adds for each of these."""
ADDED = {b"[": 100, b"{": 100, b":": 60, b",": 30, b'"': 12}
SMALL = JSON_BYTES // (1 + max(ADDED.values()))
MAX_FIELDS = 12_000
"""Fields of a JSON object."""


def decode_json(data: bytes, *, nan: bool = False) -> Any:
    """Strict JSON: UTF-8, no NaN unless it is asked for, no field twice, not too deep, not too much. Raises BadData."""
    _check_json(data)
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise Malformed([Problem("invalid-encoding", f"byte {error.start} is not UTF-8")]) from None
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_nan if nan else _not_finite, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise Malformed([Problem("invalid-json", f"line {error.lineno}, column {error.colno}: {error.msg}")]) from None
    except RecursionError:
        raise too_deep() from None


def _check_json(data: bytes) -> None:
    """Bound the memory that the decoded values take, and their nesting, by counting. Raises BadData."""
    if len(data) > SMALL and len(data) + sum(data.count(mark) * added for mark, added in ADDED.items()) > JSON_BYTES:
        said = "has more records, fields and values than are read at a time"
        raise TooLarge([Problem("too-large", said, expected="fewer records, or CSV or Parquet")])
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise too_deep()


def too_deep() -> Malformed:
    return Malformed([Problem("invalid-json", f"is nested deeper than {MAX_DEPTH}")])


def _depth(data: bytes) -> int:
    """The nesting; brackets within texts count too, so the decoder must watch its own."""
    brackets = np.frombuffer(data.translate(None, NO_BRACKETS), dtype=np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_FIELDS:
        raise TooLarge([Problem("too-many-fields", "a record has too many fields", expected=f"at most {MAX_FIELDS}")])
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed([Problem("duplicate-field", "a record names a field twice")])
    return fields


def _nan(name: str) -> float:
    return math.nan if name == "NaN" else _not_finite(name)


def _not_finite(name: str) -> float:
    raise Malformed([Problem("not-finite", f"{name} is no JSON number")])


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 300 else math.inf

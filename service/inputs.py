"""A request's body to typed rows, whatever form it came in."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from podium.data.columns import Signature, Value
from podium.data.doubts import doubts_of_frame, doubts_of_rows
from podium.data.problems import BadData, Malformed, Problem, TooLarge
from podium.data.read import read_table
from podium.data.typed import frame_rows, rows_frame, typed_frame, typed_rows

DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Inputs:
    """Typed rows, as tuples, as a frame and as the table of texts that came, each made when asked for; and warnings."""

    count: int
    warnings: list[Problem]
    as_rows: Callable[[], list[tuple[Value, ...]]]
    as_frame: Callable[[], pd.DataFrame]
    as_table: Callable[[], pa.Table]


def from_table(data: bytes, signature: Signature, most: int) -> Inputs:
    """CSV or Parquet bytes; raises BadData."""
    return _from_text(read_table(data, most_rows=most), signature, most)


def from_form(fields: Mapping[str, str], signature: Signature) -> Inputs:
    """The fields of a form, each a text; raises BadData."""
    unknown = [
        Problem("unknown-field", "is no input of this model", column=name) for name in fields if name not in signature.names
    ]
    if unknown:
        raise BadData(unknown)
    return _from_text(pa.table({name: pa.array([fields.get(name, "")], pa.string()) for name in signature.names}), signature, 1)


def _from_text(table: pa.Table, signature: Signature, most: int) -> Inputs:
    if table.num_rows > most:
        raise TooLarge([Problem("too-many-rows", f"has {table.num_rows} rows", expected=f"at most {most}")])
    frame = typed_frame(table, signature.inputs, signature.ignored)
    doubts = doubts_of_frame(frame, signature.inputs)
    return Inputs(len(frame), doubts, lambda: frame_rows(frame), lambda: frame, lambda: table)


def from_json(data: bytes, signature: Signature, most: int) -> Inputs:
    """A record, a list of records, `{"records": […]}`, a bare array or a list of bare arrays; raises BadData."""
    return from_records(decode_json(data), signature, most)


def from_records(decoded: Any, signature: Signature, most: int) -> Inputs:
    """The same, decoded; raises BadData."""
    wrapped = isinstance(decoded, dict) and list(decoded) == ["records"] and "records" not in signature.names
    records = decoded["records"] if wrapped else decoded
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise BadData([Problem("invalid-type", "is neither a record nor a list of records")])
    if records and not any(isinstance(each, dict | list) for each in records):
        records = [records]
    if not records:
        raise BadData([Problem("empty-input", "there is no record")])
    if len(records) > most:
        raise TooLarge([Problem("too-many-rows", f"has {len(records)} records", expected=f"at most {most}")])
    named = _named(records, signature)
    rows = typed_rows(named, signature.inputs, signature.ignored)
    doubts = doubts_of_rows(rows, signature.inputs)
    frame = functools.partial(rows_frame, rows, signature.inputs)
    return Inputs(len(rows), doubts, lambda: rows, frame, functools.partial(_text_table, named, signature.names))


def _named(records: Sequence[Any], signature: Signature) -> list[dict[str, Any]]:
    """Bare arrays as records; raises BadData."""
    problems, named = [], []
    width = len(signature.names)
    for number, record in enumerate(records, 1):
        if isinstance(record, dict):
            named.append(record)
        elif not isinstance(record, list):
            problems.append(Problem("invalid-type", "is neither a record nor an array", number))
        elif len(record) != width:
            problems.append(
                Problem("wrong-length", f"has {len(record)} values", number, None, f"{width} values in training order")
            )
        else:
            named.append(dict(zip(signature.names, record, strict=True)))
    if problems:
        raise BadData(problems)
    return named


def _text_table(records: Sequence[Mapping[str, Any]], inputs: Sequence[str]) -> pa.Table:
    names = list(dict.fromkeys([*(name for record in records for name in record), *inputs]))
    return pa.table({name: pa.array([_text(record.get(name)) for record in records], pa.string()) for name in names})


def _text(value: object) -> str:
    return "" if value is None else value.encode(errors="replace").decode() if isinstance(value, str) else json.dumps(value)


def decode_json(data: bytes, *, nan: bool = False) -> Any:
    """Strict JSON: UTF-8, no NaN unless it is asked for, no field twice, not too deep. Raises Malformed."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise Malformed([Problem("invalid-encoding", f"byte {error.start} is not UTF-8")]) from None
    if _depth(text) > DEEPEST:
        raise Malformed([Problem("invalid-json", f"is nested deeper than {DEEPEST}")])
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_nan if nan else _not_finite, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise Malformed([Problem("invalid-json", f"line {error.lineno}, column {error.colno}: {error.msg}")]) from None


def _depth(text: str) -> int:
    """An upper bound of the nesting, without recursion."""
    deepest = depth = 0
    for letter in text if text.count("[") + text.count("{") > DEEPEST else "":
        depth += (letter in "[{") - (letter in "]}")
        deepest = max(deepest, depth)
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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

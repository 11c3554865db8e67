"""Parsing of valid and invalid requests of the Open Inference Protocol and of MLflow, without a service."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.inference.json_rows import rows_from_records
from podium.schema.columns import Column, Signature, Target
from podium.schema.data_errors import BadData
from podium.tables.strict_json import decode_json
from service.mlflow import parse_mlflow_records
from service.open_inference import parse_request, render_response
from service.tensors import Tensor, encode_cells

MAX_ROWS = 1000
SIGNATURE = Signature(
    (
        Column("income", "number", low=0, high=9),
        Column("visits", "integer", low=0, high=9),
        Column("city", "category", categories=("Bonn", "Köln")),
        Column("member", "boolean", low=0, high=1),
        Column("since", "date", low=0, high=9),
        Column("score", "number", nullable=True, low=0, high=9),
    ),
    Target("bought", "binary", ("no", "yes")),
    {"note": "constant"},
)
RECORD = {"income": 1.5, "visits": 3, "city": "Köln", "member": True, "since": "1970-01-03", "score": 0.25}
KINDS = {"income": "FP64", "visits": "INT64", "city": "BYTES", "member": "BOOL", "since": "BYTES", "score": "FP32"}
GOOD = [{"name": name, "datatype": kind, "shape": [1], "data": [RECORD[name]]} for name, kind in KINDS.items()]


def parsed(body: Any, binary: bytes = b"", length: str | None = None) -> list[dict[str, Any]]:
    """Return the records of a request after checking that they convert to rows."""
    text = json.dumps(body).encode()
    length = length if length is not None or not binary else str(len(text))
    records = parse_request(text + binary, length, SIGNATURE, MAX_ROWS).records
    rows_from_records(records, SIGNATURE, MAX_ROWS)
    return records


def first(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**GOOD[0], **changes}, *GOOD[1:]]}


def binary_body(raw: bytes, datatype: str = "FP64", shape: Any = (1,), **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "income", "datatype": datatype, "shape": list(shape)}
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw), **parameters}}, *GOOD[1:]]}


ODD_VALUES: list[Any] = [None, 5, -1, 1.5, True, "x", "\ud800", [], [1], [[1]], {}, {"a": 1}, [None], "x" * 300, 10**40]


def odd(make: Callable[[Any], Any], valid: Sequence[Any] = (), more: Sequence[Any] = ()) -> list[Any]:
    """Return a request for each invalid value: the odd values except the `valid` ones, and `more`."""
    return [make(value) for value in [*ODD_VALUES, *more] if not any(value == ok and type(value) is type(ok) for ok in valid)]


INVALID: list[Any] = [
    *odd(lambda value: value),
    *odd(lambda value: {"inputs": GOOD, "parameters": value}, (None, {}, {"a": 1})),
    *odd(lambda value: first(parameters=value), (None, {}, {"a": 1})),
    *odd(lambda value: first(datatype=value), more=("float", "INT128", "BF16")),
    *odd(lambda value: first(shape=value), ([1],), ([-1], [2], [1, 1, 1], [True], [1.0], ["1"])),
    *odd(lambda value: first(data=value), ([1], [[1]]), ([[1, 2]], [1, [2]], [[1], 2], [[[1]]], [[]])),
    *odd(lambda value: first(name=value), more=("visits",)),
    *odd(lambda value: {"inputs": value}),
    *odd(lambda value: {"inputs": GOOD, "id": value}, (None, "x")),
    *odd(lambda value: {"inputs": GOOD, "outputs": value}, (None, [])),
    *odd(lambda value: {"inputs": GOOD, "outputs": [{"name": value}]}),
    *odd(lambda value: {"inputs": GOOD, "outputs": [{"name": "prediction", "parameters": value}]}, (None, {}, {"a": 1})),
    *odd(lambda value: binary_body(b"", binary_data_size=value), more=(8,)),
    *odd(lambda value: {"inputs": GOOD, "parameters": {"binary_data_output": value}}, (True,)),
    first(shape=[1] * 100_000),
    first(shape=[10**12]),
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1000, 0], "data": []}]},
    first(shape=[2], data=[1, 2]),
    first(shape=[1, 2], data=[1, 2]),
    first(parameters={"binary_data_size": 0}),
    {"inputs": [*GOOD[1:], {**GOOD[0], "name": "colour"}]},
]


@pytest.mark.parametrize("body", INVALID, ids=range(len(INVALID)))
def test_an_invalid_request_raises_bad_data_only(body: Any) -> None:
    with pytest.raises(BadData) as error:
        parsed(body)
    json.dumps([problem.as_json() for problem in error.value.problems]).encode()
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "٣", "9" * 400, "100000", " 5"])
def test_an_invalid_json_length_is_rejected(length: str) -> None:
    with pytest.raises(BadData):
        parsed({"inputs": GOOD}, b"", length)


def test_optional_parts_of_the_protocol_are_accepted() -> None:
    bodies: list[Any] = [
        {"inputs": GOOD, "parameters": None, "id": None, "outputs": None},
        {"inputs": GOOD, "parameters": {"content_type": "unknown", "more": [1]}, "outputs": []},
        first(shape=[1, 1], data=[[1.5]]),
        first(parameters={"content_type": "np"}),
        first(data=[1.5], shape=[1, 1]),
        {"inputs": [*GOOD, {"name": "note", "datatype": "BYTES", "shape": [1], "data": ["x"]}]},
    ]
    for body in bodies:
        (record,) = parsed(body)
        assert {name: record[name] for name in RECORD} == RECORD


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [(f"{sign}INT{8 * size}", f"<{letter}{size}") for sign, letter in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)]
    + [(f"FP{8 * size}", f"<f{size}") for size in (2, 4, 8)],
)
def test_binary_numbers_are_accepted(datatype: str, dtype: str) -> None:
    raw = np.array([2], dtype).tobytes()
    assert parsed(binary_body(raw, datatype), raw)[0]["income"] == 2


def text_tensor(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_binary_texts_and_booleans_are_accepted() -> None:
    city, flag = text_tensor("Köln".encode()), b"\1"
    inputs = [dict(tensor) for tensor in GOOD]
    for index, raw in ((2, city), (3, flag)):
        del inputs[index]["data"]
        inputs[index]["parameters"] = {"binary_data_size": len(raw)}
    assert parsed({"inputs": inputs}, city + flag) == [RECORD]


def test_binary_nan_is_a_missing_value() -> None:
    raw = struct.pack("<f", math.nan)
    body = {"inputs": [*GOOD[:5], {"name": "score", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}
    assert parsed(body, raw)[0]["score"] is None


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [
        ("FP64", b"\0" * 7),
        ("FP64", b"\0" * 16),
        ("FP64", struct.pack("<d", math.inf)),
        ("FP16", b"\0"),
        ("BOOL", b"\2"),
        ("BOOL", b""),
        ("BYTES", b""),
        ("BYTES", b"\0\0\0"),
        ("BYTES", b"\1\0\0\0"),
        ("BYTES", b"\xff\xff\xff\xff" + b"x" * 9),
        ("BYTES", text_tensor(b"a", b"b")),
        ("BYTES", text_tensor(b"\xff")),
        ("BYTES", text_tensor(b"\xed\xa0\x80")),
    ],
)
def test_invalid_binary_data_is_rejected(datatype: str, raw: bytes) -> None:
    with pytest.raises(BadData):
        parsed(binary_body(raw, datatype), raw)


def test_surplus_and_missing_bytes_are_rejected() -> None:
    raw = struct.pack("<d", 2.0)
    for body, binary in ((binary_body(raw), raw + b"x"), (binary_body(raw), raw[:-1]), ({"inputs": GOOD}, b"x")):
        with pytest.raises(BadData):
            parsed(body, binary)


def test_numbers_are_accepted_as_booleans_in_a_matrix() -> None:
    signature = Signature((Column("a", "number"), Column("b", "boolean")), SIGNATURE.target, {})
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1.5, 1], [2.5, 0]]}]}
    records = parse_request(json.dumps(body).encode(), None, signature, 10).records
    assert records == [{"a": 1.5, "b": True}, {"a": 2.5, "b": False}]


def test_binary_outputs_have_the_format_of_binary_inputs() -> None:
    requested = {"prediction": True, "probability_yes": True}
    body, length = render_response({"id": "7"}, [[0.25, 0.75], [0.5, 0.5]], SIGNATURE, requested)
    assert length
    header, rest = json.loads(body[:length]), memoryview(body)[length:]
    assert [tensor["name"] for tensor in header["outputs"]] == ["prediction", "probability_yes"]
    cells, offset = [], 0
    for tensor in header["outputs"]:
        size = tensor["parameters"]["binary_data_size"]
        cells.append(Tensor("", tensor["datatype"], *tensor["shape"], rest[offset : offset + size]).cells())
        offset += size
    assert (cells, offset) == ([["yes", "no"], [0.75, 0.5]], len(rest))
    assert encode_cells([None], "FP64") == np.array([math.nan]).tobytes()


def tensors_of(count: int) -> bytes:
    many = [{"name": f"t{index}", "datatype": "FP64", "shape": [1], "data": [1]} for index in range(count)]
    return json.dumps({"inputs": many}).encode()


LARGE: dict[str, Callable[[], bytes]] = {
    "tensors": lambda: tensors_of(100_000),
    "one name": lambda: json.dumps({"inputs": [GOOD[0]] * 100_000}).encode(),
    "values": lambda: json.dumps(first(shape=[1_000_000], data=[1] * 1_000_000)).encode(),
    "lists": lambda: json.dumps(first(data=[[]] * 1_000_000)).encode(),
    "long name": lambda: json.dumps(first(name="x" * 3_000_000)).encode(),
    "long id": lambda: json.dumps({"inputs": GOOD, "id": "x" * 3_000_000}).encode(),
    "outputs": lambda: json.dumps({"inputs": GOOD, "outputs": [{"name": "x"}] * 100_000}).encode(),
    "nested": lambda: b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_a_large_invalid_request_is_rejected_quickly_with_a_short_error(make: Callable[[], bytes]) -> None:
    data = make()
    started = time.perf_counter()
    with pytest.raises(BadData) as error:
        parse_request(data, None, SIGNATURE, MAX_ROWS)
    assert time.perf_counter() - started < 30
    assert len(json.dumps([problem.as_json() for problem in error.value.problems])) < 50_000


def mlflow(body: Any) -> None:
    rows_from_records(parse_mlflow_records(decode_json(json.dumps(body).encode())), SIGNATURE, MAX_ROWS)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(["name", "data", "income"]) | st.text(max_size=3)
VALUES = st.recursive(
    PLAIN | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["name", "datatype", "shape", "data", "parameters"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 5), FIELDS, VALUES), max_size=3),
    st.dictionaries(st.sampled_from(["id", "parameters", "outputs"]), VALUES),
)
def test_any_value_in_any_field_is_handled(changes: list[tuple[int, str, Any]], more: dict[str, Any]) -> None:
    inputs = [dict(tensor) for tensor in GOOD]
    for index, field, value in changes:
        inputs[index][field] = value
    try:
        parsed({"inputs": inputs, **more})
    except BadData as error:
        json.dumps([problem.as_json() for problem in error.problems]).encode()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from(["FP16", "FP32", "FP64", "INT8", "UINT64", "BOOL", "BYTES"]), st.integers(0, 9))
def test_any_binary_data_is_handled(raw: bytes, datatype: str, rows: int) -> None:
    try:
        parsed(binary_body(raw, datatype, [rows]), raw)
    except BadData:
        pass


SPLIT = {"columns": list(RECORD), "data": [list(RECORD.values())]}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", ""]), VALUES, st.booleans())
def test_any_body_of_invocations_is_handled(key: str, value: Any, split: bool) -> None:
    bodies: list[Any] = [{key: value}, value, {key: {**SPLIT, "data": value}}, {key: {**SPLIT, "columns": value}}]
    for body in bodies:
        try:
            mlflow(body)
        except BadData as error:
            json.dumps([problem.as_json() for problem in error.problems]).encode()

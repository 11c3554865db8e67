"""The compiled decoders give the cells and warnings of the detailed parsers, for all valid cells."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.inference.json_columns import columns_of_json
from podium.inference.json_rows import rows_from_records
from podium.inference.parsed_rows import ParsedRows
from podium.inference.record_decoder import DecodedRows, NeedsReport, decoder_of
from podium.inference.table_rows import rows_from_form
from podium.schema.columns import Column, Signature, Target
from podium.schema.data_errors import BadData
from podium.tables.frames import frame_to_rows

COLUMNS = (
    Column("size", "number", low=-10.0, high=10.0),
    Column("weight", "number", nullable=True, na_values=("?", "-999", "3"), low=0.0, high=5.0),
    Column("count", "integer", nullable=True, low=0.0, high=100.0),
    Column("shop", "integer", low=0.0, high=30.0, require_whole=True, handle_unknown="reject"),
    Column("price", "number", nullable=True, number_format="money", low=0.0, high=1000.0),
    Column("share", "number", nullable=True, number_format="percent", low=0.0, high=100.0),
    Column("flag", "boolean", nullable=True, na_values=("1",), low=0.0, high=1.0),
    Column("day", "date", nullable=True, na_values=("18321", "?"), low=18000.0, high=20000.0),
    Column("colour", "category", categories=("red", "green", "é", "7"), nullable=True, na_values=("none",)),
    Column("city", "category", categories=("Rome", "Oslo"), handle_unknown="reject"),
    Column("weekday", "category", categories=("monday", "tuesday", "friday"), fuzzy="nearest", nullable=True),
)
PLAIN = tuple(column for column in COLUMNS if column.name not in ("price", "share", "weekday"))
"""Columns whose usual cells need no conversion."""
SIGNATURE = Signature(COLUMNS, Target("y", "regression"), {"id": "not used"})
PLAIN_SIGNATURE = Signature(PLAIN, Target("y", "regression"), {})
NUMBERS: list[Any] = [0, -0.0, 1, 3, 3.0, 24.0, 2.5, -999, 99, 1e3, 1e31, -1e-300, 2**53 + 2, 10**40, True, None]
TEXTS: list[Any] = ["", " ", "?", "-999", "1", "+1", "2.5", " 3 ", "1e2", ".5", "5.", "24.0", "nan", "inf", "1,5", "$1,234.50"]
TEXTS += ["($8.2)", "12%", "true", "FALSE", "yes", "2020-02-29", "2019-02-29", "29.02.2020", "red", " red ", "Red", "mauve"]
TEXTS += ["e\u0301", "none", "Rome", "Oslo", "Paris", "Monday", "tusday", "a\x00b", "7", "x" * 10_001, 'say "hi"', "\u00a0red"]
CELLS = st.sampled_from([*NUMBERS, *TEXTS, [1], {"a": 1}])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Return a record that is mostly valid, so that a single odd cell decides."""
    record: dict[str, Any] = {
        "size": 1.5, "weight": 2, "count": 24, "shop": 3, "price": "$5", "share": 12, "flag": True, "day": "2020-02-29",
        "colour": "red", "city": "Rome", "weekday": "monday",
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from([*record, "id"]), max_size=3)):
        record[name] = draw(CELLS)
    for name in draw(st.lists(st.sampled_from(list(record)), max_size=2)):
        record.pop(name, None)
    return record


def detailed(rows: list[dict[str, Any]]) -> ParsedRows | None:
    try:
        return rows_from_records(rows, SIGNATURE, 100)
    except BadData:
        return None


def needs_closer_look(body: str) -> bool:
    """Return whether the JSON contains an escaped quote, which the decoders leave to the detailed parser."""
    return '\\"' in body


def assert_same(decoded: DecodedRows | None, expected: ParsedRows | None) -> None:
    assert (decoded is None) == (expected is None)
    if decoded and expected:
        assert list(decoded.rows) == expected.as_rows()
        assert list(decoded.warnings) == expected.warnings


@settings(max_examples=600, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4))
def test_json_records_decode_to_the_cells_and_warnings_of_the_detailed_parser(rows: list[dict[str, Any]]) -> None:
    body, expected = json.dumps(rows), detailed(rows)
    for text in [body, json.dumps({"records": rows})] + ([json.dumps(rows[0])] if len(rows) == 1 else []):
        try:
            decoded = decoder_of(SIGNATURE).rows_of_json(text.encode(), 10)
        except NeedsReport:
            assert expected is None or needs_closer_look(body)
        else:
            assert_same(decoded, expected)


@settings(max_examples=600, deadline=None)
@given(records())
def test_plain_records_decode_to_the_cells_and_warnings_of_the_detailed_parser(record: dict[str, Any]) -> None:
    """Most of these records are decoded without a loop over their cells, or with one warning."""
    record = {column.name: record[column.name] for column in PLAIN if column.name in record}
    decoder, cells = decoder_of(PLAIN_SIGNATURE), list(record.values())
    bodies: list[tuple[Any, int]] = [(record, 1), ([record], 1), ([record] * 3, 3)]
    if len(record) == len(PLAIN):
        bodies += [(cells, 1), ([cells] * 3, 3)]
        bodies += [
            ({"dataframe_split": {"columns": [*record], "data": [cells] * 3} | index}, 3)
            for index in ({}, {"index": [0, 1, 2]})
        ]
    for body, count in bodies:
        try:
            expected = rows_from_records([record] * count, PLAIN_SIGNATURE, count)
        except BadData:
            expected = None
        text = json.dumps(body)
        try:
            is_split = isinstance(body, dict) and "dataframe_split" in body
            decoded = (decoder.rows_of_split if is_split else decoder.rows_of_json)(text.encode(), 10)
        except NeedsReport:
            assert expected is None or needs_closer_look(text)
        else:
            if decoded is None:  # another form than the usual one
                continue
            assert_same(decoded, expected)
            assert not any(type(cell) is int for row in decoded.rows for cell in row)


@settings(max_examples=600, deadline=None)
@given(st.lists(records(), min_size=1, max_size=20))
def test_json_columns_decode_to_the_cells_and_warnings_of_the_detailed_parser(rows: list[dict[str, Any]]) -> None:
    body, expected = json.dumps(rows), detailed(rows)
    try:
        decoded = columns_of_json(body.encode(), SIGNATURE, 100)
    except NeedsReport:
        assert expected is None or needs_closer_look(body)
    else:
        assert_same(DecodedRows(frame_to_rows(decoded.frame), decoded.warnings), expected)


@settings(max_examples=600, deadline=None)
@given(records())
def test_text_fields_decode_to_the_cells_and_warnings_of_the_detailed_parser(record: dict[str, Any]) -> None:
    fields = {
        name: cell if isinstance(cell, str) else "" if cell is None else json.dumps(cell)
        for name, cell in record.items()
        if name != "id"
    }
    try:
        expected = rows_from_form(fields, SIGNATURE)
    except BadData:
        expected = None
    try:
        decoded = decoder_of(SIGNATURE).row_of_text(fields)
    except NeedsReport:
        assert expected is None or not all(text.isprintable() for text in fields.values())
    else:
        assert_same(decoded, expected)


def test_a_column_named_records_is_not_unwrapped() -> None:
    columns = tuple(Column(name, "number", nullable=True, low=0.0, high=9.0) for name in ("records", "x"))
    signature = Signature(columns, Target("y", "regression"), {})
    body = json.dumps({"records": [{"x": 1.0}] * 20_000}).encode()
    with pytest.raises(NeedsReport):
        columns_of_json(body, signature, 100_000)
    with pytest.raises(NeedsReport):
        decoder_of(signature).rows_of_json(body, 100_000)


@pytest.mark.parametrize("text", ['{"size": 1.5, "id": ' + "[" * depth + "]" * depth + "}" for depth in (101, 600, 5000)])
def test_nested_json_is_left_to_the_detailed_parser(text: str) -> None:
    signature = Signature(COLUMNS[:1], Target("y", "regression"), {"id": "not used"})
    for body in (text, f"[{text}]"):
        with pytest.raises(NeedsReport):
            decoder_of(signature).rows_of_json(body.encode(), 10)
        with pytest.raises((NeedsReport, BadData)):
            columns_of_json(body.encode(), signature, 10)


@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (math.nan, 1.0), (-1e300, 1e300)])
@pytest.mark.parametrize("kind", ["number", "integer"])
def test_any_range_of_a_column_can_be_compiled(kind: Any, low: float, high: float) -> None:
    decoder = decoder_of(Signature((Column("x", kind, low=low, high=high),), Target("y", "regression"), {}))
    assert decoder.rows_of_json(b'{"x": 1}', 1).rows == [(1.0,)]
    with pytest.raises(NeedsReport):
        decoder.rows_of_json(b'{"x": 1e299}', 1)


def test_categories_with_surrounding_spaces_are_normalized() -> None:
    column = Column("c", "category", categories=(" b", "a", ""), nullable=True)
    signature = Signature((column,), Target("y", "regression"), {})
    for cell in (" b", "a", "", None):
        decoded = decoder_of(signature).rows_of_json(json.dumps({"c": cell}).encode(), 1)
        assert_same(decoded, rows_from_records([{"c": cell}], signature, 1))
    assert_same(decoder_of(signature).row_of_text({"c": ""}), rows_from_form({"c": ""}, signature))


def test_the_warnings_of_a_wide_record_are_bounded() -> None:
    columns = tuple(Column(f"x{index}", "number", low=0.0, high=1.0) for index in range(300))
    signature, record = Signature(columns, Target("y", "regression"), {}), {column.name: 5 for column in columns}
    expected = rows_from_records([record], signature, 1)
    assert len(expected.warnings) < 300
    assert_same(decoder_of(signature).rows_of_json(json.dumps(record).encode(), 1), expected)
    assert_same(decoder_of(signature).rows_of_json(json.dumps([record]).encode(), 1), expected)
    assert_same(decoder_of(signature).row_of_text(dict.fromkeys(record, "5")), expected)


def test_a_repeated_field_is_not_hidden_by_a_missing_one() -> None:
    columns = (Column("a", "number", low=0.0, high=9.0), Column("b", "number", nullable=True, low=0.0, high=9.0))
    signature = Signature(columns, PLAIN_SIGNATURE.target, {})
    body = b'[{"a": 1, "b": 2}, {"a": 1, "a": 2}]'
    for decode in (lambda: columns_of_json(body, signature, 10), lambda: decoder_of(signature).rows_of_json(body, 10)):
        with pytest.raises(NeedsReport):
            decode()

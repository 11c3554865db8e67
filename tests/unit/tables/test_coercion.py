"""A cell has the same meaning as text and as a JSON value."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.schema.columns import Column
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_frame, frame_to_rows, rows_to_frame
from podium.tables.json_values import coerce_rows

NUMBER = Column("x", "number")
WITH_NA_VALUES = Column("x", "number", nullable=True, na_values=("0", "?"))

TEXTS: list[tuple[Column, str, Any]] = [
    (NUMBER, "1.5", 1.5),
    (NUMBER, " +2e3 ", 2000.0),
    (NUMBER, ".5", 0.5),
    (Column("x", "integer"), "-7", -7.0),
    (Column("x", "integer"), "7.0", 7.0),
    (Column("x", "boolean"), "TRUE", 1.0),
    (Column("x", "date"), "1970-01-11", 10.0),
    (Column("x", "date", date_format="%d/%m/%Y"), "1/2/1970", 31.0),
    (Column("x", "date"), "9999-12-31", 2932896.0),
    (Column("x", "date"), "0001-01-01", -719162.0),
    (Column("x", "category"), " e\u0301te\u0301 ", "été"),
    (Column("x", "category"), "NA", "NA"),
    (WITH_NA_VALUES, "0", None),
    (WITH_NA_VALUES, "0.0", None),
    (WITH_NA_VALUES, "?", None),
    (WITH_NA_VALUES, "", None),
]


@pytest.mark.parametrize(("column", "text", "cell"), TEXTS)
def test_text_becomes_a_typed_cell(column: Column, text: str, cell: Any) -> None:
    assert frame_to_rows(coerce_frame(pa.table({"x": [text]}), [column])) == [(cell,)]


VALUES: list[tuple[Column, Any, Any]] = [
    (NUMBER, 1, 1.0),
    (NUMBER, 1.5, 1.5),
    (Column("x", "integer"), 7.0, 7.0),
    (Column("x", "integer"), 7.5, 7.5),
    *((Column("x", "boolean"), spelling, 1.0) for spelling in (True, 1, 1.0, "yes", "TRUE", "t", "On", "1")),
    *((Column("x", "boolean"), spelling, 0.0) for spelling in (False, 0, "No", "f", "0.0")),
    *(
        (Column("x", "date"), spelling, 10.5)
        for spelling in ("1970-01-11T12:00:00.000", "1970-01-11 12:00", "1970-01-11T14:00:00+02:00")
    ),
    *((Column("x", "date"), number, 15002.0) for number in (1296172800, 1296172800000, 1296172800000000, "1296172800000")),
    (Column("x", "date"), "1970-01-11", 10.0),
    (Column("x", "date", date_format="%Y-%d-%m"), "1970-11-01", 10.0),
    (Column("x", "date", date_format="%d.%m.%y"), "1.2.70", 31.0),
    (Column("x", "date", date_format="%d.%m.%y", last_year=2070), "1.2.70", 31.0 + 36_525),
    (Column("x", "date", date_format="%d.%m.%y"), "1.2.36", 31.0 - 12_419),
    (Column("x", "date", date_format="%d.%m.%y", last_year=2020), "29.2.00", 11_016.0),
    (Column("x", "date", date_format="%d/%m/%Y"), "1970-01-11", 10.0),
    (Column("x", "category"), "e\u0301", "é"),
    (Column("x", "category"), 5, "5"),
    (WITH_NA_VALUES, 0, None),
    (WITH_NA_VALUES, "?", None),
    (WITH_NA_VALUES, None, None),
]


@pytest.mark.parametrize(("column", "value", "cell"), VALUES)
def test_a_json_value_becomes_a_typed_cell(column: Column, value: Any, cell: Any) -> None:
    assert coerce_rows([{"x": value}], [column]) == [(cell,)]


INVALID_TEXTS = [
    (NUMBER, "1,5", "invalid-type"),
    (NUMBER, "0x1F", "invalid-type"),
    (NUMBER, "1_000", "invalid-type"),
    (NUMBER, "inf", "not-finite"),
    (NUMBER, "-Infinity", "not-finite"),
    (NUMBER, "nan", "invalid-type"),
    (NUMBER, "١٢", "invalid-type"),
    (NUMBER, "", "missing-field"),
    (NUMBER, "1e999", "not-finite"),
    (Column("x", "integer", require_whole=True), "1.5", "invalid-type"),
    (Column("x", "integer"), "99999999999999999999", "out-of-range"),
    (Column("x", "boolean"), "maybe", "invalid-type"),
    (Column("x", "category"), "Bo\0nn", "invalid-encoding"),
    (Column("x", "date"), "2020-02-30", "invalid-type"),
    (Column("x", "date"), "0000-05-05", "invalid-type"),
    (Column("x", "date"), "-2022-05-17", "invalid-type"),
]


@pytest.mark.parametrize(("column", "text", "code"), INVALID_TEXTS)
def test_an_invalid_text_is_reported(column: Column, text: str, code: str) -> None:
    with pytest.raises(BadData) as caught:
        coerce_frame(pa.table({"x": [text]}), [column])
    assert [problem.code for problem in caught.value.problems] == [code]


INVALID_VALUES = [
    (NUMBER, "1", "invalid-type"),
    (NUMBER, True, "invalid-type"),
    (NUMBER, [1], "invalid-type"),
    (NUMBER, None, "missing-field"),
    (NUMBER, math.inf, "out-of-range"),
    (NUMBER, 10**400, "out-of-range"),
    (Column("x", "number", na_values=("0",)), 10**320, "out-of-range"),
    (Column("x", "integer", require_whole=True), 1.5, "invalid-type"),
    (Column("x", "integer"), 2**63, "out-of-range"),
    (Column("x", "boolean"), 2, "invalid-type"),
    (Column("x", "category"), 1.5, "invalid-type"),
    (Column("x", "category"), "\ud800", "invalid-encoding"),
    (Column("x", "category"), "a\0", "invalid-encoding"),
    (Column("x", "category"), "a" * 1_000_000, "out-of-range"),
    (Column("x", "date"), "yesterday", "invalid-type"),
]


@pytest.mark.parametrize(("column", "value", "code"), INVALID_VALUES)
def test_an_invalid_value_is_reported(column: Column, value: Any, code: str) -> None:
    with pytest.raises(BadData) as caught:
        coerce_rows([{"x": value}], [column])
    assert [problem.code for problem in caught.value.problems] == [code]


def test_all_invalid_rows_are_reported_with_their_numbers() -> None:
    with pytest.raises(BadData) as caught:
        coerce_frame(pa.table({"x": ["1", "a", "2", "b"]}), [NUMBER])
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [(2, "x"), (4, "x")]


def test_unknown_fields_are_reported_and_ignored_ones_dropped() -> None:
    with pytest.raises(BadData) as caught:
        coerce_rows([{"x": 1, "X": 2, "__proto__": 3}], [NUMBER])
    assert {problem.column for problem in caught.value.problems} == {"X", "__proto__"}
    assert coerce_rows([{"x": 1, "id": 2}], [NUMBER], ["id"]) == [(1.0,)]


@given(st.floats(-1e30, 1e30, allow_nan=False))
def test_a_number_is_the_same_as_text_and_as_json(number: float) -> None:
    by_text = coerce_frame(pa.table({"x": [repr(number)]}), [NUMBER])["x"].iloc[0]
    assert by_text == coerce_rows([{"x": number}], [NUMBER])[0][0]


@given(st.lists(st.tuples(st.none() | st.floats(-1e30, 1e30), st.none() | st.text(min_size=1)), min_size=1, max_size=5))
def test_rows_to_frame_is_the_inverse_of_frame_to_rows(rows: list[tuple[Any, ...]]) -> None:
    columns = [Column("n", "number", nullable=True), Column("t", "category", nullable=True)]
    assert frame_to_rows(rows_to_frame(rows, columns)) == rows

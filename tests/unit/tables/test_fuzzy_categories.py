"""Formatted numbers, day and month names, other case, and misspellings."""

from __future__ import annotations

import pyarrow as pa
import pytest

from podium.project import ColumnOptions
from podium.schema.columns import Column, Value
from podium.schema.data_errors import BadData
from podium.tables.json_values import coerce_rows
from podium.tables.schema_inference import infer_column
from podium.tables.typed_columns import coerce_column


def inferred(cells: list[str], **options: object) -> Column:
    return infer_column("x", chunked(cells), ColumnOptions.model_validate(options))


def chunked(cells: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def coerce_both(column: Column, cells: list[str]) -> list[Value]:
    """Return the cells as a text column, after checking that JSON values give the same."""
    values, problems = coerce_column(chunked(cells), column)
    assert not problems
    by_value = [coerce_rows([{"x": cell}], [column])[0][0] for cell in cells]
    by_column = [None if cell != cell else cell for cell in values.tolist()]
    assert by_column == by_value
    return by_column


AMOUNTS = {
    "$1,234.5": 1234.5, "($8.2)": -8.2, "-$3": -3.0, "$-4.5": -4.5, "€ 7": 7.0, "8 €": 8.0, " 12 ": 12.0, "1,000,000": 1e6,
    "(5)": -5.0, "1e3": 1000.0, "": None,
}  # fmt: skip


def test_amounts_are_parsed() -> None:
    column = inferred(list(AMOUNTS), number_format="money")
    assert (column.kind, column.number_format, column.nullable) == ("number", "money", True)
    assert coerce_both(column, list(AMOUNTS)) == list(AMOUNTS.values())
    assert coerce_rows([{"x": 12.5}], [column]) == [(12.5,)]  # a JSON number is accepted too


@pytest.mark.parametrize("text", ["$1,23", "$", "()", "12$34", "--5", "1.2.3", "$1,234,5", "(5", "5)", "-(5)", "£x"])
def test_other_texts_are_not_amounts(text: str) -> None:
    column = inferred(["$1", "$2"])
    with pytest.raises(BadData, match="is not"):
        coerce_rows([{"x": text}], [column])
    assert coerce_column(chunked([text]), column)[1][0].code == "invalid-type"


def test_percentages_are_parsed_without_division_by_100() -> None:
    shares = {"12%": 12.0, "-3.5 %": -3.5, "(1%)": -1.0, "7": 7.0}
    column = inferred(list(shares))
    assert (column.number_format, coerce_both(column, list(shares))) == ("percent", list(shares.values()))


def test_plain_numbers_have_the_plain_format() -> None:
    assert inferred(["1", "2.5", "(3"]).kind == "category"
    assert inferred(["1", "2.5"]).number_format == "plain"
    with pytest.raises(BadData):
        coerce_rows([{"x": "$1"}], [inferred(["1", "2.5"])])


def test_days_and_months_are_recognized_by_any_name() -> None:
    days = ["Monday", "tue", "WEDNESDAY", "thur.", " Friday", "sat", "Wednesdya"] * 3
    column = inferred(days)
    meant = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Wednesday"]
    assert coerce_both(column, days[:7]) == meant
    assert coerce_both(column, ["Sunday"]) == ["Sunday"]  # not in the training rows, but not a misspelling of another day
    assert coerce_both(inferred(["jan", "Sept", "decembre"] * 9, kind="month"), ["JAN", "sep"]) == ["January", "September"]


def test_case_does_not_matter_where_texts_differ_only_in_case() -> None:
    column = inferred(["Asia"] * 5 + ["ASIA", "asia", "Europe", "europe"])
    assert (column.fuzzy, column.categories) == ("loose", ("Asia", "Europe"))
    assert coerce_both(column, ["aSIA", "EUROPE ", "Africa"]) == ["Asia", "Europe", "Africa"]


def test_misspellings_are_corrected_if_nearly_all_rare_texts_are_misspelled() -> None:
    column = inferred(["america"] * 300 + ["europe"] * 300 + ["asia"] * 300 + ["amreica", "europ", "asai"])
    assert (column.fuzzy, column.categories) == ("nearest", ("america", "asia", "europe"))
    assert coerce_both(column, ["amercia", "Eurpe", "asai", "mars"]) == ["america", "europe", "asia", "mars"]


@pytest.mark.parametrize(
    "cells",
    [
        ["Iran"] * 300 + ["Chad"] * 300 + ["Iraq", "Togo"],  # rare, but not misspelled
        ["grade A1"] * 300 + ["grade B1"] * 300 + ["grade A2", "grade B2"],  # digits are never misspelled
        ["male"] * 1500 + ["other"] * 300 + ["female"] * 5 + ["divers", "none"],
        ["active"] * 600 + ["closed"] * 600 + ["inactive"] * 4 + ["reclosed"],
        ["Grade A"] * 900 + ["Not graded"] * 300 + ["Grade B"] * 3 + ["Grade C"] * 2,
    ],
)
def test_similar_categories_stay_separate(cells: list[str]) -> None:
    assert inferred(cells).fuzzy == "exact"
    assert set(inferred(cells).categories) == set(cells)


def test_project_options_override_inference() -> None:
    cells = ["america"] * 300 + ["europe"] * 300 + ["amreica", "europ"]
    assert inferred(cells, fuzzy="exact").categories == ("america", "amreica", "europ", "europe")
    assert coerce_both(inferred(["a1"] * 9 + ["b1"] * 9, fuzzy="loose"), ["A1"]) == ["a1"]
    assert coerce_both(inferred(["5", "6"], number_format="money"), ["$1,000"]) == [1000.0]
    days = inferred(["Monday", "Tuesday", "Sunday"] * 9, kind="category", fuzzy="exact")
    assert coerce_both(days, ["mon"]) == ["mon"]


def test_decimal_commas_are_not_read_as_thousands_separators() -> None:
    assert inferred(["0,125", "0,250", "1,500", "2,375"]).decimal == ","
    assert inferred(["1,500", "2,375", "3,125"]).number_format == "money"  # ambiguous: the table's other columns decide
    assert inferred(["1,500", "2,375", "7"]).number_format == "money"
    assert coerce_both(inferred(["1,500", "2,375"], number_format="money"), ["1,500"]) == [1500.0]


def test_na_values_of_amounts_are_parsed_like_amounts() -> None:
    column = inferred(["$5", "($1)", "$7"], na_values=["-1"])
    assert coerce_both(column, ["$5", "($1)", "-$1", "$-1"]) == [5.0, None, None, None]


def test_very_long_texts_are_handled_quickly() -> None:
    column = inferred(["$1", "$2"])
    for text in ("9" * 100_000 + "x", "1," * 50_000):
        with pytest.raises(BadData):
            coerce_rows([{"x": text}], [column])
    near = inferred(["america"] * 300 + ["europe"] * 300 + ["amreica", "europ"])
    assert coerce_both(near, ["a" * 9_000]) == ["a" * 9_000]

"""Texts as people write them: amounts, percentages, names of days, other case, misspelt."""

from __future__ import annotations

import pyarrow as pa
import pytest

from podium.project import ColumnOptions
from podium.schema.columns import Column, Value
from podium.schema.data_errors import BadData
from podium.tables.json_values import coerce_rows
from podium.tables.schema_inference import infer_column
from podium.tables.text_columns import coerce_column


def inferred(cells: list[str], **options: object) -> Column:
    return infer_column("x", chunked(cells), ColumnOptions.model_validate(options))


def chunked(cells: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def both_ways(column: Column, cells: list[str]) -> list[Value]:
    """As a column of a CSV and one by one as JSON, which must be the same."""
    values, problems = coerce_column(chunked(cells), column)
    assert not problems
    alone = [coerce_rows([{"x": cell}], [column])[0][0] for cell in cells]
    found = [None if cell != cell else cell for cell in values.tolist()]
    assert found == alone
    return found


AMOUNTS = {
    "$1,234.5": 1234.5, "($8.2)": -8.2, "-$3": -3.0, "$-4.5": -4.5, "€ 7": 7.0, "8 €": 8.0, " 12 ": 12.0, "1,000,000": 1e6,
    "(5)": -5.0, "1e3": 1000.0, "": None,
}  # fmt: skip


def test_amounts() -> None:
    column = inferred(list(AMOUNTS))
    assert (column.kind, column.number_format, column.nullable) == ("number", "money", True)
    assert both_ways(column, list(AMOUNTS)) == list(AMOUNTS.values())
    assert coerce_rows([{"x": 12.5}], [column]) == [(12.5,)]  # a JSON number is one


@pytest.mark.parametrize("text", ["$1,23", "$", "()", "12$34", "--5", "1.2.3", "$1,234,5", "(5", "5)", "-(5)", "£x"])
def test_what_is_no_amount(text: str) -> None:
    column = inferred(["$1", "$2"])
    with pytest.raises(BadData, match="is not"):
        coerce_rows([{"x": text}], [column])
    assert coerce_column(chunked([text]), column)[1][0].code == "invalid-type"


def test_percentages_stay_percentages() -> None:
    shares = {"12%": 12.0, "-3.5 %": -3.5, "(1%)": -1.0, "7": 7.0}
    column = inferred(list(shares))
    assert (column.number_format, both_ways(column, list(shares))) == ("percent", list(shares.values()))


def test_plain_numbers_stay_plain() -> None:
    assert inferred(["1", "2.5", "(3"]).kind == "category"
    assert inferred(["1", "2.5"]).number_format == "plain"
    with pytest.raises(BadData):
        coerce_rows([{"x": "$1"}], [inferred(["1", "2.5"])])


def test_days_and_months_by_any_name() -> None:
    days = ["Monday", "tue", "WEDNESDAY", "thur.", " Friday", "sat", "Wednesdya"] * 3
    column = inferred(days)
    meant = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Wednesday"]
    assert both_ways(column, days[:7]) == meant
    assert both_ways(column, ["Sunday"]) == ["Sunday"]  # no category of the training rows, so a warning and no other day
    assert both_ways(inferred(["jan", "Sept", "decembre"] * 9, kind="month"), ["JAN", "sep"]) == ["January", "September"]


def test_other_case_is_the_same_category() -> None:
    column = inferred(["Asia"] * 5 + ["ASIA", "asia", "Europe", "europe"])
    assert (column.fuzzy, column.categories) == ("loose", ("Asia", "Europe"))
    assert both_ways(column, ["aSIA", "EUROPE ", "Africa"]) == ["Asia", "Europe", "Africa"]


def test_misspellings_are_understood_where_rare_texts_are_nearly_all_such() -> None:
    column = inferred(["america"] * 300 + ["europe"] * 300 + ["asia"] * 300 + ["amreica", "europ", "asai"])
    assert (column.fuzzy, column.categories) == ("nearest", ("america", "asia", "europe"))
    assert both_ways(column, ["amercia", "Eurpe", "asai", "mars"]) == ["america", "europe", "asia", "mars"]


@pytest.mark.parametrize(
    "cells",
    [
        ["Iran"] * 300 + ["Chad"] * 300 + ["Iraq", "Togo"],  # rare, but no misspellings
        ["grade A1"] * 300 + ["grade B1"] * 300 + ["grade A2", "grade B2"],  # other digits are other things
        ["male"] * 1500 + ["other"] * 300 + ["female"] * 5 + ["divers", "none"],
        ["active"] * 600 + ["closed"] * 600 + ["inactive"] * 4 + ["reclosed"],
        ["Grade A"] * 900 + ["Not graded"] * 300 + ["Grade B"] * 3 + ["Grade C"] * 2,
    ],
)
def test_what_is_merely_alike_stays_apart(cells: list[str]) -> None:
    assert inferred(cells).fuzzy == "exact"
    assert set(inferred(cells).categories) == set(cells)


def test_the_project_has_the_last_word() -> None:
    cells = ["america"] * 300 + ["europe"] * 300 + ["amreica", "europ"]
    assert inferred(cells, fuzzy="exact").categories == ("america", "amreica", "europ", "europe")
    assert both_ways(inferred(["a1"] * 9 + ["b1"] * 9, fuzzy="loose"), ["A1"]) == ["a1"]
    assert both_ways(inferred(["5", "6"], number_format="money"), ["$1,000"]) == [1000.0]
    days = inferred(["Monday", "Tuesday", "Sunday"] * 9, kind="category", fuzzy="exact")
    assert both_ways(days, ["mon"]) == ["mon"]


def test_decimals_with_a_comma_are_not_taken_for_thousands() -> None:
    assert inferred(["0,125", "0,250", "1,500", "2,375"]).kind == "category"
    assert (
        inferred(["1,500", "2,375", "3,125"]).kind == "category"
    )  # may be either: the project can say number_format = "money"
    assert inferred(["1,500", "2,375", "7"]).number_format == "money"
    assert both_ways(inferred(["1,500", "2,375"], number_format="money"), ["1,500"]) == [1500.0]


def test_marks_of_missing_amounts_are_read_like_amounts() -> None:
    column = inferred(["$5", "($1)", "$7"], na_values=["-1"])
    assert both_ways(column, ["$5", "($1)", "-$1", "$-1"]) == [5.0, None, None, None]


def test_a_text_without_end_costs_no_time() -> None:
    column = inferred(["$1", "$2"])
    for text in ("9" * 100_000 + "x", "1," * 50_000):
        with pytest.raises(BadData):
            coerce_rows([{"x": text}], [column])
    near = inferred(["america"] * 300 + ["europe"] * 300 + ["amreica", "europ"])
    assert both_ways(near, ["a" * 9_000]) == ["a" * 9_000]

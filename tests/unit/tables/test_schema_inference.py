"""Column kinds, categories and targets are inferred from cells."""

from __future__ import annotations

import pyarrow as pa
import pytest

from podium.project import ColumnOptions, Project
from podium.schema.data_errors import BadData
from podium.tables.schema_inference import infer_column, infer_signature
from podium.tables.target_inference import infer_target, target_codes

KINDS = [
    (["1", "2"], "integer", ()),
    (["1.5", "2"], "number", ()),
    (["1.5", "NA", "?"], "number", ("NA", "?")),
    (["2020-01-01", "null"], "date", ("null",)),
    (["True", "false"], "boolean", ()),
    (["NA", "x"], "category", ("NA",)),
    (["yes", "no"], "category", ()),
    (["unknown", "red"], "category", ()),
    *((["1.5", mark], "number", (mark,)) for mark in ("#N/A", "<NA>", "na", "inf", "#DIV/0!", "\\N", "missing", "—", ".")),
    (["35,230", "1,236,000", "#N/A"], "number", ("#N/A",)),
    (["35,230", "99,120"], "number", ()),
]


@pytest.mark.parametrize(("cells", "kind", "missing"), KINDS)
def test_the_kind_is_inferred(cells: list[str], kind: str, missing: tuple[str, ...]) -> None:
    column = infer_column("x", pa.chunked_array([cells]), ColumnOptions())
    assert (column.kind, column.na_values) == (kind, missing)
    assert column.nullable == bool(missing)


def test_project_options_override_inference() -> None:
    column = infer_column("x", pa.chunked_array([["1", "0", "3"]]), ColumnOptions(kind="number", na_values=("0",), unit="mm"))
    assert (column.kind, column.nullable, column.low, column.high, column.unit) == ("number", True, 1.0, 3.0, "mm")


TARGETS = [
    (["a", "b", "a"], "binary", ("a", "b")),
    (["1", "0", "1"], "binary", (0, 1)),
    (["10", "9", "2"], "multiclass", (2, 9, 10)),
    (["a", "b", "c"], "multiclass", ("a", "b", "c")),
    (["1.5", "2.5", "3.5"], "regression", ()),
    (["1.5", "2.5", "3.5", "inf"], "regression", ()),
    (["150,000", "99,500", "130,000"], "regression", ()),
    (["yes", "no", "NA", "null", "<NA>"], "binary", ("no", "yes")),
    (["yes", " YES ", "yes", "No", "no", "no"], "binary", ("no", "yes")),
    (["TRUE", "true", "TRUE", "False", "false", "False"], "binary", ("False", "TRUE")),
    ([str(number * 7 % 50) for number in range(50)], "regression", ()),
]


@pytest.mark.parametrize(("cells", "task", "classes"), TARGETS)
def test_the_task_is_inferred_from_the_target(cells: list[str], task: str, classes: tuple[object, ...]) -> None:
    target = infer_target(pa.chunked_array([cells]), Project(name="x", data="s3://podium/x", target="y"))
    assert (target.task, target.classes) == (task, classes)


def test_useless_columns_are_ignored_with_a_reason() -> None:
    rows = 60
    table = pa.table(
        {
            "id": [str(number) for number in range(100, 100 + rows)],
            "same": ["x"] * rows,
            "name": [f"person {number}" for number in range(rows)],
            "good": [str(number % 7) for number in range(rows)],
            "y": ["a", "b"] * (rows // 2),
        }
    )
    signature = infer_signature(table, Project(name="x", data="s3://podium/x", target="y"))
    assert signature.names == ("good",)
    assert set(signature.ignored) == {"id", "same", "name", "y"}


def test_a_missing_target_is_reported_with_the_existing_columns() -> None:
    with pytest.raises(BadData, match=r"columns: a\)"):
        infer_signature(pa.table({"a": ["1", "2"]}), Project(name="x", data="s3://podium/x", target="y"))


def test_a_target_with_a_single_value_is_rejected() -> None:
    with pytest.raises(BadData, match="single value"):
        infer_target(pa.chunked_array([["a", "a"]]), Project(name="x", data="s3://podium/x", target="y"))


LABELS = [
    (["01", "1"] * 20, ("01", "1")),
    (["1", "0", "0.0"] * 20, (0, 1)),
    (["9007199254740992", "9007199254740993"] * 20, ("9007199254740992", "9007199254740993")),
    (["cafe\u0301", "café", "tea"] * 20, ("café", "tea")),
    (["1", "2", "NA"] * 20, (1, 2)),
]


@pytest.mark.parametrize(("cells", "classes"), LABELS)
def test_labels_that_are_not_canonical_integers_stay_text(cells: list[str], classes: tuple[object, ...]) -> None:
    column = pa.chunked_array([cells])
    target = infer_target(column, Project(name="x", data="s3://podium/x", target="y"))
    assert target.classes == classes
    codes = target_codes(column, target, ())
    assert set(codes.dropna()) == set(map(float, range(len(classes))))


def test_an_ignored_column_is_left_out_whatever_its_kind() -> None:
    columns = {"z": {"kind": "number", "ignore": True}}
    project = Project.model_validate({"name": "x", "data": "s3://podium/x", "target": "y", "columns": columns})
    table = pa.table({"z": ["1", "2"] * 30, "a": ["1", "3", "4"] * 20, "y": ["0", "1"] * 30})
    assert infer_signature(table, project).names == ("a",)


def test_configured_categories_are_normalized_like_cells() -> None:
    column = infer_column("x", pa.chunked_array([["a", "b"]]), ColumnOptions(categories=("a ", "b", "c")))
    assert column.categories == ("a", "b", "c")


def test_labels_that_differ_only_in_case_have_the_same_code() -> None:
    cells = pa.chunked_array([["yes", "YES", "no", " No", None, "yes", "no"]])
    project = Project(name="x", data="s3://podium/x", target="y")
    codes = target_codes(cells, infer_target(cells, project), ())
    assert [code if code == code else None for code in codes] == [1, 1, 0, 0, None, 1, 0]


def test_the_case_of_labels_can_matter() -> None:
    cells = pa.chunked_array([["a", "A", "b", "A"]])
    project = Project(name="x", data="s3://podium/x", target="y", columns={"y": ColumnOptions(fuzzy="exact")})
    target = infer_target(cells, project)
    assert target.classes == ("A", "a", "b")
    assert target_codes(cells, target, ()).tolist() == [1, 0, 2, 0]

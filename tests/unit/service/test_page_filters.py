"""Data problems and states as the pages show them."""

from __future__ import annotations

import pytest

from podium.schema.data_errors import Problem
from service.page_filters import dask_state, data_source, field_error, problem_parts, warning_text

NUMBER = "a number, such as 3 or 2.5"


@pytest.mark.parametrize(
    ("problem", "parts"),
    [
        (Problem("unknown-field", "is no input", column="id"), ("Unknown column ", "id", ". Remove it.")),
        (
            Problem("unknown-field", "is no input; did you mean `age`?", column="agee"),
            ("Unknown column ", "agee", ". Did you mean age?"),
        ),
        (Problem("missing-field", "missing", column="area", expected=NUMBER), ("Missing column ", "area", f" ({NUMBER})")),
        (Problem("missing-field", "missing", 2, "area", NUMBER), ("Row 2, ", "area", f": required ({NUMBER})")),
        (Problem("invalid-type", "wrong", 4, "area", NUMBER), ("Row 4, ", "area", f": expected {NUMBER}")),
        (Problem("empty-input", "the file is empty"), ("", "", "The file is empty")),
        (Problem("csv-row-length", "has 11 cells", 3, None, "12 cells"), ("Row 3", "", ": has 11 cells (expected: 12 cells)")),
    ],
)
def test_a_problem_names_its_cell_and_what_is_expected(problem: Problem, parts: tuple[str, str, str]) -> None:
    assert problem_parts(problem) == parts
    assert problem_parts(problem.as_json()) == parts


def test_a_form_field_shows_what_to_enter() -> None:
    assert field_error(Problem("missing-field", "missing", 1, "age", "a whole number")) == "Required: enter a whole number"
    assert field_error(Problem("invalid-type", "wrong", 1, "age", NUMBER)) == f"Enter {NUMBER}"
    assert field_error(Problem("out-of-range", "is too large", 1, "age")) == "Is too large"


def test_a_warning_names_its_consequence() -> None:
    outside = Problem("out-of-training-range", "outside", 1, "mean radius", "7.691 to 28.11")
    assert warning_text(outside) == "mean radius is outside the training range (7.691 – 28.11); the model is extrapolating."
    unseen = Problem("unknown-category", "unseen", 3, "city")
    assert warning_text(unseen) == "Row 3, city: this category does not occur in the training data."


def test_states_are_sentences() -> None:
    data = {"url": "s3://podium/raw.csv", "rows": 569, "sha256": "7e115a871fc47b0002ff"}
    assert data_source(data) == "s3://podium/raw.csv (569 rows, sha256 7e115a871fc4…)"
    state = {"mode": "cluster", "workers": 2, "batches": 1, "fallbacks": 0}
    assert dask_state(state) == "cluster, 2 workers, 1 batch, 0 fallbacks"
    assert dask_state({"mode": "failed", "error": "OSError"}) == "failed (OSError)"

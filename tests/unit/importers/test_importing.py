"""Models of other libraries come in, answer as they did, or are refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.golden_rows import GOLDEN, verified_fast_path, verify_golden_rows
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE, TEST_FILE, model_file
from podium.tables.labeled_rows import labeled_rows_from_parquet
from tests.unit.importers import model_files as files


def turned(data: bytes, name: str = "m", **more: object) -> ImportResult:
    return convert(ImportRequest(file=name, data=data, name="m", **{"target": "sex", **more}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", files.MADE)
def test_an_imported_model_answers_as_the_original(name: str) -> None:
    found = turned(files.MADE[name](), name)
    assert found.compared >= 200
    model = load(found.files[model_file("m")])
    golden = GOLDEN.validate_json(found.files[GOLDEN_FILE])
    assert golden.tolerance == found.allowed_difference <= 1e-5
    assert np.isfinite(verify_golden_rows(model, golden))
    assert verified_fast_path(model, golden) is not None


@pytest.mark.parametrize("name", files.REFUSED)
def test_what_is_not_taken_says_why(name: str) -> None:
    make, reason = files.REFUSED[name]
    with pytest.raises(ImportRefused, match=reason):
        turned(make(), name)


def test_a_sample_names_the_columns_and_its_target_gives_a_score() -> None:
    sample = files.people()[[*files.NUMBERS, "sex"]].to_csv(index=False).encode()
    found = turned(files.MADE["logistic.joblib"](), sample=sample)
    assert [column.name for column in found.signature.inputs] == files.NUMBERS
    assert found.signature.target.classes == ("female", "male")
    board = found.files["leaderboard.csv"].decode().splitlines()
    assert float(dict(zip(board[0].split(","), board[1].split(","), strict=True))["score_test"]) > 0.9
    assert found.signature.inputs[0].low == files.people()["height"].min()


def test_a_sample_that_does_not_fit_is_refused_with_the_columns_that_do() -> None:
    with pytest.raises(ImportRefused, match="takes 3 columns, the sample has 1"):
        turned(files.MADE["logistic.joblib"](), sample=b"height,sex\n180,male\n")
    with pytest.raises(ImportRefused, match="takes height, weight, shoe"):
        turned(files.MADE["named.pkl"](), sample=b"height,weight,boots\n180,80,44\n")


def test_columns_of_text_keep_their_categories_and_what_happens_to_others() -> None:
    town = turned(files.MADE["text.joblib"]()).signature.inputs[3]
    assert (town.kind, town.categories, town.handle_unknown) == ("category", ("Aachen", "Bonn", "Köln"), "warn")
    strict = turned(files.MADE["glm-binomial.pkl"]()).signature.inputs
    assert next(column for column in strict if column.name == "town").handle_unknown == "reject"


def test_a_column_is_optional_where_the_original_answers_without_it() -> None:
    for name, nullable in (
        ("imputed.joblib", True),
        ("histogram.joblib", True),
        ("lightgbm.txt", True),
        ("logistic.joblib", False),
    ):
        assert {column.nullable for column in turned(files.MADE[name]()).signature.inputs} == {nullable}, name


def test_training_rows_that_a_result_carries_are_left_out() -> None:
    data = files.MADE["logit-formula.pkl"]()
    found = turned(data)
    assert found.embedded_training_rows == len(files.people())
    kept = labeled_rows_from_parquet(found.files[TEST_FILE]).inputs[["height", "weight"]]
    assert not set(kept.itertuples(index=False)) & set(files.people()[["height", "weight"]].itertuples(index=False))


def test_classes_can_be_named() -> None:
    assert turned(files.MADE["logit-matrix.pkl"](), classes=("no", "yes")).signature.target.classes == ("no", "yes")
    with pytest.raises(ImportRefused, match="3 classes were given, the model has 2"):
        turned(files.MADE["logit-matrix.pkl"](), classes=("a", "b", "c"))


def test_the_same_import_gives_the_same_predictions() -> None:
    data = files.MADE["xz.joblib"]()
    assert turned(data).predictions == turned(data).predictions


def test_a_pickle_of_another_release_is_taken_only_when_asked() -> None:
    data = files.MADE["named.pkl"]()
    import sklearn

    other = data.replace(sklearn.__version__.encode(), b"0.1.9"[: len(sklearn.__version__)])
    assert other != data
    with pytest.raises(ImportRefused, match=r"saved by scikit-learn 0\.1\.9"):
        turned(other)
    assert np.isfinite(turned(other, other_release=True).largest_difference)


def test_a_sample_shows_how_its_columns_are_written() -> None:
    """A model that was fitted on clean columns takes what people write; columns that it does not use may come along."""
    people = files.people()
    rows = [f'"${row.height * 10:,.1f}",{row.weight}%,{row.shoe},{row.sex},x' for row in people.head(60).itertuples()]
    lines = ["height,weight,shoe,sex,note", *rows]
    found = turned(files.MADE["named.pkl"](), sample="\n".join(lines).encode())
    columns = {column.name: column.number_format for column in found.signature.inputs}
    assert columns == {"height": "money", "weight": "percent", "shoe": "plain"}
    assert found.signature.ignored["note"] == "not used by the model"


def test_rows_that_the_original_cannot_answer_are_left_out_of_the_comparison() -> None:
    table = files.people()
    sample = table.assign(height=table["height"].where(table.index > 5)).to_csv(index=False).encode()
    made = files.MADE["glm-binomial.pkl"]()
    names = [column.name for column in turned(made).signature.inputs]
    if "height" in names:
        assert not turned(made, sample=sample).signature.inputs[names.index("height")].nullable

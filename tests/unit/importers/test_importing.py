"""Imported models predict like their originals, or are refused with a reason."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.golden_rows import GOLDEN, verified_fast_path, verify_golden_rows
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE, TEST_FILE, model_file
from podium.tables.labeled_rows import labeled_rows_from_parquet
from tests.unit.importers import model_files as files


def converted(data: bytes, name: str = "m", **options: object) -> ImportResult:
    return convert(ImportRequest(file=name, data=data, name="m", **{"target": "sex", **options}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", files.MODELS)
def test_an_imported_model_predicts_like_the_original(name: str) -> None:
    result = converted(files.MODELS[name](), name)
    assert result.compared >= 200
    model = load(result.files[model_file("m")])
    golden = GOLDEN.validate_json(result.files[GOLDEN_FILE])
    assert golden.tolerance == result.allowed_difference <= 1e-5
    assert np.isfinite(verify_golden_rows(model, golden))
    assert verified_fast_path(model, golden) is not None


@pytest.mark.parametrize("name", files.NAMELESS)
def test_a_file_without_names_takes_those_of_a_sample_with_as_many_columns(name: str) -> None:
    data = files.NAMELESS[name]()
    with pytest.raises(ImportRefused, match="does not name its 3 inputs: pass --sample"):
        converted(data, name)
    result = converted(data, name, sample=files.people()[files.NUMBERS].to_csv(index=False).encode())
    assert [column.name for column in result.signature.inputs] == files.NUMBERS
    with pytest.raises(ImportRefused, match="takes 3 columns, but the sample has 2"):
        converted(data, name, sample=files.people()[files.NUMBERS[:2]].to_csv(index=False).encode())


def test_a_statsmodels_result_without_rows_keeps_the_names_in_its_cache() -> None:
    table = files.people()
    model = sm.Logit(files.numeric_people()["male"], sm.add_constant(table[["shoe", "height"]]))
    result = converted(files.removed_data(model, summarized=True), sample=table.to_csv(index=False).encode())
    assert [column.name for column in result.signature.inputs] == ["shoe", "height"]


@pytest.mark.parametrize("name", files.REFUSED)
def test_an_unsupported_file_is_refused_with_the_reason(name: str) -> None:
    make_file, reason = files.REFUSED[name]
    with pytest.raises(ImportRefused, match=reason):
        converted(make_file(), name)


@pytest.mark.parametrize(
    "selection",
    [["height", "weight"], [1, 2], slice(1, 3), slice("height", "weight"), [False, True, True, False, False]],
    ids=["names", "positions", "slice", "slice of names", "mask"],
)
def test_columns_of_the_fit_that_a_pipeline_does_not_select_are_not_inputs(selection: object) -> None:
    table = files.people()[["town", "height", "weight", "shoe"]].assign(note="any text", sex=files.people()["sex"])
    steps = [("n", StandardScaler(), selection), ("t", OneHotEncoder(), ["town"])]
    estimator = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(table.drop(columns="sex"), table["sex"])
    result = converted(pickle.dumps(estimator), sample=table.to_csv(index=False).encode())
    assert [column.name for column in result.signature.inputs] == ["town", "height", "weight"]
    assert {"shoe", "note"} <= result.signature.ignored.keys()
    model = load(result.files[model_file("m")])
    rows = table[["town", "height", "weight"]].astype({"town": object})
    assert np.allclose(model.scores(rows), estimator.predict_proba(table), rtol=0, atol=1e-12)


def test_a_sample_names_the_columns_and_its_target_allows_a_score() -> None:
    sample = files.people()[[*files.NUMBERS, "sex"]].to_csv(index=False).encode()
    result = converted(files.MODELS["logistic.joblib"](), sample=sample)
    assert [column.name for column in result.signature.inputs] == files.NUMBERS
    assert result.signature.target.classes == ("female", "male")
    board = result.files["leaderboard.csv"].decode().splitlines()
    assert float(dict(zip(board[0].split(","), board[1].split(","), strict=True))["score_test"]) > 0.9
    assert result.signature.inputs[0].low == files.people()["height"].min()


def test_a_sample_that_does_not_fit_is_refused_with_the_expected_columns() -> None:
    with pytest.raises(ImportRefused, match="takes height, weight, shoe"):
        converted(files.MODELS["named.pkl"](), sample=b"height,weight,boots\n180,80,44\n")


def test_a_network_with_one_sigmoid_output_is_a_binary_classifier() -> None:
    target = converted(files.sigmoid_network(), sample=files.numbers_csv(["a", "b"])).signature.target
    assert (target.task, target.classes) == ("binary", (0, 1))


def test_a_classifier_converted_by_skl2onnx_comes_with_a_warning() -> None:
    sample = files.people()[files.NUMBERS].to_csv(index=False).encode()
    for name, warns in (("zipmap.onnx", True), ("tensor.onnx", False), ("arrays.joblib", False)):
        result = converted(files.NAMELESS[name](), name, sample=sample)
        assert bool(result.warnings) == warns, name
        if warns:
            assert "Import the pickle or joblib file" in result.warnings[0]
            assert "file itself" in result.reference


def test_the_difference_is_relative_to_the_size_of_the_scores() -> None:
    """The scores of this model reach 1e6."""
    model = files.LinearRegression().fit(files.people()[files.NUMBERS], 1e6 * files.people()["weight"])
    assert converted(files.joblib_bytes(model)).largest_difference < 1e-12


def test_text_columns_keep_their_categories_and_their_policy_for_unknown_ones() -> None:
    town = converted(files.MODELS["text.joblib"]()).signature.inputs[3]
    assert (town.kind, town.categories, town.handle_unknown) == ("category", ("Aachen", "Bonn", "Köln"), "warn")
    strict = converted(files.MODELS["glm-binomial.pkl"]()).signature.inputs
    assert next(column for column in strict if column.name == "town").handle_unknown == "reject"


def test_a_column_is_nullable_if_the_original_accepts_missing_values() -> None:
    for name, nullable in (
        ("imputed.joblib", True),
        ("histogram.joblib", True),
        ("lightgbm.txt", True),
        ("logistic.joblib", False),
    ):
        assert {column.nullable for column in converted(files.MODELS[name]()).signature.inputs} == {nullable}, name


def test_training_rows_in_the_file_are_not_kept() -> None:
    data = files.MODELS["logit-formula.pkl"]()
    result = converted(data)
    assert result.embedded_training_rows == len(files.people())
    test_rows = labeled_rows_from_parquet(result.files[TEST_FILE]).inputs[["height", "weight"]]
    assert not set(test_rows.itertuples(index=False)) & set(files.people()[["height", "weight"]].itertuples(index=False))


def test_classes_can_be_named() -> None:
    assert converted(files.MODELS["logit-matrix.pkl"](), classes=("no", "yes")).signature.target.classes == ("no", "yes")
    with pytest.raises(ImportRefused, match="names 3 classes, but the model has 2"):
        converted(files.MODELS["logit-matrix.pkl"](), classes=("a", "b", "c"))


def test_the_same_import_gives_the_same_predictions() -> None:
    data = files.MODELS["xz.joblib"]()
    assert converted(data).predictions == converted(data).predictions


def test_a_pickle_of_another_release_needs_an_explicit_option() -> None:
    data = files.MODELS["named.pkl"]()
    import sklearn

    other = data.replace(sklearn.__version__.encode(), b"0.1.9"[: len(sklearn.__version__)])
    assert other != data
    with pytest.raises(ImportRefused, match=r"saved by scikit-learn 0\.1\.9"):
        converted(other)
    assert np.isfinite(converted(other, other_release=True).largest_difference)


def test_a_sample_determines_number_formats() -> None:
    """A model fitted on plain numbers accepts amounts and percentages; unused columns are ignored."""
    people = files.people()
    rows = [f'"${row.height * 10:,.1f}",{row.weight}%,{row.shoe},{row.sex},x' for row in people.head(60).itertuples()]
    lines = ["height,weight,shoe,sex,note", *rows]
    result = converted(files.MODELS["named.pkl"](), sample="\n".join(lines).encode())
    columns = {column.name: column.number_format for column in result.signature.inputs}
    assert columns == {"height": "money", "weight": "percent", "shoe": "plain"}
    assert result.signature.ignored["note"] == "not used by the model"


def test_rows_that_the_original_cannot_predict_are_not_compared() -> None:
    table = files.people()
    sample = table.assign(height=table["height"].where(table.index > 5)).to_csv(index=False).encode()
    data = files.MODELS["glm-binomial.pkl"]()
    names = [column.name for column in converted(data).signature.inputs]
    if "height" in names:
        assert not converted(data, sample=sample).signature.inputs[names.index("height")].nullable

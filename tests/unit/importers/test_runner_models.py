"""Estimators without an exact conversion are scored by scikit-learn in a sandboxed process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, SplineTransformer, TargetEncoder
from sklearn.svm import OneClassSVM

from podium.importers import estimator_loader
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.edge_cases import check_edge_cases
from podium.models.golden_rows import GOLDEN, verified_fast_path, verify_golden_rows
from podium.models.model import Model
from podium.models.runner_scorer import RunnerScorer
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE, model_file
from podium.tables.frames import rows_to_frame
from tests.unit.importers.payloads import PAYLOADS


def table(rows: int = 150, missing: Any = np.nan) -> pd.DataFrame:
    random = np.random.default_rng(3)
    kinds = pd.Series(random.choice(["x", "y", "z"], rows), dtype=object)
    frame = pd.DataFrame({"a": random.normal(size=rows), "b": random.normal(size=rows), "t": kinds})
    frame.loc[::7, "t"] = missing
    frame["y"] = (frame["a"] + 2 * frame["t"].isna() - (frame["t"] == "x") > 0).astype(int)
    frame.loc[::11, "a"] = np.nan
    return frame


def imported(estimator: Any, sample: pd.DataFrame) -> tuple[ImportResult, Model]:
    result = convert(ImportRequest("m.pkl", pickle.dumps(estimator), "m", "y", sample=sample.to_csv(index=False).encode()))
    return result, load(result.files[model_file("m")])


SPLINES = make_pipeline(SplineTransformer(), Ridge())
NEAREST = make_pipeline(
    make_column_transformer((KNNImputer(), ["a", "b"]), (OneHotEncoder(handle_unknown="ignore"), ["t"])), LogisticRegression()
)
NOT_CONVERTED: dict[str, Callable[[], tuple[Any, list[str]]]] = {
    "splines": lambda: (SPLINES.fit(table()[["b"]], table()["y"]), ["b"]),
    "nearest neighbours impute": lambda: (NEAREST.fit(table()[["a", "b", "t"]], table()["y"]), ["a", "b", "t"]),
    "regressions impute": lambda: (
        make_pipeline(IterativeImputer(), LogisticRegression()).fit(table()[["a", "b"]], table()["y"]),
        ["a", "b"],
    ),
    "kernels": lambda: (
        make_pipeline(SimpleImputer(), Nystroem(n_components=9), LogisticRegression()).fit(table()[["a", "b"]], table()["y"]),
        ["a", "b"],
    ),
    "one class": lambda: (OneClassSVM().fit(table()[["b"]]), ["b"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_CONVERTED)
def test_an_estimator_that_cannot_be_converted_predicts_like_the_original(name: str) -> None:
    estimator, columns = NOT_CONVERTED[name]()
    result, model = imported(estimator, table()[[*columns, "y"]])
    assert isinstance(model.scorer, RunnerScorer)
    assert (result.runner, result.allowed_difference) == ("sandboxed", 1e-9)
    assert "scikit-learn scores it in a sandboxed process" in result.warnings[-1]
    golden = GOLDEN.validate_json(result.files[GOLDEN_FILE])
    assert verify_golden_rows(model, golden) <= 1e-9
    assert verified_fast_path(model, golden) is None
    frame = rows_to_frame(golden.rows, model.signature.inputs)
    one_by_one = [model.compiled()(row) for row in golden.rows[:5]]
    assert np.array_equal(model.scores(frame)[:5], one_by_one)
    assert model.scores(frame[:0]).shape == (0, len(golden.scores["m"][0]))


@pytest.mark.slow
@pytest.mark.parametrize("missing", [np.nan, None])
@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder(encoded_missing_value=-1), TargetEncoder()])
def test_a_missing_text_is_what_the_estimator_was_fitted_with(encoder: Any, missing: Any) -> None:
    frame = table(missing=missing)
    transformer = make_column_transformer((encoder, ["t"]), ("passthrough", ["b"]))
    estimator = make_pipeline(transformer, LogisticRegression()).fit(frame[["t", "b"]], frame["y"])
    _, model = imported(estimator, frame[["t", "b", "y"]])
    rows = [[None if pd.isna(text) else text, number] for text, number in zip(frame["t"], frame["b"], strict=True)]
    expected = estimator.predict_proba(frame[["t", "b"]])
    assert np.allclose(model.scores(rows_to_frame(rows, model.signature.inputs)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs_in_a_runner(name: str, tmp_path: Path) -> None:
    """In this process, without its sandbox: as in an import, scanning the globals is enough."""
    content = pickle.dumps((PAYLOADS[name](str(tmp_path / name)), estimator_loader.COLUMNS))
    with pytest.raises(ImportRefused):
        estimator_loader.load(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_encoder_that_fails_on_unknown_categories_is_validated_without_them() -> None:
    frame = table(missing="none")
    transformer = make_column_transformer((KNNImputer(), ["a", "b"]), (OneHotEncoder(), ["t"]))
    estimator = make_pipeline(transformer, LogisticRegression()).fit(frame[["a", "b", "t"]], frame["y"])
    _, model = imported(estimator, frame.replace({"t": {"none": "x"}})[["a", "b", "t", "y"]])
    assert model.signature.inputs[2].handle_unknown == "reject"
    assert check_edge_cases(model)


def test_a_scorer_that_does_not_fit_its_model_is_rejected() -> None:
    scorer = RunnerScorer(b"", estimator_loader.COLUMNS, 1)
    with pytest.raises(ValueError, match="does not take the 3 features"):
        scorer.check(3)
    assert scorer.check(2) == 1

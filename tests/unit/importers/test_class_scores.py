"""Classifiers without probabilities, hard votes, and thresholds predict the classes of the original."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.model import Model
from podium.models.serialization import load
from podium.registry.versions import model_file


def table(rows: int = 150) -> pd.DataFrame:
    random = np.random.default_rng(6)
    a, b = random.normal(size=(2, rows)).round(3)
    mood = a + 0.5 * b + random.normal(size=rows) * 0.3
    return pd.DataFrame(
        {
            "a": a,
            "b": b,
            "is_new": random.random(rows) < 0.5,
            "shop": random.choice(["x", "y"], rows),
            "two": np.where(mood > 0.3, "yes", "no"),
            "three": np.where(mood > 0.5, "high", np.where(mood < -0.5, "low", "middle")),
        }
    )


def imported(estimator: Any, target: str, columns: tuple[str, ...] = ("a", "b")) -> tuple[ImportResult, Model]:
    sample = table()[[*columns, target]].to_csv(index=False).encode()
    result = convert(ImportRequest("m.pkl", pickle.dumps(estimator), "m", target, sample=sample))
    return result, load(result.files[model_file("m")])


def predicted(model: Model) -> list[object]:
    target = model.signature.target
    scores = model.scores(table()[[column.name for column in model.signature.inputs]])
    assert np.allclose(scores.sum(axis=1), 1.0)
    return [target.classes[target.predicted_index(row)] for row in scores.tolist()]


def votes(**options: Any) -> VotingClassifier:
    parts = [
        ("l", LogisticRegression()),
        ("t", RandomForestClassifier(5, random_state=0)),
        ("m", make_pipeline(StandardScaler(), LinearSVC())),
    ]
    return VotingClassifier(parts, voting="hard", **options)


CLASSIFIERS: dict[str, tuple[Any, str, str]] = {
    "margins": (make_pipeline(StandardScaler(), LinearSVC()), "", "rank like its decision function"),
    "ridge": (RidgeClassifier(), "", "rank like its decision function"),
    "hinge": (SGDClassifier(random_state=0), "", "rank like its decision function"),
    "perceptron": (Perceptron(), "", "rank like its decision function"),
    "one against the rest": (OneVsRestClassifier(LinearSVC()), "", "rank like its decision function"),
    "one against one": (OneVsOneClassifier(LinearSVC()), "sandboxed", "score of the predicted class is 1"),
    "hard votes": (votes(), "", "shares of the votes"),
    "weighted votes": (votes(weights=[1, 2, 0.5]), "", "shares of the votes"),
    "votes in a pipeline": (make_pipeline(StandardScaler(), votes()), "", "shares of the votes"),
    "votes of support vectors": (
        VotingClassifier([("s", SVC(probability=True)), ("n", KNeighborsClassifier(3)), ("g", GaussianNB())]),
        "sandboxed",
        "shares of the votes",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["two", "three"])
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.filterwarnings("ignore:The `probability` parameter was deprecated")
def test_a_classifier_without_probabilities_predicts_the_classes_of_the_original(name: str, target: str) -> None:
    estimator, runner, warning = CLASSIFIERS[name]
    estimator.fit(table()[["a", "b"]], table()[target])
    result, model = imported(estimator, target)
    assert result.runner == runner
    assert warning in result.warnings[0]
    assert predicted(model) == estimator.predict(table()[["a", "b"]]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runner"), [("two", ""), ("three", "sandboxed")])
def test_support_vectors_without_probabilities_predict_the_classes_of_the_original(target: str, runner: str) -> None:
    estimator = make_pipeline(StandardScaler(), SVC()).fit(table()[["a", "b"]], table()[target])
    result, model = imported(estimator, target)
    assert result.runner == runner
    assert predicted(model) == estimator.predict(table()[["a", "b"]]).tolist()


@pytest.mark.parametrize(
    "estimator",
    [
        FixedThresholdClassifier(LogisticRegression(), threshold=0.3),
        FixedThresholdClassifier(RandomForestClassifier(5, random_state=0), threshold=0.6),
        FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label="no"),
        FixedThresholdClassifier(LogisticRegression()),
        TunedThresholdClassifierCV(LogisticRegression(), cv=2),
    ],
)
def test_a_threshold_becomes_the_decision_of_the_target(estimator: Any) -> None:
    estimator.fit(table()[["a", "b"]], table()["two"])
    _, model = imported(estimator, "two")
    assert model.signature.target.decision is not None
    assert predicted(model) == estimator.predict(table()[["a", "b"]]).tolist()


def test_a_threshold_of_a_decision_function_is_refused() -> None:
    estimator = FixedThresholdClassifier(LinearSVC(), threshold=0.3).fit(table()[["a", "b"]], table()["two"])
    with pytest.raises(ImportRefused, match="save its estimator_"):
        imported(estimator, "two")
    assert imported(estimator.estimator_, "two")[1].signature.target.decision is None


def test_a_frozen_model_may_be_calibrated() -> None:
    frozen = FrozenEstimator(LogisticRegression().fit(table()[["a", "b"]], table()["two"]))
    estimator = CalibratedClassifierCV(frozen).fit(table()[["a", "b"]], table()["two"])
    result, model = imported(estimator, "two")
    assert result.runner == ""
    assert np.allclose(model.scores(table()[["a", "b"]]), estimator.predict_proba(table()[["a", "b"]]), rtol=0, atol=1e-9)


def test_columns_of_true_and_false_and_selected_by_type_are_read() -> None:
    columns = ["a", "is_new", "shop"]
    steps = [
        ("n", StandardScaler(), make_column_selector(dtype_include=float)),
        ("t", OneHotEncoder(), make_column_selector(dtype_include=object)),
    ]
    rows = table()[columns].astype({"shop": object})
    estimator = make_pipeline(ColumnTransformer(steps, remainder="passthrough"), LogisticRegression()).fit(rows, table()["two"])
    result, model = imported(estimator, "two", tuple(columns))
    assert {column.name: column.kind for column in result.signature.inputs} == {
        "a": "number",
        "is_new": "boolean",
        "shop": "category",
    }
    assert np.allclose(model.scores(rows.astype({"is_new": float})), estimator.predict_proba(rows), rtol=0, atol=1e-9)


FITTED = LogisticRegression().fit(table()[["a", "b"]], table()["two"])
REFUSED: dict[str, tuple[Any, str]] = {
    "a dictionary": ({"model": FITTED, "scaler": StandardScaler().fit(table()[["a", "b"]])}, "model alone.*--preprocessing"),
    "a tuple": ((FITTED, ["a", "b"]), "holds a tuple of several objects"),
    "not fitted": (make_pipeline(StandardScaler(), LogisticRegression()), "is not fitted"),
    "a mixture": (GaussianMixture(2).fit(table()[["a", "b"]]), "Fit with other estimators"),
    "dictionaries": (
        make_pipeline(DictVectorizer(), LogisticRegression()).fit(table()[["a", "b"]].to_dict("records"), table()["two"]),
        "columns of a table",
    ),
    "several targets": (
        MultiOutputRegressor(Ridge()).fit(table()[["a", "b"]], table()[["a", "b"]]),
        "choose one with --output",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_with_a_remedy(name: str) -> None:
    estimator, reason = REFUSED[name]
    with pytest.raises(ImportRefused, match=reason):
        imported(estimator, "two")

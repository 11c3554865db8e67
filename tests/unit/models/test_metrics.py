"""Every metric equals scikit-learn's on random, tied, single-class and zero-target data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from podium.models.metrics import CLASSIFICATION, REGRESSION, bootstrap, interval, metric_value
from podium.schema.arrays import FloatMatrix, FloatVector

Reference = Callable[[FloatVector, FloatMatrix], float]


def mean_of_areas(target: FloatVector, scores: FloatMatrix) -> float:
    """ROC AUC as scikit-learn computes it per class; it rejects data where a class is absent."""
    labels = [1] if scores.shape[1] == 2 else np.unique(target).astype(int).tolist()
    if len(np.unique(target)) < 2:
        return math.nan
    return float(np.mean([reference.roc_auc_score(target == label, scores[:, label]) for label in labels]))


def f1(target: FloatVector, scores: FloatMatrix) -> float:
    average = "binary" if scores.shape[1] == 2 else "macro"
    return float(reference.f1_score(target, scores.argmax(axis=1), average=average, zero_division=0))


def brier(target: FloatVector, scores: FloatMatrix) -> float:
    if scores.shape[1] == 2:
        return float(reference.brier_score_loss(target, scores[:, 1], labels=[0, 1]))
    return float(reference.brier_score_loss(target, scores, labels=range(scores.shape[1])))


REFERENCES: dict[str, Reference] = {
    "accuracy": lambda target, scores: reference.accuracy_score(target, scores.argmax(axis=1)),
    "balanced_accuracy": lambda target, scores: reference.balanced_accuracy_score(target, scores.argmax(axis=1)),
    "f1": f1,
    "roc_auc": mean_of_areas,
    "log_loss": lambda target, scores: reference.log_loss(target, scores, labels=range(scores.shape[1])),
    "brier": brier,
    "rmse": lambda target, scores: reference.root_mean_squared_error(target, scores[:, 0]),
    "mae": lambda target, scores: reference.mean_absolute_error(target, scores[:, 0]),
    "r2": lambda target, scores: reference.r2_score(target, scores[:, 0]),
    "mape": lambda target, scores: reference.mean_absolute_percentage_error(target, scores[:, 0]),
}


def assert_equals_reference(name: str, target: FloatVector, scores: FloatMatrix) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about absent classes and single samples
        expected = REFERENCES[name](target, scores)
    metric = {**CLASSIFICATION, **REGRESSION}[name]
    assert metric.function(target, scores) == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@st.composite
def classified(draw: Any) -> tuple[FloatVector, FloatMatrix]:
    """Targets, possibly of a single class, and probabilities in steps of 1/8 before they are normalized, so often tied."""
    classes, rows = draw(st.integers(2, 4)), draw(st.integers(1, 25))
    target = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    weights = draw(st.lists(st.lists(st.integers(1, 8), min_size=classes, max_size=classes), min_size=rows, max_size=rows))
    scores = np.array(weights, dtype=float)
    return np.array(target, dtype=float), scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", CLASSIFICATION)
@settings(deadline=None)
@given(data=classified())
def test_classification_metrics_equal_scikit_learn(name: str, data: tuple[FloatVector, FloatMatrix]) -> None:
    assert_equals_reference(name, *data)


NUMBERS = st.one_of(st.just(0.0), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6).map(lambda number: round(number, 3)))


@pytest.mark.parametrize("name", REGRESSION)
@settings(deadline=None)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=25))
def test_regression_metrics_equal_scikit_learn(name: str, rows: list[tuple[float, float]]) -> None:
    target, scores = np.array(rows).T
    assert_equals_reference(name, target, scores.reshape(-1, 1))


@pytest.mark.parametrize("name", {**CLASSIFICATION, **REGRESSION})
@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_equal_scikit_learn_on_many_rows(name: str, classes: int) -> None:
    random = np.random.default_rng(classes)
    scores = random.dirichlet(np.ones(classes), 2000)
    target = random.integers(0, classes, 2000).astype(float) if name in CLASSIFICATION else random.normal(size=2000)
    assert_equals_reference(name, target, scores)


@pytest.mark.parametrize(
    ("target", "scores", "expected"),
    [([5, 5, 5], [5, 5, 5], 1.0), ([5, 5, 5], [5, 5, 6], 0.0), ([0, 0], [0, 0], 1.0), ([1], [1], math.nan)],
)
def test_r2_of_a_constant_target_is_finite_and_of_one_row_undefined(
    target: list[float], scores: list[float], expected: float
) -> None:
    assert_equals_reference("r2", np.array(target, dtype=float), np.array(scores, dtype=float).reshape(-1, 1))
    value = REGRESSION["r2"].function(np.array(target, dtype=float), np.array(scores, dtype=float).reshape(-1, 1))
    assert value == pytest.approx(expected, nan_ok=True)


def test_a_zero_probability_of_the_true_class_gives_a_finite_log_loss() -> None:
    assert math.isfinite(CLASSIFICATION["log_loss"].function(np.array([0.0]), np.array([[0.0, 1.0]])))


@pytest.mark.parametrize("name", {**CLASSIFICATION, **REGRESSION})
def test_a_better_model_has_a_higher_value(name: str) -> None:
    target = np.array([0.0, 1.0, 1.0, 0.0])
    good, bad = np.array([0.1, 0.9, 0.8, 0.2]), np.array([0.9, 0.1, 0.2, 0.8])
    as_scores = (lambda p: np.column_stack([1 - p, p])) if name in CLASSIFICATION else (lambda p: p.reshape(-1, 1))
    metric = {**CLASSIFICATION, **REGRESSION}[name]
    assert metric_value(metric, target, as_scores(good)) > metric_value(metric, target, as_scores(bad))


def test_the_bootstrap_drops_resamples_where_the_metric_is_undefined() -> None:
    target, scores = np.array([0.0, 0.0, 0.0, 1.0]), np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]])
    values = bootstrap(CLASSIFICATION["roc_auc"], target, [scores, scores[:, ::-1]], seed=0)
    assert 0 < len(values) < 500
    assert np.isfinite(values).all()
    assert values[:, 0].tolist() == [1.0] * len(values)
    assert values[:, 1].tolist() == [0.0] * len(values)


def test_the_interval_spans_the_central_95_percent() -> None:
    assert interval(np.arange(1001, dtype=float)) == pytest.approx((25.0, 975.0))
    assert all(math.isnan(end) for end in interval(np.array([])))

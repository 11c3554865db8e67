"""CatBoost within the families: what is stopped early, and tables that are hard for it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target
from podium.training.families import FAMILIES, FitRows

FAMILY = FAMILIES["catboost"]
BINARY, NUMBER = Target("y", "binary", ("a", "b")), Target("y", "regression")
CLASSES = Target("y", "multiclass", ("a", "b", "c", "d"))


def rows(count: int = 400, deadline: float = float("inf")) -> FitRows:
    random = np.random.default_rng(0)
    features = random.normal(size=(count, 3))
    labels = (features[:, 0] + random.normal(size=count) > 0).astype(float)
    half = count // 2
    return FitRows(features[:half], labels[:half], features[half:], labels[half:], deadline)


def scores(target: Target, given: FitRows, params: dict[str, Any] | None = None) -> FloatMatrix:
    estimator = FAMILY.fit(target, 0, params or FAMILY.settings[0], given)
    return FAMILY.to_scorer(estimator, target, given.features.shape[1]).scores(given.features)


def test_boosting_stops_when_the_loss_no_longer_falls() -> None:
    estimator = FAMILY.fit(BINARY, 0, FAMILY.settings[0], rows())
    assert 1 < estimator.best_iteration_ < 500
    assert FAMILY.at_rounds is not None
    check, truth = rows().check_features, rows().check_target
    assert check is not None and truth is not None
    scorers = [FAMILY.at_rounds(estimator, BINARY, 3, count) for count in range(1, estimator.model.tree_count_ + 1)]
    losses = [-float(np.mean(np.log(scorer.scores(check)[np.arange(len(truth)), truth.astype(int)]))) for scorer in scorers]
    assert int(np.argmin(losses)) + 1 == estimator.best_iteration_
    assert len(losses) <= 12 + 1.3 * estimator.best_iteration_


def test_boosting_stops_at_the_deadline() -> None:
    started = time.monotonic()
    estimator = FAMILY.fit(BINARY, 0, {"depth": 6, "learning_rate": 0.001}, rows(4000, started))
    assert estimator.best_iteration_ == 1
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_classes_keep_their_order_whichever_comes_first(order: tuple[int, ...]) -> None:
    labels = np.repeat(np.array(order, dtype=float), 50)
    features = np.column_stack([labels, np.arange(200.0)])
    assert (
        scores(CLASSES, FitRows(features, labels), {"depth": 2, "n_estimators": 50}).argmax(axis=1).tolist() == labels.tolist()
    )


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.arange(40.0)[:, None], np.full(40, 7.5)),
        (np.ones((40, 2)), np.arange(40.0)),
        (np.full((40, 2), np.nan), np.arange(40.0)),
        (np.array([[1.0], [2.0]]), np.array([1.0, 2.0])),
        (np.array([[np.inf], [-np.inf], [np.nan], [1e300]] * 10), np.arange(40.0)),
    ],
    ids=["constant target", "constant features", "missing features", "two rows", "infinities"],
)
def test_odd_tables_have_finite_scores(features: FloatMatrix, labels: FloatVector) -> None:
    found = scores(NUMBER, FitRows(features, labels, features, labels))
    assert np.isfinite(found).all()
    assert labels.min() - 1 <= found.mean() <= labels.max() + 1


@pytest.mark.parametrize("target", [BINARY, CLASSES, NUMBER])
def test_features_that_do_not_vary_give_the_frequencies_or_the_mean(target: Target) -> None:
    labels = np.repeat([0.0, 1.0, 2.0, 3.0], [10, 20, 30, 40]) if target is not BINARY else np.repeat([0.0, 1.0], [25, 75])
    features = np.linspace(1.0, 1.0 + 1e-9, 100)[:, None]
    known = [[1.0 / 10, 2 / 10, 3 / 10, 4 / 10]] if target is CLASSES else [[0.25, 0.75]] if target is BINARY else [[2.0]]
    assert np.allclose(scores(target, FitRows(features, labels, features, labels))[:1], known)


def test_threads_do_not_change_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = scores(BINARY, rows())
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: scores(BINARY, rows()), range(8)))
    assert all(np.array_equal(each, alone) for each in together)
    assert list(tmp_path.iterdir()) == []


def test_fitting_again_with_fewer_rounds_keeps_the_learning_rate() -> None:
    given = FitRows(rows().features, rows().target)
    longer = FAMILY.fit(BINARY, 0, {"depth": 3, "n_estimators": 60}, given)
    shorter = FAMILY.fit(BINARY, 0, {"depth": 3, "n_estimators": 20}, given)
    assert FAMILY.at_rounds is not None
    first = FAMILY.at_rounds(longer, BINARY, 3, 20).scores(given.features)
    assert np.array_equal(first, FAMILY.to_scorer(shorter, BINARY, 3).scores(given.features))

"""For every family, the estimator, the matrix scorer and the vector scorer agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from podium.models.encoder import Encoder
from podium.models.features import Passthrough
from podium.models.model import Model
from podium.models.serialization import dump, load
from podium.schema.columns import Column, Signature, Target
from podium.training.families import FAMILIES, FitRows

TARGETS = {
    "binary": Target("y", "binary", ("a", "b")),
    "multiclass": Target("y", "multiclass", ("a", "b", "c")),
    "regression": Target("y", "regression"),
    "forecast": Target("y", "forecast"),
}
FAMILIES_AND_TASKS = [(f, t) for f in FAMILIES for t in TARGETS if t == "forecast" or not FAMILIES[f].requires_panel]
CLASSIFIERS = [family for family in FAMILIES if not FAMILIES[family].requires_panel]


def data(task: str) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 5))
    signal = features[:, 0] + features[:, 1] * features[:, 2] + random.normal(0, 0.1, 300)
    if task in ("regression", "forecast"):
        return features, signal
    return features, np.digitize(signal, [0] if task == "binary" else [-0.5, 0.5]).astype(float)


@pytest.mark.parametrize(("family", "task"), FAMILIES_AND_TASKS)
def test_estimator_matrix_and_vector_agree(family: str, task: str) -> None:
    features, target = data(task)
    entry = FAMILIES[family]
    estimator = entry.fit(TARGETS[task], 0, entry.settings[0], FitRows(features, target))
    scorer = entry.to_scorer(estimator, TARGETS[task], features.shape[1])
    unseen = np.random.default_rng(1).normal(size=(200, 5)) * 3
    original = estimator.predict(unseen).reshape(-1, 1) if not TARGETS[task].classes else estimator.predict_proba(unseen)
    scores = scorer.scores(unseen)
    assert np.allclose(scores, original, rtol=1e-12, atol=1e-12)
    vector, score = scorer.compiled()
    for row, expected in zip(unseen.tolist(), scores.tolist(), strict=True):
        vector[:] = row
        assert list(score()) == expected  # to the last bit


@pytest.mark.parametrize("family", ["random-forest", "extra-trees"])
@pytest.mark.parametrize("task", TARGETS)
def test_a_forest_gives_the_bits_of_scikit_learn(family: str, task: str) -> None:
    features, target = data(task)
    entry = FAMILIES[family]
    forest = entry.fit(TARGETS[task], 0, entry.settings[0], FitRows(features, target))
    original = forest.predict(features).reshape(-1, 1) if not TARGETS[task].classes else forest.predict_proba(features)
    assert np.array_equal(entry.to_scorer(forest, TARGETS[task], 5).scores(features), original)


def test_a_tree_without_a_split_is_a_constant() -> None:
    features = np.zeros((50, 2))
    entry = FAMILIES["random-forest"]
    forest = entry.fit(TARGETS["regression"], 0, entry.settings[0], FitRows(features, np.full(50, 3.5)))
    assert entry.to_scorer(forest, TARGETS["regression"], 2).scores(features[:3]).tolist() == [[3.5], [3.5], [3.5]]


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_scores_do_not_depend_on_the_other_rows(family: str) -> None:
    features, target = data("multiclass")
    entry = FAMILIES[family]
    estimator = entry.fit(TARGETS["multiclass"], 0, entry.settings[0], FitRows(features, target))
    scorer = entry.to_scorer(estimator, TARGETS["multiclass"], 5)
    whole = scorer.scores(features)
    pieces = np.vstack([scorer.scores(features[low : low + 7]) for low in range(0, 300, 7)])
    assert np.array_equal(whole, pieces)


@pytest.mark.parametrize(("family", "task"), FAMILIES_AND_TASKS)
def test_a_model_file_with_the_scorer_gives_the_same_scores(family: str, task: str) -> None:
    features, target = data(task)
    entry = FAMILIES[family]
    estimator = entry.fit(TARGETS[task], 0, entry.settings[0], FitRows(features, target))
    scorer = entry.to_scorer(estimator, TARGETS[task], 5)
    columns = tuple(Column(f"x{index}", "number") for index in range(5))
    encoder = Encoder(columns, tuple(Passthrough(index, column.name) for index, column in enumerate(columns)))
    model = Model(family, Signature(columns, TARGETS[task], {}), encoder, scorer)
    assert np.array_equal(load(dump(model)).scorer.scores(features), scorer.scores(features))

"""Contributions are exact Shapley values: those of LightGBM, and of the definition for scikit-learn's trees."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingRegressor, RandomForestRegressor

from podium.engine.contributions import Contributions
from podium.engine.forest import Forest
from podium.engine.lightgbm_library import Booster
from podium.engine.trees import UnsupportedTrees
from podium.models.lightgbm_export import boosted_trees, forest_trees
from podium.models.scorers import LightGBMScorer
from tests.unit.engine.trained_models import FEATURES, MODELS, damaged_texts, rows, train

EACH = range(FEATURES)


def contributions(text: str, is_float32: bool = False, groups: Any = EACH) -> Contributions:
    return Contributions(Forest(text, is_float32, share=False), text, list(groups), max(groups) + 1)


@pytest.mark.parametrize("name", MODELS)
def test_rows_get_the_contributions_of_lightgbm(name: str) -> None:
    original = train(name)
    unseen = rows(1000, seed=2)
    expected = np.asarray(original.predict(unseen, pred_contrib=True, num_threads=1))
    explainer = contributions(original.model_to_string())
    values = explainer.of(unseen)
    both = np.dstack([values, np.broadcast_to(explainer.base[:, None], (*values.shape[:2], 1))])
    factor = original.num_trees() / values.shape[1] if name == "average" else 1  # LightGBM does not average contributions
    np.testing.assert_allclose(both.reshape(len(unseen), -1) * factor, expected, rtol=1e-9, atol=1e-9)


def shapley_values(tree: Any, row: np.ndarray) -> np.ndarray:
    """Return the Shapley values of the first output of a scikit-learn tree by their definition."""

    def mean(node: int, known: frozenset[int]) -> float:
        """Return the mean of the leaves that a row with these known features may reach."""
        left, right, feature = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            return float(tree.value[node, 0, 0])
        if feature in known:
            return mean(left if np.float32(row[feature]) <= tree.threshold[node] else right, known)
        cover = tree.weighted_n_node_samples
        return float((mean(left, known) * cover[left] + mean(right, known) * cover[right]) / cover[node])

    values = np.zeros(FEATURES)
    for feature in EACH:
        others = [other for other in EACH if other != feature]
        for size in range(FEATURES):
            weight = math.factorial(size) * math.factorial(FEATURES - size - 1) / math.factorial(FEATURES)
            for known in map(frozenset, itertools.combinations(others, size)):
                values[feature] += weight * (mean(0, known | {feature}) - mean(0, known))
    return values


@pytest.mark.parametrize("estimator", [RandomForestRegressor, ExtraTreesClassifier])
def test_forests_get_the_values_of_the_definition(estimator: Any) -> None:
    features = np.nan_to_num(rows(200), posinf=9, neginf=-9).clip(-1e6, 1e6)
    target = features[:, 0] + features[:, 1] * features[:, 2]
    weights = np.random.default_rng(0).random(len(features))
    forest = estimator(3, random_state=0, max_depth=5)
    forest.fit(features, target > 0 if estimator is ExtraTreesClassifier else target, sample_weight=weights)
    explained = contributions(forest_trees(forest, FEATURES).text, True).of(features[:5])
    for row, values in zip(features, explained[:, 0], strict=False):
        expected = np.mean([shapley_values(tree.tree_, row) for tree in forest.estimators_], axis=0)
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_contributions_and_base_add_up_to_the_score() -> None:
    features = np.where(np.isfinite(rows(500)), rows(500), np.nan)
    boosting = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(features, np.tanh(np.nan_to_num(features[:, 0])))
    text = boosted_trees(boosting, FEATURES).text
    explainer = contributions(text)
    sums = explainer.of(features).sum(axis=2) + explainer.base
    np.testing.assert_allclose(sums, Forest(text).scores(features), rtol=1e-9)


def test_groups_add_up_the_contributions_of_their_features() -> None:
    text, unseen = train("multiclass").model_to_string(), rows(50)
    each = contributions(text).of(unseen)
    grouped = contributions(text, groups=[2, 0, 2, 1, 1, 1]).of(unseen)
    expected = np.dstack([each[..., 1], each[..., 3:].sum(axis=2), each[..., 0] + each[..., 2]])
    np.testing.assert_allclose(grouped, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_any_number_of_rows_gets_the_same_contributions(count: int) -> None:
    explainer, unseen = contributions(train("categories").model_to_string()), rows(33)
    assert np.array_equal(explainer.of(unseen[:count]), explainer.of(unseen)[:count])


def test_deep_trees_and_leaves_without_training_rows_have_finite_contributions() -> None:
    text = train("500 leaves").model_to_string()
    lines = [
        line.replace("=", "=0 0 0 ", 1).rsplit(" ", 3)[0] if line.startswith("leaf_count") else line
        for line in text.splitlines(keepends=True)
    ]
    damaged = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
    explainer, unseen = contributions(damaged), rows(200)
    sums = explainer.of(unseen).sum(axis=2) + explainer.base
    np.testing.assert_allclose(sums, Forest(text).scores(unseen), rtol=1e-6)


@pytest.mark.parametrize("line", ["", "leaf_count=e e e", "leaf_count=-1 2 3", "leaf_count=nan 1 1", "leaf_count=0 0 0"])
def test_trees_without_numbers_of_training_rows_are_not_explained(line: str) -> None:
    tree = "Tree=0\nnum_leaves=3\nnum_cat=0\nsplit_feature=0 1\nthreshold=0 1\ndecision_type=8 8\nleft_child=1 -1\n"
    tree += f"right_child=-3 -2\nleaf_value=1 2 3\n{line}\nis_linear=0\nshrinkage=1\n\n"
    head = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=5\nfeature_names=a\nfeature_infos=none\n\n"
    with pytest.raises(UnsupportedTrees, match="training rows"):
        contributions(f"{head}{tree}end of trees\n")


def test_a_wrong_number_of_features_is_an_error() -> None:
    with pytest.raises(ValueError, match="columns"):
        contributions(train("binary").model_to_string()).of(np.zeros((3, FEATURES + 1)))


def test_lightgbm_ignores_the_covers_that_are_added_for_scikit_learn() -> None:
    features = np.nan_to_num(rows(200), posinf=9, neginf=-9).clip(-1e6, 1e6)
    scorer: LightGBMScorer = forest_trees(RandomForestRegressor(3, random_state=0).fit(features, features[:, 0]), FEATURES)
    assert "leaf_cover=" in scorer.text
    assert np.array_equal(Booster(scorer.text, True).scores(features), Forest(scorer.text, True).scores(features))


@pytest.mark.slow
@pytest.mark.long
def test_damaged_texts_that_pass_the_checks_have_finite_contributions() -> None:
    unseen = rows(20, seed=6)
    for damaged in damaged_texts():
        try:
            explainer = contributions(damaged)
        except UnsupportedTrees:
            continue
        assert np.isfinite(explainer.of(unseen)).all()

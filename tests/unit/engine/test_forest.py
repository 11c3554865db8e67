"""The kernels give the bits of LightGBM for every objective and kind of split, and so does the C library called directly."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestRegressor

from podium.engine import forest
from podium.engine.forest import Forest, Trees, load_trees
from podium.engine.lightgbm_library import Booster
from podium.engine.trees import UnsupportedTrees
from podium.models.lightgbm_export import boosted_trees, forest_trees
from podium.models.scorers import LightGBMScorer
from podium.models.tree_checks import check_trees
from tests.unit.engine.trained_models import FEATURES, MODELS, damaged_texts, rows, train

ENGINES = (Forest, Booster)


def assert_same_bits(trees: Trees, expected: np.ndarray, unseen: np.ndarray) -> None:
    assert np.array_equal(trees.scores(unseen), expected, equal_nan=True)
    scorer = trees.row_scorer()
    for row, scores in zip(unseen[:300].tolist(), expected[:300], strict=True):
        scorer.vector[:] = row
        assert np.array_equal(scorer(), scores, equal_nan=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_ten_thousand_rows_and_single_rows_get_the_bits_of_lightgbm(name: str, engine: Any) -> None:
    original = train(name)
    text = original.model_to_string()
    check_trees(text, FEATURES, original.num_model_per_iteration())
    unseen = rows(10_003, seed=2)
    expected = np.asarray(original.predict(unseen, num_threads=1)).reshape(len(unseen), -1)
    trees = engine(text)
    assert (trees.features, trees.outputs) == (FEATURES, expected.shape[1])
    assert_same_bits(trees, expected, unseen)


@pytest.mark.parametrize("engine", ENGINES)
def test_trees_of_float32_get_the_bits_of_scikit_learn(engine: Any) -> None:
    features = np.nan_to_num(rows(300), posinf=9, neginf=-9).clip(-1e6, 1e6)
    regressor = RandomForestRegressor(10, random_state=0).fit(features, features.sum(axis=1))
    classifier = ExtraTreesClassifier(10, random_state=0).fit(features, (features[:, 4] % 3).round())
    unseen = np.nan_to_num(rows(1000, seed=3), posinf=9, neginf=-9).clip(-1e6, 1e6)
    for estimator, expected in (
        (regressor, regressor.predict(unseen)[:, None]),
        (classifier, classifier.predict_proba(unseen)),
    ):
        assert_same_bits(engine(forest_trees(estimator, FEATURES).text, True), expected, unseen)


def test_histogram_trees_agree_with_scikit_learn() -> None:
    """Also for numbers below 1e-35, which LightGBM takes for 0."""
    features = np.where(np.isfinite(rows(500)), rows(500), np.nan)
    boosting = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(features, np.nan_to_num(features[:, 0]) > 0)
    trees = Forest(boosted_trees(boosting, FEATURES).text)
    np.testing.assert_allclose(trees.scores(features)[:, 0], boosting.predict_proba(features)[:, 1], rtol=1e-15)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 513])
def test_any_number_of_rows_gets_the_same_scores(count: int, engine: Any) -> None:
    for name in ("multiclass", "500 leaves", "categories"):
        trees, unseen = engine(train(name).model_to_string()), rows(600, seed=4)
        assert np.array_equal(trees.scores(unseen[:count]), trees.scores(unseen)[:count], equal_nan=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("width", [0, 1, FEATURES - 1, FEATURES + 1, 1000])
def test_a_wrong_number_of_features_is_an_error(width: int, engine: Any) -> None:
    trees = engine(train("binary").model_to_string())
    for count in (0, 1, 50):
        with pytest.raises(ValueError, match="columns"):
            trees.scores(np.zeros((count, width)))
    with pytest.raises(ValueError, match="shape"):
        trees.scores(np.zeros(FEATURES))
    with pytest.raises(ValueError, match="size"):
        trees.row_scorer().vector[:] = [0.0] * width


@pytest.mark.parametrize(("features", "outputs"), [(FEATURES + 1, 4), (FEATURES, 1), (FEATURES, 5)])
def test_a_scorer_whose_trees_have_another_shape_is_an_error(features: int, outputs: int) -> None:
    scorer = LightGBMScorer(train("multiclass").model_to_string(), features, outputs)
    for use in (lambda: scorer.scores(np.zeros((1, features))), scorer.compiled):
        with pytest.raises(ValueError, match="expected"):
            use()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "convert", [np.asfortranarray, lambda matrix: np.repeat(matrix, 2, axis=1)[:, ::2], np.int64, np.float16]
)
def test_other_layouts_and_types_are_converted(convert: Any, engine: Any) -> None:
    original = train("regression")
    matrix = np.arange(30.0).reshape(5, FEATURES) - 15
    assert np.array_equal(engine(original.model_to_string()).scores(convert(matrix))[:, 0], original.predict(matrix))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_scorer_keeps_its_trees_alive(engine: Any) -> None:
    text = train("binary").model_to_string()
    scorer = engine(text).row_scorer()
    gc.collect()
    scorer.vector[:] = [1.0] * FEATURES
    assert list(scorer()) == engine(text).scores(np.ones((1, FEATURES)))[0].tolist()


def test_the_kernels_are_built_and_used() -> None:
    assert isinstance(load_trees(train("binary").model_to_string(), is_float32=False), Forest)


def test_lightgbm_scores_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "kernels", lambda: None)
    assert isinstance(load_trees(train("binary").model_to_string(), is_float32=False), Booster)


@pytest.mark.parametrize("objective", ["huber sqrt", "poisson sqrt", "cross_entropy sigmoid:2", "binary sigmoid:1 sigmoid:2"])
def test_objectives_with_unusual_parameters_are_left_to_lightgbm(objective: str) -> None:
    text = train("regression").model_to_string().replace("objective=regression", f"objective={objective}", 1)
    with pytest.raises(UnsupportedTrees):
        Forest(text)


def test_more_trees_per_iteration_than_outputs_are_an_error() -> None:
    """LightGBM would write three scores into a buffer for one."""
    text = train("regression").model_to_string()
    assert "num_tree_per_iteration=1" in text
    with pytest.raises(RuntimeError, match="trees per iteration"):
        Booster(text.replace("num_tree_per_iteration=1", "num_tree_per_iteration=3"))


@pytest.mark.parametrize("text", ["", "tree", "garbage\n\n", "tree\nversion=v4\n"])
def test_text_that_is_not_a_model_is_an_error(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="LightGBM"):
        Booster(text)
    gc.collect()  # a destructor that fails would be reported as a warning, and so as an error


@pytest.mark.slow
@pytest.mark.long
def test_damaged_texts_that_pass_the_checks_are_scored_like_lightgbm() -> None:
    """No text that the checks accept may make the kernels read out of bounds: their scores stay those of LightGBM."""
    unseen, accepted = rows(50, seed=6), 0
    unseen[np.abs(unseen) < 1e-30] = 0.0
    for damaged in damaged_texts():
        accepted += 1
        assert np.array_equal(Forest(damaged, False).scores(unseen), Booster(damaged).scores(unseen), equal_nan=True)
    assert accepted > 500

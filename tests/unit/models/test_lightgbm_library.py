"""The C library called directly gives the bits of LightGBM's Python package and never reads or writes out of bounds."""

from __future__ import annotations

import gc
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from podium.models.lightgbm_export import forest_trees
from podium.models.lightgbm_library import Booster, RowPredictor

FEATURES = 6
OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "multiclass": {"objective": "multiclass", "num_class": 4},
    "regression": {"objective": "regression"},
    "poisson": {"objective": "poisson"},
}


def rows(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, FEATURES)) * 3
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def train(objective: str) -> lightgbm.Booster:
    features = rows(400)
    signal = np.nan_to_num(features).sum(axis=1)
    target = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-5, 0, 5]).astype(float),
        "regression": signal,
        "poisson": np.abs(signal).round(),
    }[objective]
    parameters = {**OBJECTIVES[objective], "num_threads": 1, "verbosity": -1, "seed": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(features, target, params={"verbosity": -1}), 20)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_matrix_gets_the_bits_of_lightgbm(objective: str) -> None:
    original = train(objective)
    booster = Booster(original.model_to_string())
    unseen = rows(300, seed=2)
    expected = np.asarray(original.predict(unseen)).reshape(300, -1)
    assert (booster.features, booster.outputs) == (FEATURES, expected.shape[1])
    assert np.array_equal(booster.predict(unseen), expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_single_row_gets_the_bits_of_lightgbm(objective: str) -> None:
    original = train(objective)
    booster = Booster(original.model_to_string())
    predictor = RowPredictor(booster, FEATURES, booster.outputs, float32=False)
    unseen = rows(100, seed=3)
    expected = np.asarray(original.predict(unseen)).reshape(100, -1).tolist()
    for row, scores in zip(unseen.tolist(), expected, strict=True):
        predictor.vector[:] = row
        assert list(predictor()) == scores


def test_a_float32_forest_gets_the_same_bits_by_row_and_by_matrix() -> None:
    features = np.nan_to_num(rows(300))
    forest = RandomForestRegressor(10, random_state=0).fit(features, features.sum(axis=1))
    text = forest_trees(forest, FEATURES).text
    narrow = features.astype(np.float32)
    scores = Booster(text).predict(narrow)
    assert np.array_equal(scores[:, 0], lightgbm.Booster(model_str=text).predict(narrow))
    assert np.array_equal(scores[:, 0], forest.predict(features))
    predictor = RowPredictor(Booster(text), FEATURES, 1, float32=True)
    for row, expected in zip(features.tolist(), scores.tolist(), strict=True):
        predictor.vector[:] = row
        assert list(predictor()) == expected


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_empty_matrix_gets_no_scores(objective: str) -> None:
    booster = Booster(train(objective).model_to_string())
    assert booster.predict(np.empty((0, FEATURES))).shape == (0, booster.outputs)


@pytest.mark.parametrize("width", [0, 1, FEATURES - 1, FEATURES + 1, 1000])
def test_a_wrong_number_of_features_is_an_error(width: int) -> None:
    booster = Booster(train("binary").model_to_string())
    for count in (0, 1, 50):
        with pytest.raises(RuntimeError, match="columns"):
            booster.predict(np.zeros((count, width)))
    with pytest.raises(RuntimeError, match="features"):
        RowPredictor(booster, width, 1, float32=False)
    with pytest.raises(RuntimeError, match="shape"):
        booster.predict(np.zeros(FEATURES))


@pytest.mark.parametrize("outputs", [0, 1, 3, 5])
def test_a_wrong_number_of_outputs_is_an_error(outputs: int) -> None:
    booster = Booster(train("multiclass").model_to_string())
    with pytest.raises(RuntimeError, match="outputs"):
        RowPredictor(booster, FEATURES, outputs, float32=False)


def test_a_vector_of_another_length_is_an_error() -> None:
    booster = Booster(train("binary").model_to_string())
    predictor = RowPredictor(booster, FEATURES, 1, float32=False)
    with pytest.raises(ValueError, match="size"):
        predictor.vector[:] = [0.0] * (FEATURES + 1)


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


@pytest.mark.parametrize(
    "convert", [np.asfortranarray, lambda matrix: np.repeat(matrix, 2, axis=1)[:, ::2], np.int64, np.float16]
)
def test_other_layouts_and_types_are_converted(convert: Any) -> None:
    original = train("regression")
    matrix = np.arange(30.0).reshape(5, FEATURES) - 15
    assert np.array_equal(Booster(original.model_to_string()).predict(convert(matrix))[:, 0], original.predict(matrix))


def test_a_predictor_keeps_its_booster_alive() -> None:
    text = train("binary").model_to_string()
    predictor = RowPredictor(Booster(text), FEATURES, 1, float32=False)
    gc.collect()
    predictor.vector[:] = [1.0] * FEATURES
    assert list(predictor()) == Booster(text).predict(np.ones((1, FEATURES)))[0].tolist()

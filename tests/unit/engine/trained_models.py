"""LightGBM models of every objective and kind of split, and difficult rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np

from podium.models.tree_checks import check_trees

FEATURES = 6
MODELS: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "binary with a steeper sigmoid": {"objective": "binary", "sigmoid": 2.5},
    "categories": {"objective": "binary", "min_data_per_group": 5},
    "zero is missing": {"objective": "binary", "zero_as_missing": True},
    "nothing is missing": {"objective": "regression", "use_missing": False},
    "multiclass": {"objective": "multiclass", "num_class": 4},
    "one class against the others": {"objective": "multiclassova", "num_class": 4},
    "regression": {"objective": "regression"},
    "square root": {"objective": "regression", "reg_sqrt": True},
    "absolute error": {"objective": "regression_l1"},
    "poisson": {"objective": "poisson"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "cross-entropy": {"objective": "cross_entropy"},
    "cross-entropy lambda": {"objective": "cross_entropy_lambda"},
    "average": {"objective": "binary", "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1},
    "32 leaves": {"objective": "regression", "num_leaves": 32, "min_data_in_leaf": 1},
    "33 leaves": {"objective": "regression", "num_leaves": 33, "min_data_in_leaf": 1},
    "500 leaves": {"objective": "regression", "num_leaves": 500, "min_data_in_leaf": 1},
    "one split": {"objective": "regression", "num_leaves": 2},
    "no split": {"objective": "regression", "min_data_in_leaf": 10_000},
}


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Return numbers of all sizes, missing and infinite ones, small integers, and numbers that are no category."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, FEATURES)) * 3
    matrix[:, 4:] = random.integers(0, 40, (count, 2))
    for special in (np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-36, -1e300, 3e9, -0.5, 31.0, 32.0, 2.0**31):
        matrix[random.random(matrix.shape) < 0.01] = special
    return matrix


@functools.cache
def train(name: str) -> lightgbm.Booster:
    features = np.where(np.isfinite(rows(600)), rows(600), np.nan)
    signal = np.tanh(np.nan_to_num(features[:, :4])).sum(axis=1) + np.nan_to_num(features[:, 4]) % 3
    objective = MODELS[name]["objective"]
    target = signal
    if objective in ("binary", "cross_entropy", "cross_entropy_lambda"):
        target = (signal > 1).astype(float)
    elif objective.startswith("multiclass"):
        target = np.digitize(signal, [-1, 0, 1]).astype(float)
    elif objective in ("poisson", "gamma", "tweedie"):
        target = np.abs(signal).round() + 1
    parameters = {"num_threads": 1, "verbosity": -1, "seed": 1, **MODELS[name]}
    categories = [4, 5] if name == "categories" else "auto"
    dataset = lightgbm.Dataset(features, target, categorical_feature=categories, params={"verbosity": -1})
    return lightgbm.train(parameters, dataset, 20)


def damaged_texts() -> Iterator[str]:
    """Yield model texts with other digits in random places, as far as they pass the checks."""
    random = np.random.default_rng(5)
    for name in ("categories", "zero is missing", "multiclass", "33 leaves"):
        original = train(name)
        text, outputs = original.model_to_string(num_iteration=3), original.num_model_per_iteration()
        digits = [index for index, letter in enumerate(text[: text.index("end of trees")]) if letter.isdigit()]
        for _ in range(1500):
            letters = list(text)
            for index in random.choice(digits, random.integers(1, 4)):
                letters[index] = str(random.integers(0, 10))
            damaged = "".join(letters)
            try:
                check_trees(damaged, FEATURES, outputs)
            except ValueError:
                continue
            yield damaged

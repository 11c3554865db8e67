"""The model families: how each is built for a task, what is tried, and how a fitted one becomes a scorer.

A new family is one entry in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from podium.models.lightgbm_export import forest_trees
from podium.models.scorers import LightGBMScorer, LinearScorer, Scorer
from podium.schema.columns import Target
from podium.training.statsmodels_family import GeneralizedLinearModel

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """`build(target, seed, settings)` gives an unfitted estimator, `export(fitted, target, features)` its scorer."""

    build: Callable[[Target, int, Settings], Any]
    export: Callable[[Any, Target, int], Scorer]
    tried: tuple[Settings, ...]
    panels_only: bool = False


def _linear(target: Target, seed: int, settings: Settings) -> Any:
    if target.classes:
        return LogisticRegression(C=settings["strength"], max_iter=2000)
    return Ridge(alpha=1 / settings["strength"])


def _linear_scorer(fitted: Any, target: Target, features: int) -> Scorer:
    weights = fitted.coef_.reshape(-1, features).tolist()
    intercepts = fitted.intercept_.reshape(-1).tolist() if hasattr(fitted.intercept_, "reshape") else [fitted.intercept_]
    link = {"binary": "logistic", "multiclass": "softmax"}.get(target.task, "identity")
    return LinearScorer(tuple(map(tuple, weights)), tuple(map(float, intercepts)), link)


def _forest(classifier: Any, regressor: Any) -> Callable[[Target, int, Settings], Any]:
    def build(target: Target, seed: int, settings: Settings) -> Any:
        return (classifier if target.classes else regressor)(random_state=seed, n_jobs=1, **settings)

    return build


def _forest_scorer(fitted: Any, target: Target, features: int) -> Scorer:
    return forest_trees(fitted, features)


def _lightgbm(target: Target, seed: int, settings: Settings) -> Any:
    estimator = lightgbm.LGBMClassifier if target.classes else lightgbm.LGBMRegressor
    return estimator(random_state=seed, n_jobs=1, verbosity=-1, deterministic=True, force_row_wise=True, **settings)


def _lightgbm_scorer(fitted: Any, target: Target, features: int) -> Scorer:
    outputs = len(target.classes) if target.task == "multiclass" else 1
    return LightGBMScorer(fitted.booster_.model_to_string(), features, outputs, binary_probability=target.task == "binary")


DEFAULT_FAMILIES = ("linear", "random-forest", "extra-trees", "lightgbm")
"""Trained when a project names none."""
PANEL_FAMILIES = ("persistence", "linear", "extra-trees", "lightgbm")
"""The same for a panel."""

FAMILIES: dict[str, Family] = {
    "linear": Family(_linear, _linear_scorer, tuple({"strength": strength} for strength in (1.0, 0.1, 10.0, 0.01))),
    "random-forest": Family(
        _forest(RandomForestClassifier, RandomForestRegressor),
        _forest_scorer,
        (
            {"n_estimators": 200, "min_samples_leaf": 1},
            {"n_estimators": 200, "min_samples_leaf": 5},
            {"n_estimators": 200, "min_samples_leaf": 2, "max_features": 0.5},
            {"n_estimators": 200, "min_samples_leaf": 20},
        ),
    ),
    "extra-trees": Family(
        _forest(ExtraTreesClassifier, ExtraTreesRegressor),
        _forest_scorer,
        (
            {"n_estimators": 200, "min_samples_leaf": 2},
            {"n_estimators": 200, "min_samples_leaf": 5},
            {"n_estimators": 200, "min_samples_leaf": 2, "max_features": 0.5},
            {"n_estimators": 200, "min_samples_leaf": 20},
        ),
    ),
    "persistence": Family(
        lambda target, seed, settings: DummyRegressor(strategy="constant", constant=0.0),
        lambda fitted, target, features: LinearScorer(((0.0,) * features,), (0.0,), "identity"),
        ({},),
        panels_only=True,
    ),
    "glm": Family(
        lambda target, seed, settings: GeneralizedLinearModel(target), lambda fitted, target, features: fitted.scorer(), ({},)
    ),
    "lightgbm": Family(
        _lightgbm,
        _lightgbm_scorer,
        (
            {"n_estimators": 150, "num_leaves": 15, "learning_rate": 0.05},
            {"n_estimators": 100, "num_leaves": 7, "learning_rate": 0.1, "min_child_samples": 10},
            {"n_estimators": 300, "num_leaves": 31, "learning_rate": 0.03},
            {"n_estimators": 300, "num_leaves": 4, "learning_rate": 0.05},
        ),
    ),
}


class UnknownFamily(Exception):
    """The project names a family that is not there."""


def select_families(asked: tuple[str, ...], panel: bool = False) -> tuple[str, ...]:
    """The families to train, in the project's order; raises UnknownFamily."""
    unknown = [name for name in asked if name not in FAMILIES]
    if unknown:
        raise UnknownFamily(
            f"unknown famil{'ies' if len(unknown) > 1 else 'y'} {', '.join(unknown)}; there are {', '.join(FAMILIES)}"
        )
    if wrong := [name for name in asked if FAMILIES[name].panels_only and not panel]:
        raise UnknownFamily(f"{', '.join(wrong)} needs a panel: it says that nothing changes since the day before")
    return asked or (PANEL_FAMILIES if panel else DEFAULT_FAMILIES)

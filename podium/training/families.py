"""The model families: estimator, scorer and parameter grid of each.

To add a family, add an entry to FAMILIES.
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
from podium.project import Project
from podium.schema.columns import Target
from podium.schema.suggestions import did_you_mean
from podium.training.statsmodels_family import GeneralizedLinearModel

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model.

    `make_estimator(target, random_state, params)` returns an unfitted estimator. `to_scorer(estimator, target, n_features)`
    converts a fitted one. `param_grid` lists the params to try, the default first.
    """

    make_estimator: Callable[[Target, int, Params], Any]
    to_scorer: Callable[[Any, Target, int], Scorer]
    param_grid: tuple[Params, ...]
    requires_panel: bool = False


def _linear(target: Target, random_state: int, params: Params) -> Any:
    if target.classes:
        return LogisticRegression(C=params["C"], max_iter=2000)
    return Ridge(alpha=1 / params["C"])


def _linear_scorer(estimator: Any, target: Target, n_features: int) -> Scorer:
    weights = estimator.coef_.reshape(-1, n_features).tolist()
    intercept = estimator.intercept_
    intercepts = intercept.reshape(-1).tolist() if hasattr(intercept, "reshape") else [intercept]
    link = {"binary": "logistic", "multiclass": "softmax"}.get(target.task, "identity")
    return LinearScorer(tuple(map(tuple, weights)), tuple(map(float, intercepts)), link)


def _forest(classifier: Any, regressor: Any) -> Callable[[Target, int, Params], Any]:
    def make_estimator(target: Target, random_state: int, params: Params) -> Any:
        return (classifier if target.classes else regressor)(random_state=random_state, n_jobs=1, **params)

    return make_estimator


def _lightgbm(target: Target, random_state: int, params: Params) -> Any:
    estimator = lightgbm.LGBMClassifier if target.classes else lightgbm.LGBMRegressor
    return estimator(random_state=random_state, n_jobs=1, verbosity=-1, deterministic=True, force_row_wise=True, **params)


def _lightgbm_scorer(estimator: Any, target: Target, n_features: int) -> Scorer:
    outputs = len(target.classes) if target.task == "multiclass" else 1
    return LightGBMScorer(estimator.booster_.model_to_string(), n_features, outputs, binary_probability=target.task == "binary")


DEFAULT_FAMILIES = ("linear", "random-forest", "extra-trees", "lightgbm")
"""Families trained on tables by default."""
PANEL_FAMILIES = ("persistence", "linear", "extra-trees", "lightgbm")
"""Families trained on panels by default."""

FAMILIES: dict[str, Family] = {
    "linear": Family(_linear, _linear_scorer, tuple({"C": value} for value in (1.0, 0.1, 10.0, 0.01))),
    "random-forest": Family(
        _forest(RandomForestClassifier, RandomForestRegressor),
        lambda estimator, target, n_features: forest_trees(estimator, n_features),
        (
            {"n_estimators": 200, "min_samples_leaf": 1},
            {"n_estimators": 200, "min_samples_leaf": 5},
            {"n_estimators": 200, "min_samples_leaf": 2, "max_features": 0.5},
            {"n_estimators": 200, "min_samples_leaf": 20},
        ),
    ),
    "extra-trees": Family(
        _forest(ExtraTreesClassifier, ExtraTreesRegressor),
        lambda estimator, target, n_features: forest_trees(estimator, n_features),
        (
            {"n_estimators": 200, "min_samples_leaf": 2},
            {"n_estimators": 200, "min_samples_leaf": 5},
            {"n_estimators": 200, "min_samples_leaf": 2, "max_features": 0.5},
            {"n_estimators": 200, "min_samples_leaf": 20},
        ),
    ),
    "persistence": Family(
        lambda target, random_state, params: DummyRegressor(strategy="constant", constant=0.0),
        lambda estimator, target, n_features: LinearScorer(((0.0,) * n_features,), (0.0,), "identity"),
        ({},),
        requires_panel=True,
    ),
    "glm": Family(
        lambda target, random_state, params: GeneralizedLinearModel(target),
        lambda estimator, target, n_features: estimator.scorer(),
        ({},),
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
    """The project names a family that does not exist or does not suit this kind of project."""


def select_families(project: Project) -> tuple[str, ...]:
    """Return the families to train, in the project's order. Raises UnknownFamily."""
    for name in project.families:
        if name not in FAMILIES:
            choices = f"choose from {', '.join(FAMILIES)}{did_you_mean(name, FAMILIES)}"
            raise UnknownFamily(f"{project.name}: unknown family {name}; {choices}")
        if FAMILIES[name].requires_panel and not project.panel:
            raise UnknownFamily(f"{project.name}: {name} needs a panel; remove it from families, or add a [panel] section")
    return project.families or (PANEL_FAMILIES if project.panel else DEFAULT_FAMILIES)

"""The model families: estimator, scorer and settings of each.

To add a family, add an entry to FAMILIES.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from lightgbm.callback import CallbackEnv, EarlyStopException
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from podium.models.lightgbm_export import forest_trees, weighted_boosters
from podium.models.scorers import LightGBMScorer, LinearScorer, Scorer, mean_of_linear
from podium.project import Project
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target
from podium.schema.suggestions import did_you_mean
from podium.training.catboost_family import fit_symmetric_trees
from podium.training.early_stopping import EarlyStopping
from podium.training.statsmodels_family import GeneralizedLinearModel

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FitRows:
    """Encoded rows to fit on, and rows for early stopping, if there are any; `deadline` is a time of `time.monotonic`."""

    features: FloatMatrix
    target: FloatVector
    check_features: FloatMatrix | None = None
    check_target: FloatVector | None = None
    deadline: float = float("inf")


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model.

    `fit(target, random_state, params, rows)` returns a fitted estimator, and `to_scorer(estimator, target, n_features)`
    converts it. `settings` lists the params to try, in the order in which they usually help; the first is the default.
    `combine` makes one scorer of those of the folds, each with its weight. `out_of_bag(estimator)` returns the predictions for
    the rows that a tree was not fitted on, in place of folds.
    """

    fit: Callable[[Target, int, Params, FitRows], Any]
    to_scorer: Callable[[Any, Target, int], Scorer]
    settings: tuple[Params, ...]
    combine: Callable[[Any], Scorer] | None = None
    out_of_bag: Callable[[Any], FloatMatrix] | None = None
    at_rounds: Callable[[Any, Target, int, int], Scorer] | None = None
    """Converts the first rounds of a booster, whose `best_iteration_` is that of the rows for early stopping."""
    share: float = 1.0
    """The part of the budget, relative to those of the other families."""
    requires_panel: bool = False


def _linear(target: Target, random_state: int, params: Params, rows: FitRows) -> Any:
    if not target.classes:
        return Ridge(alpha=1 / params["C"]).fit(rows.features, rows.target)
    if len(target.classes) <= MAX_FULL_CLASSES:
        return LogisticRegression(C=params["C"], max_iter=2000).fit(rows.features, rows.target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a step takes long, and 100 come near enough
        return LogisticRegression(C=params["C"], max_iter=100).fit(rows.features, rows.target)


def _linear_scorer(estimator: Any, target: Target, n_features: int) -> Scorer:
    weights = estimator.coef_.reshape(-1, n_features).tolist()
    intercept = estimator.intercept_
    intercepts = intercept.reshape(-1).tolist() if hasattr(intercept, "reshape") else [intercept]
    link = {"binary": "logistic", "multiclass": "softmax"}.get(target.task, "identity")
    return LinearScorer(tuple(map(tuple, weights)), tuple(map(float, intercepts)), link)


FIRST_TREES, MAX_TREES, MAX_LEAVES, MAX_TREE_ROWS = 10, 200, 5000, 100_000
"""Trees of a forest that are fitted before their time decides how many more there are; about the leaves and rows of a tree."""


MAX_FULL_CLASSES = 10
"""With more classes, trees have fewer leaves, since each leaf has a score for every class."""


def _forest(classifier: Any, regressor: Any) -> Callable[[Target, int, Params, FitRows], Any]:
    def fit(target: Target, random_state: int, params: Params, rows: FitRows) -> Any:
        make = classifier if target.classes else regressor
        defaults = {"max_features": "sqrt" if target.classes else 1.0, "bootstrap": True, "warm_start": True}
        leaves = MAX_LEAVES * MAX_FULL_CLASSES // max(MAX_FULL_CLASSES, len(target.classes))
        leaf = max(params["min_samples_leaf"], min(len(rows.target), MAX_TREE_ROWS) // leaves)
        options = {**defaults, **params, "min_samples_leaf": leaf, "max_samples": min(len(rows.target), MAX_TREE_ROWS)}
        forest = make(FIRST_TREES, random_state=random_state, n_jobs=-1, oob_score=True, **options)
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Some inputs do not have OOB scores")  # these get the mean
            forest.fit(rows.features, rows.target)
            a_tree = (time.monotonic() - started) / FIRST_TREES
            affordable = (rows.deadline - time.monotonic()) / max(a_tree, 1e-6)
            trees = int(min(MAX_TREES, 0.7 * affordable))
            if trees > FIRST_TREES:
                forest.set_params(n_estimators=trees).fit(rows.features, rows.target)
        return forest.set_params(n_jobs=1)  # threads would add up predictions in any order

    return fit


def _out_of_bag(forest: Any) -> FloatMatrix:
    """Return the scores of each row by the trees that were not fitted on it; where there is none, the mean of the others."""
    scores = forest.oob_decision_function_ if hasattr(forest, "classes_") else forest.oob_prediction_.reshape(-1, 1)
    is_known = np.zeros(len(scores), dtype=bool)
    for fitted in forest.estimators_samples_:
        is_known |= np.bincount(fitted, minlength=len(scores)) == 0
        if is_known.all():
            return np.asarray(scores)
    return np.where(is_known[:, None], scores, scores[is_known].mean(axis=0))


def _lightgbm(target: Target, random_state: int, params: Params, rows: FitRows) -> Any:
    make = lightgbm.LGBMClassifier if target.classes else lightgbm.LGBMRegressor
    settings = {"n_estimators": MAX_ROUNDS, "subsample_freq": 1, "min_child_weight": 1e-7, **params}
    settings |= {"random_state": random_state, "n_jobs": 1, "verbosity": -1, "deterministic": True, "force_row_wise": True}
    estimator = make(**settings)
    if rows.check_features is None:
        return estimator.fit(rows.features, rows.target)
    return estimator.fit(
        rows.features,
        rows.target,
        eval_X=(rows.check_features,),
        eval_y=(rows.check_target,),
        callbacks=[_stop_early(rows.deadline)],
    )


MAX_ROUNDS = 1000


def _stop_early(deadline: float) -> Callable[[CallbackEnv], None]:
    stopping = EarlyStopping(deadline)

    def callback(env: CallbackEnv) -> None:
        results: Any = env.evaluation_result_list
        is_last = env.iteration == env.end_iteration - 1
        if stopping.is_over(env.iteration + 1, results[0][2] if results else 0.0) or is_last:
            raise EarlyStopException(stopping.best_round - 1, results)

    return callback


def _lightgbm_scorer(estimator: Any, target: Target, n_features: int, rounds: int | None = None) -> Scorer:
    outputs = len(target.classes) if target.task == "multiclass" else 1
    text = estimator.booster_.model_to_string(num_iteration=rounds)
    return LightGBMScorer(text, n_features, outputs, binary_probability=target.task == "binary")


def _catboost(target: Target, random_state: int, params: Params, rows: FitRows) -> Any:
    check_rows = None
    if rows.check_features is not None and rows.check_target is not None:
        check_rows = rows.check_features, rows.check_target
    return fit_symmetric_trees(target, random_state, params, (rows.features, rows.target), check_rows, rows.deadline)


def _catboost_scorer(estimator: Any, target: Target, n_features: int, rounds: int | None = None) -> Scorer:
    return estimator.scorer(n_features, rounds)


DEFAULT_FAMILIES = ("linear", "random-forest", "extra-trees", "lightgbm", "catboost")
"""Families trained on tables by default."""
PANEL_FAMILIES = ("persistence", "linear", "extra-trees", "lightgbm")
"""Families trained on panels by default."""
ENSEMBLE = "ensemble"
"""The name of the weighted mean of several families."""

FORESTS: tuple[Params, ...] = ({"min_samples_leaf": 1}, {"min_samples_leaf": 5}, {"min_samples_leaf": 2, "max_features": 0.5})


def _boosting(**settings: Any) -> Params:
    names = {"rate": "learning_rate", "leaves": "num_leaves", "rows": "min_child_samples", "columns": "colsample_bytree"}
    return {names.get(name, name): value for name, value in settings.items()}


BOOSTERS: tuple[Params, ...] = (
    _boosting(rate=0.05, leaves=16, rows=20, columns=0.8, subsample=0.8),
    _boosting(rate=0.04, leaves=64, rows=28, columns=0.55, subsample=0.99, reg_alpha=0.9, reg_lambda=1.9, extra_trees=True),
    _boosting(rate=0.04, leaves=39, rows=3, columns=0.46, subsample=0.88, reg_alpha=0.24, reg_lambda=0.36, extra_trees=True),
    _boosting(rate=0.04, leaves=8, rows=15, columns=0.42, subsample=0.72, reg_alpha=0.11, reg_lambda=0.26, extra_trees=True),
    _boosting(rate=0.03, leaves=84, rows=3, columns=0.53, subsample=0.98, reg_alpha=0.03, reg_lambda=0.84),
    _boosting(rate=0.05, leaves=5, rows=12, columns=0.73, subsample=0.85, reg_alpha=0.24, reg_lambda=0.3, extra_trees=True),
    _boosting(rate=0.04, leaves=16, rows=1, columns=0.58, subsample=0.96, reg_alpha=0.94, reg_lambda=0.99),
    _boosting(rate=0.02, leaves=8, rows=24, columns=0.94, subsample=0.81, reg_alpha=0.44, reg_lambda=0.3),
    _boosting(rate=0.03, leaves=180, rows=12, columns=0.4, subsample=0.95, reg_alpha=0.77, reg_lambda=1.6, extra_trees=True),
    _boosting(rate=0.05, leaves=2, rows=17, columns=0.59, subsample=0.84, reg_alpha=0.08, reg_lambda=0.77),
    _boosting(rate=0.03, leaves=20, rows=2, columns=0.43, subsample=0.71, reg_alpha=0.51, reg_lambda=0.51),
    _boosting(rate=0.05, leaves=32, rows=1, columns=0.5, subsample=0.99, reg_alpha=0.8, reg_lambda=1.2, extra_trees=True),
)
"""In the order of AutoGluon's portfolio of 2025-12, with higher learning rates."""

SYMMETRIC: tuple[Params, ...] = (
    {"depth": 6},
    {"depth": 6, "learning_rate": 0.0686, "l2_leaf_reg": 2.15},
    {"depth": 4, "learning_rate": 0.0494, "l2_leaf_reg": 4.56},
    {"depth": 6, "rsm": 0.5},
)
"""CatBoost's defaults, two settings of AutoGluon's portfolios, and the defaults with half of the columns in each tree. All of
them, with 1000 rounds and five folds, are 20,000 trees."""

FAMILIES: dict[str, Family] = {
    "linear": Family(
        _linear,
        _linear_scorer,
        tuple({"C": value} for value in (1.0, 0.1, 10.0, 0.01)),
        combine=mean_of_linear,
    ),
    "random-forest": Family(
        _forest(RandomForestClassifier, RandomForestRegressor),
        lambda estimator, target, n_features: forest_trees(estimator, n_features),
        FORESTS,
        out_of_bag=_out_of_bag,
        share=1.5,
    ),
    "extra-trees": Family(
        _forest(ExtraTreesClassifier, ExtraTreesRegressor),
        lambda estimator, target, n_features: forest_trees(estimator, n_features),
        FORESTS,
        out_of_bag=_out_of_bag,
        share=1.5,
    ),
    "persistence": Family(
        lambda target, random_state, params, rows: DummyRegressor(strategy="constant", constant=0.0).fit(
            rows.features, rows.target
        ),
        lambda estimator, target, n_features: LinearScorer(((0.0,) * n_features,), (0.0,), "identity"),
        ({},),
        requires_panel=True,
        share=0.1,
    ),
    "glm": Family(
        lambda target, random_state, params, rows: GeneralizedLinearModel(target).fit(rows.features, rows.target),
        lambda estimator, target, n_features: estimator.scorer(),
        ({},),
    ),
    "lightgbm": Family(_lightgbm, _lightgbm_scorer, BOOSTERS, combine=weighted_boosters, at_rounds=_lightgbm_scorer, share=6.0),
    "catboost": Family(
        _catboost, _catboost_scorer, SYMMETRIC, combine=weighted_boosters, at_rounds=_catboost_scorer, share=6.0
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


def seconds_for(family: str, project: Project) -> float:
    """Return the part of the project's budget that a family may use."""
    shares = {name: FAMILIES[name].share for name in select_families(project)}
    return project.budget_seconds * shares[family] / sum(shares.values())

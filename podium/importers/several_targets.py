"""Estimators that were fitted on several targets, reduced to one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.linear_model._base import LinearModel
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import BaseDecisionTree
from sklearn.tree._tree import Tree

from podium.importers.errors import ImportRefused

REMEDY = "fit one model per target"


def has_several_targets(estimator: Any, output: int | None) -> bool:
    """Return whether an estimator has several targets. Raises ImportRefused unless `output` names one of them if so."""
    count = _target_count(estimator)
    if count > 1 and (output is None or output >= count):
        raise ImportRefused(f"the model predicts {count} targets: choose one with --output, 0 to {count - 1}")
    if count == 1 and output is not None:
        raise ImportRefused("the model predicts one target: leave out --output")
    return count > 1


def _target_count(estimator: Any) -> int:
    """Return the number of targets."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if isinstance(last, MultiOutputRegressor | MultiOutputClassifier):
        return len(last.estimators_)
    if isinstance(last, LinearModel) and not is_classifier(last):
        return int(np.shape(last.coef_)[0]) if np.ndim(last.coef_) == 2 else 1
    if isinstance(last, KNeighborsRegressor | RadiusNeighborsRegressor):
        return int(last._y.shape[1]) if last._y.ndim == 2 else 1
    if is_classifier(last) and not (isinstance(last, BaseDecisionTree) or _is_forest(last)):
        return 1  # a network's outputs are classes
    return int(getattr(last, "n_outputs_", 1))


def of_one_target(estimator: Any, number: int) -> Any:
    """Return a copy that predicts only the target with this number, from 0. Raises ImportRefused."""
    if isinstance(estimator, Pipeline):
        reduced = copy.copy(estimator)
        name, last = estimator.steps[-1]
        reduced.steps = [*estimator.steps[:-1], (name, of_one_target(last, number))]
        return reduced
    if isinstance(estimator, MultiOutputRegressor | MultiOutputClassifier):
        reduced = copy.copy(estimator.estimators_[number])
        if hasattr(estimator, "feature_names_in_"):
            reduced.feature_names_in_ = estimator.feature_names_in_
        return reduced
    reduce = _reduction(estimator)
    if reduce is None:
        raise ImportRefused(f"one target of a {type(estimator).__name__} cannot be taken: {REMEDY}")
    reduced = copy.copy(estimator)
    reduce(reduced, number)
    return reduced


def scores_of(predict: Callable[[Any], Any], number: int) -> Callable[[Any], Any]:
    """Return a function that gives the scores of one target."""

    def scores(rows: Any) -> Any:
        predicted = predict(rows)
        return predicted[number] if isinstance(predicted, list) else np.asarray(predicted)[:, number]

    return scores


def _reduction(estimator: Any) -> Callable[[Any, int], None] | None:
    if isinstance(estimator, BaseDecisionTree):
        return _reduce_tree
    if _is_forest(estimator):
        return _reduce_forest
    if isinstance(estimator, LinearModel):
        return _reduce_linear
    if isinstance(estimator, KNeighborsRegressor | RadiusNeighborsRegressor):
        return _reduce_neighbors
    return _reduce_network if isinstance(estimator, MLPRegressor) else None


def _is_forest(estimator: Any) -> bool:
    trees = getattr(estimator, "estimators_", ())
    return isinstance(trees, list) and bool(trees) and isinstance(trees[0], BaseDecisionTree)


def _reduce_forest(forest: Any, number: int) -> None:
    forest.estimators_ = [of_one_target(tree, number) for tree in forest.estimators_]
    _reduce_classes(forest, number)


def _reduce_tree(tree: Any, number: int) -> None:
    old, classes = tree.tree_, np.atleast_1d(tree.tree_.n_classes)[number : number + 1].astype(np.intp)
    state = old.__getstate__()
    state["values"] = np.ascontiguousarray(state["values"][:, number : number + 1, : classes[0]])
    tree.tree_ = Tree(old.n_features, classes, 1)
    tree.tree_.__setstate__(state)
    _reduce_classes(tree, number)


def _reduce_classes(model: Any, number: int) -> None:
    model.n_outputs_ = 1
    if is_classifier(model):
        model.classes_, model.n_classes_ = model.classes_[number], int(model.n_classes_[number])


def _reduce_linear(model: Any, number: int) -> None:
    intercepts = np.broadcast_to(model.intercept_, len(model.coef_))
    model.coef_, model.intercept_ = model.coef_[number], float(intercepts[number])


def _reduce_neighbors(model: Any, number: int) -> None:
    model._y = model._y[:, number]


def _reduce_network(model: Any, number: int) -> None:
    model.coefs_ = [*model.coefs_[:-1], model.coefs_[-1][:, number : number + 1]]
    model.intercepts_ = [*model.intercepts_[:-1], model.intercepts_[-1][number : number + 1]]
    model.n_outputs_ = 1

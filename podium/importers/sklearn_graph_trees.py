"""Trees of scikit-learn and of the boosters as float64 ONNX operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.ensemble._iforest import _average_path_length
from sklearn.tree._classes import BaseDecisionTree

from podium.importers.booster_stand_ins import BoosterEstimator, CatBoostEstimator, XGBoostEstimator
from podium.importers.graph_builder import Tensor, where
from podium.importers.sklearn_graph_columns import Columns, Unsupported
from podium.importers.sklearn_graph_formulas import LINK_OF_LOSS, LINKS, linear
from podium.importers.sklearn_graph_steps import transform
from podium.importers.tree_graph import WeightedTree, sum_of_trees
from podium.models.lightgbm_export import TreeNodes, histogram_nodes, sklearn_nodes


def forest(model: Any, x: Columns) -> Tensor:
    trees = [model] if isinstance(model, BaseDecisionTree) else model.estimators_
    if model.n_outputs_ != 1:
        raise Unsupported("several targets")
    outputs = int(model.n_classes_) if is_classifier(model) else 1
    nodes = [sklearn_nodes(tree.tree_) for tree in trees]
    parts = [(tree, output, output, 1.0 / len(trees)) for tree in nodes for output in range(outputs)]
    return sum_of_trees(x.tensor.rounded(), parts, [0.0] * outputs)


def boosted_sums(model: Any, x: Columns) -> Tensor:
    """Return the raw predictions of gradient boosting."""
    if isinstance(model, BaseGradientBoosting):
        return _gradient_sums(model, x)
    return _histogram_sums(model, x)


def _gradient_sums(model: BaseGradientBoosting, x: Columns) -> Tensor:
    base = np.ravel(model._raw_predict_init(np.zeros((1, model.n_features_in_)))).tolist()
    trees = [(tree, output) for iteration in model.estimators_ for output, tree in enumerate(iteration)]
    parts = [(sklearn_nodes(tree.tree_), 0, output, float(model.learning_rate)) for tree, output in trees]
    return sum_of_trees(x.tensor.rounded(), parts, base)


def _histogram_sums(model: BaseHistGradientBoosting, x: Columns) -> Tensor:
    if getattr(model, "_preprocessor", None) is not None:
        x = transform(model._preprocessor, x)
    base = np.ravel(model._baseline_prediction).tolist()
    parts = [(tree, 0, index % len(base), 1.0) for index, tree in enumerate(histogram_nodes(model))]
    return sum_of_trees(x.tensor, parts, base)


def boosting(model: Any, x: Columns) -> Tensor:
    return LINKS[LINK_OF_LOSS[type(model._loss).__name__]](boosted_sums(model, x))


def isolation_forest(model: IsolationForest, x: Columns) -> Tensor:
    """Return `score_samples`, from the depths of the leaves (Liu et al., 2008)."""
    parts: list[WeightedTree] = []
    for tree, selected in zip(model.estimators_, model.estimators_features_, strict=True):
        nodes = sklearn_nodes(tree.tree_)
        depths = _depths(nodes) + _average_path_length(tree.tree_.n_node_samples)
        feature = np.where(nodes.left < 0, 0, np.asarray(selected)[nodes.feature])
        moved = TreeNodes(feature, nodes.threshold, nodes.left, nodes.right, nodes.missing_left, depths[:, None], nodes.cover)
        parts.append((moved, 0, 0, 1.0))
    depth = sum_of_trees(x.tensor.rounded(), parts, [0.0])
    scale = len(parts) * float(_average_path_length([model._max_samples])[0])
    return -(2.0 ** (depth * (-1.0 / scale)))


def _depths(nodes: TreeNodes) -> np.ndarray:
    depths = np.zeros(len(nodes.left))
    for node in np.flatnonzero(nodes.left >= 0):  # children come after their parent
        depths[nodes.left[node]] = depths[nodes.right[node]] = depths[node] + 1
    return depths


def booster(model: BoosterEstimator, x: Columns) -> Tensor:
    if isinstance(model, CatBoostEstimator):
        if any(x.categories[column] != texts for column, texts in model.text_columns.items()):
            raise Unsupported("text columns of a booster after other steps")
        return LINKS[model.model.link](model.model.sums(x.tensor))
    trees = model.tree_model()
    if model.text_columns or trees is None:
        if isinstance(model, XGBoostEstimator) and model.model.is_linear:
            return LINKS[model.model.link](linear(x.tensor.rounded(), model.model.weights, model.model.bias))
        raise Unsupported("text columns of a booster within an ensemble")
    source = x.tensor.rounded() if trees.float32 else x.tensor
    if trees.missing == trees.missing:
        source = where(source == trees.missing, float("nan"), source)
    parts = [(nodes, 0, target, 1.0) for nodes, target in zip(trees.trees, trees.targets, strict=True)]
    return LINKS[trees.link](sum_of_trees(source, parts, trees.base))

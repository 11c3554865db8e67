"""Convert scikit-learn's tree ensembles to LightGBM's text format, keeping the splits, leaves and summation order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from podium.models.scorers import LightGBMScorer


def forest_trees(forest: Any, features: int) -> LightGBMScorer:
    """Convert a fitted forest, whose scores are the mean of its trees' leaves.

    Thresholds and leaves are written at full precision. Features are rounded to float32, as in scikit-learn.
    """
    outputs = int(getattr(forest, "n_classes_", 1))
    blocks = [_tree(tree.tree_, output) for tree in forest.estimators_ for output in range(outputs)]
    return LightGBMScorer(lightgbm_text(blocks, features, outputs, "average_output"), features, outputs, float32=True)


def gradient_trees(boosting: Any, features: int) -> LightGBMScorer:
    """Convert a gradient boosting model with a constant initial prediction. Raises KeyError for unsupported losses."""
    baseline = np.ravel(boosting._raw_predict_init(np.zeros((1, features)))).tolist()
    outputs = len(baseline)
    objective = OBJECTIVES[type(boosting._loss).__name__].format(outputs)
    blocks = [_one_leaf(value) for value in baseline]
    blocks += [_tree(tree.tree_, 0, boosting.learning_rate) for iteration in boosting.estimators_ for tree in iteration]
    text = lightgbm_text(blocks, features, outputs, objective)
    return LightGBMScorer(text, features, outputs, float32=True, binary_probability="binary" in objective)


def boosted_trees(boosting: Any, features: int) -> LightGBMScorer:
    """Convert a fitted histogram gradient boosting model; its baseline becomes a one-leaf tree.

    Raises ValueError for categorical splits and KeyError for unsupported losses.
    """
    baseline = np.ravel(boosting._baseline_prediction).tolist()
    outputs = len(baseline)
    trees = [tree.nodes for iteration in boosting._predictors for tree in iteration]
    if any(nodes["is_categorical"].any() for nodes in trees):
        raise ValueError("categorical splits are not supported")
    objective = OBJECTIVES[type(boosting._loss).__name__].format(outputs)
    blocks = [_one_leaf(value) for value in baseline] + [_histogram_tree(nodes) for nodes in trees]
    text = lightgbm_text(blocks, features, outputs, objective)
    return LightGBMScorer(text, features, outputs, binary_probability="binary" in objective)


OBJECTIVES = {
    "HalfBinomialLoss": "objective=binary sigmoid:1",
    "HalfMultinomialLoss": "objective=multiclass num_class:{}",
    "HalfSquaredError": "objective=regression",
    "HuberLoss": "objective=huber",
    "AbsoluteError": "objective=regression_l1",
    "PinballLoss": "objective=quantile",
    "HalfPoissonLoss": "objective=poisson",
    "HalfGammaLoss": "objective=gamma",
}
"""LightGBM's objective with the same link function for each scikit-learn loss."""

DEFAULT_LEFT, MISSING_IS_NAN = 2, 8


def _one_leaf(value: float) -> str:
    return "\n".join(
        ["num_leaves=1", "num_cat=0", _line("leaf_value", np.array([value])), "is_linear=0", "shrinkage=1", "", ""]
    )


def _histogram_tree(nodes: np.ndarray) -> str:
    leaf = nodes["is_leaf"].astype(bool)
    number = np.empty(len(nodes), dtype=int)
    number[~leaf], number[leaf] = np.arange((~leaf).sum()), ~np.arange(leaf.sum())
    inner = nodes[~leaf]
    lines = [f"num_leaves={leaf.sum()}", "num_cat=0"]
    if len(inner):
        lines += [
            _line("split_feature", inner["feature_idx"]),
            _line("split_gain", np.zeros(len(inner), dtype=int)),
            _line("threshold", inner["num_threshold"]),
            _line("decision_type", MISSING_IS_NAN + DEFAULT_LEFT * inner["missing_go_to_left"].astype(int)),
            _line("left_child", number[inner["left"]]),
            _line("right_child", number[inner["right"]]),
        ]
    lines += [_line("leaf_value", nodes["value"][leaf]), _line("leaf_cover", nodes["count"][leaf])]
    return "\n".join([*lines, "is_linear=0", "shrinkage=1", "", ""])


def lightgbm_text(blocks: list[str], features: int, outputs: int, objective: str) -> str:
    """Return a model file with these trees, `outputs` per iteration; the header line `objective` says how to combine them."""
    head = [
        "tree",
        "version=v4",
        f"num_class={outputs}",
        f"num_tree_per_iteration={outputs}",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        objective,
        f"feature_names={' '.join(f'f{index}' for index in range(features))}",
        f"feature_infos={' '.join(['none'] * features)}",
    ]
    numbered = [f"Tree={index}\n{block}" for index, block in enumerate(blocks)]
    return "\n".join([*head, "", *numbered, "end of trees", ""])


def _tree(tree: Any, output: int, rate: float = 1.0) -> str:
    """Return one tree, its leaves multiplied by `rate`. LightGBM numbers inner nodes from 0 up and leaves from -1 down."""
    nodes = tree.__getstate__()["nodes"]
    inner = np.flatnonzero(tree.children_left >= 0)
    leaves = np.flatnonzero(tree.children_left < 0)
    number = np.empty(tree.node_count, dtype=int)
    number[inner] = np.arange(len(inner))
    number[leaves] = ~np.arange(len(leaves))
    lines = [f"num_leaves={len(leaves)}", "num_cat=0"]
    if len(inner):
        lines += [
            _line("split_feature", tree.feature[inner]),
            _line("split_gain", np.zeros(len(inner), dtype=int)),
            _line("threshold", tree.threshold[inner]),
            _line("decision_type", MISSING_IS_NAN + DEFAULT_LEFT * nodes["missing_go_to_left"][inner].astype(int)),
            _line("left_child", number[tree.children_left[inner]]),
            _line("right_child", number[tree.children_right[inner]]),
        ]
    lines.append(_line("leaf_value", rate * tree.value[leaves, 0, output]))
    lines.append(_line("leaf_cover", tree.weighted_n_node_samples[leaves]))
    return "\n".join([*lines, "is_linear=0", "shrinkage=1", "", ""])


def _line(name: str, numbers: Iterable[Any]) -> str:
    return f"{name}={' '.join(repr(number.item()) for number in numbers)}"

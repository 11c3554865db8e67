"""Convert tree ensembles to LightGBM's text format, keeping the splits, leaves and summation order."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from podium.models.scorers import LightGBMScorer


@dataclass(frozen=True, slots=True)
class TreeNodes:
    """The nodes of one tree, the root first: `left` and `right` are indices, or negative for a leaf.

    A row goes left if its feature is not above the threshold, or, at the nodes in `categories`, if it is one of these codes.
    `value` has the shape (nodes, outputs), and `cover` is the weight of the training rows.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    cover: np.ndarray
    categories: Mapping[int, Sequence[int]] = field(default_factory=dict)


def forest_trees(forest: Any, features: int) -> LightGBMScorer:
    """Convert a fitted forest, whose scores are the mean of its trees' leaves.

    Thresholds and leaves are written at full precision. Features are rounded to float32, as in scikit-learn.
    """
    outputs = int(getattr(forest, "n_classes_", 1))
    trees = [sklearn_nodes(tree.tree_) for tree in forest.estimators_]
    blocks = [tree_text(nodes, output) for nodes in trees for output in range(outputs)]
    return LightGBMScorer(lightgbm_text(blocks, features, outputs, "average_output"), features, outputs, float32=True)


def gradient_trees(boosting: Any, features: int) -> LightGBMScorer:
    """Convert a gradient boosting model with a constant initial prediction. Raises KeyError for unsupported losses."""
    baseline = np.ravel(boosting._raw_predict_init(np.zeros((1, features)))).tolist()
    outputs = len(baseline)
    objective = OBJECTIVES[type(boosting._loss).__name__].format(outputs)
    blocks = [leaf_text(value) for value in baseline]
    trees = [sklearn_nodes(tree.tree_) for iteration in boosting.estimators_ for tree in iteration]
    blocks += [tree_text(nodes, 0, boosting.learning_rate) for nodes in trees]
    text = lightgbm_text(blocks, features, outputs, objective)
    return LightGBMScorer(text, features, outputs, float32=True, binary_probability="binary" in objective)


def boosted_trees(boosting: Any, features: int) -> LightGBMScorer:
    """Convert a fitted histogram gradient boosting model; its baseline becomes a one-leaf tree.

    Raises KeyError for unsupported losses.
    """
    baseline = np.ravel(boosting._baseline_prediction).tolist()
    outputs = len(baseline)
    trees = histogram_nodes(boosting)
    objective = OBJECTIVES[type(boosting._loss).__name__].format(outputs)
    blocks = [leaf_text(value) for value in baseline] + [tree_text(nodes, 0) for nodes in trees]
    text = lightgbm_text(blocks, features, outputs, objective)
    return LightGBMScorer(text, features, outputs, binary_probability="binary" in objective)


OBJECTIVES = {
    "HalfBinomialLoss": "objective=binary sigmoid:1",
    "ExponentialLoss": "objective=binary sigmoid:2",
    "HalfMultinomialLoss": "objective=multiclass num_class:{}",
    "HalfSquaredError": "objective=regression",
    "HuberLoss": "objective=huber",
    "AbsoluteError": "objective=regression_l1",
    "PinballLoss": "objective=quantile",
    "HalfPoissonLoss": "objective=poisson",
    "HalfGammaLoss": "objective=gamma",
}
"""LightGBM's objective with the same link function for each scikit-learn loss."""

CATEGORICAL, DEFAULT_LEFT, MISSING_IS_NAN = 1, 2, 8


def sklearn_nodes(tree: Any) -> TreeNodes:
    """Return the nodes of a fitted `tree_`."""
    missing_left = tree.__getstate__()["nodes"]["missing_go_to_left"].astype(bool)
    values, cover = tree.value[:, 0, :], tree.weighted_n_node_samples
    return TreeNodes(tree.feature, tree.threshold, tree.children_left, tree.children_right, missing_left, values, cover)


def histogram_nodes(boosting: Any) -> list[TreeNodes]:
    """Return the nodes of a fitted histogram gradient boosting model, by iteration and output."""
    known: dict[int, np.ndarray] = {}
    is_categorical = np.asarray(boosting._bin_mapper.is_categorical_, dtype=bool)
    if is_categorical.any():
        bitsets, positions = boosting._bin_mapper.make_known_categories_bitsets()
        known = {feature: bitsets[positions[feature]] for feature in np.flatnonzero(is_categorical).tolist()}
    return [_histogram_tree(tree, known) for iteration in boosting._predictors for tree in iteration]


def _histogram_tree(tree: Any, known: Mapping[int, np.ndarray]) -> TreeNodes:
    """Convert a tree. A missing or unknown category always goes right here, so some categorical splits are swapped."""
    nodes = tree.nodes
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(int)) for side in ("left", "right"))
    categories = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf).tolist():
        codes = set(_codes(tree.raw_left_cat_bitsets[nodes["bitset_idx"][node]]))
        if nodes["missing_go_to_left"][node]:
            codes = set(_codes(known[int(nodes["feature_idx"][node])])) - codes
            left[node], right[node] = right[node], left[node]
        categories[node] = sorted(codes)
    return TreeNodes(
        nodes["feature_idx"].astype(int),
        np.where(np.isin(np.arange(len(nodes)), list(categories)), 0.0, nodes["num_threshold"]),
        left,
        right,
        nodes["missing_go_to_left"].astype(bool),
        nodes["value"][:, None],
        nodes["count"],
        categories,
    )


def _codes(words: np.ndarray) -> list[int]:
    """Return the positions of the bits that are set in 32-bit words."""
    return np.flatnonzero(np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")).tolist()


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


def leaf_text(value: float) -> str:
    """Return a tree of one leaf."""
    return "\n".join(
        ["num_leaves=1", "num_cat=0", _line("leaf_value", np.array([value])), "is_linear=0", "shrinkage=1", "", ""]
    )


def tree_text(nodes: TreeNodes, output: int, rate: float = 1.0) -> str:
    """Return one tree, its leaves multiplied by `rate`. LightGBM numbers inner nodes from 0 up and leaves from -1 down."""
    inner, leaves = np.flatnonzero(nodes.left >= 0), np.flatnonzero(nodes.left < 0)
    number = np.empty(len(nodes.left), dtype=int)
    number[inner] = np.arange(len(inner))
    number[leaves] = ~np.arange(len(leaves))
    by_category = [node for node in inner.tolist() if node in nodes.categories]
    lines = [f"num_leaves={len(leaves)}", f"num_cat={len(by_category)}"]
    if len(inner):
        threshold, kind = nodes.threshold.astype(float), MISSING_IS_NAN + DEFAULT_LEFT * nodes.missing_left.astype(int)
        threshold[by_category], kind[by_category] = np.arange(len(by_category)), MISSING_IS_NAN + CATEGORICAL
        lines += [
            _line("split_feature", nodes.feature[inner]),
            _line("split_gain", np.zeros(len(inner), dtype=int)),
            _line("threshold", threshold[inner]),
            _line("decision_type", kind[inner]),
            _line("left_child", number[nodes.left[inner]]),
            _line("right_child", number[nodes.right[inner]]),
        ]
        lines += _category_lines([nodes.categories[node] for node in by_category])
    lines.append(_line("leaf_value", rate * nodes.value[leaves, output]))
    lines.append(_line("leaf_cover", nodes.cover[leaves]))
    return "\n".join([*lines, "is_linear=0", "shrinkage=1", "", ""])


def _category_lines(sets: Sequence[Sequence[int]]) -> list[str]:
    """Return the bit sets of the categories that go left."""
    words = []
    for codes in sets:
        bits = np.zeros(32 * (max(codes, default=0) // 32 + 1), dtype=np.uint8)
        bits[list(codes)] = 1
        words.append(np.packbits(bits, bitorder="little").view("<u4"))
    if not words:
        return []
    borders = np.cumsum([0, *map(len, words)])
    return [_line("cat_boundaries", borders), _line("cat_threshold", np.concatenate(words))]


def _line(name: str, numbers: np.ndarray) -> str:
    return f"{name}={' '.join(map(repr, numbers.tolist()))}"


KEPT_LINES = re.compile(
    r"^(?:num_leaves|num_cat|split_feature|threshold|decision_type|left_child|right_child|leaf_count|leaf_cover|leaf_value|"
    r"cat_boundaries|cat_threshold|is_linear)=.*\n",
    re.MULTILINE,
)


def weighted_boosters(parts: Sequence[tuple[LightGBMScorer, float]]) -> LightGBMScorer:
    """Return one scorer whose sums before the link are the weighted sums of those of several with the same objective."""
    first = parts[0][0]
    objective = next(line for line in first.text.split("\n") if line.startswith("objective="))
    blocks = [block for scorer, weight in parts for block in _weighted_trees(scorer.text, weight)]
    per_iteration = int(next(line for line in first.text.split("\n") if line.startswith("num_class=")).partition("=")[2])
    return replace(first, text=lightgbm_text(blocks, first.features, per_iteration, objective))


def _weighted_trees(text: str, weight: float) -> list[str]:
    trees = re.split(r"^Tree=\d+\n", text.partition("end of trees")[0], flags=re.MULTILINE)[1:]
    return ["".join(KEPT_LINES.findall(tree)) + "shrinkage=1\n\n" for tree in map(functools.partial(_scaled, weight), trees)]


def _scaled(weight: float, tree: str) -> str:
    def scale(match: re.Match[str]) -> str:
        return _line("leaf_value", weight * np.array(match[1].split(), dtype=float))

    return re.sub(r"^leaf_value=(.*)$", scale, tree, flags=re.MULTILINE)

"""Trees in LightGBM's text format as arrays for the kernels.

All trees are handled together, level by level, so that a model of a thousand trees loads in well under a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

MAX_FEATURES = 65_534
MAX_MASKED_LEAVES = 32
NUMBER, ZERO_IS_MISSING, CATEGORY = 0, 1, 2
LINKS = {"identity": 0, "logistic": 1, "softmax": 2, "exp": 3, "square": 4, "log1p_exp": 5}
LINK_NAMES = tuple(LINKS)
LINK_OF_OBJECTIVE = {
    "binary": "logistic",
    "cross_entropy": "logistic",
    "cross_entropy_lambda": "log1p_exp",
    "multiclassova": "logistic",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}
STRUCTURE = (
    *("num_leaves", "num_cat", "split_feature", "threshold", "decision_type", "left_child", "right_child"),
    *("cat_boundaries", "cat_threshold"),
)
NODE = np.dtype([("number", "f8"), ("left", "i4"), ("feature", "u2"), ("kind", "u1"), ("missing_right", "u1")])
SPLIT = np.dtype([("tree", "i4"), ("kept", "u4"), ("missing_right", "i4")])


class UnsupportedTrees(Exception):
    """The kernels cannot score these trees; the message says why."""


@dataclass(frozen=True, slots=True)
class TreeArrays:
    """The fields of `Forest` in forest.c."""

    trees: int
    outputs: int
    leaf_outputs: int
    features: int
    is_plain: bool
    has_masks: bool
    divisor: int
    link: int
    sigmoid: float
    nodes: np.ndarray
    roots: np.ndarray
    depths: np.ndarray
    bits: np.ndarray
    splits: np.ndarray
    thresholds: np.ndarray
    split_ends: np.ndarray
    leaves: np.ndarray
    leaf_starts: np.ndarray
    leaf_values: np.ndarray
    leaf_positions: np.ndarray
    """The index in `nodes` of each leaf, in the order of the text; the kernels do not need it."""


def tree_arrays(text: str, share: bool = True) -> TreeArrays:
    """Convert a text that passed `check_trees`. Raises UnsupportedTrees.

    With `share`, trees of several outputs that differ only in the values of their leaves, as in scikit-learn's forests, become
    one tree, whose leaves are numbered and have a value for each output in `leaf_values`.
    """
    header, trees = _fields(text.partition("\n\n")[0]), _trees(text)
    features, outputs = int(header["max_feature_idx"]) + 1, int(header["num_class"])
    if features > MAX_FEATURES:
        raise UnsupportedTrees(f"more than {MAX_FEATURES} features")
    is_shared = share and outputs > 1 and all(_same_splits(trees[i : i + outputs]) for i in range(0, len(trees), outputs))
    divisor = len(trees) // outputs if "average_output" in header else 1
    leaf_values = np.empty((0, 1))
    if is_shared:
        leaf_values = np.column_stack([_numbers(trees[output::outputs], "leaf_value", "f8") for output in range(outputs)])
        trees = trees[::outputs]
    splits = _Splits.parse(trees)
    levels = _levels(splits)
    below = _leaves_below(splits, levels)
    layout = _lay_out(splits, levels, below)
    is_plain = not splits.kind.any()
    has_masks = is_plain and not is_shared and int(splits.leaf_counts.max()) <= MAX_MASKED_LEAVES
    masks = _masks(splits, levels, below, features) if has_masks else _Masks()
    link, sigmoid = _link(header.get("objective", ""))
    return TreeArrays(
        trees=len(trees),
        outputs=outputs,
        leaf_outputs=outputs if is_shared else 1,
        features=features,
        is_plain=is_plain,
        has_masks=has_masks,
        divisor=divisor,
        link=LINKS[link],
        sigmoid=sigmoid,
        nodes=_nodes(splits, layout, features, np.arange(len(leaf_values)) if is_shared else splits.leaf_values),
        roots=layout.roots,
        depths=layout.depths,
        bits=splits.bits,
        splits=masks.splits,
        thresholds=masks.thresholds,
        split_ends=masks.split_ends,
        leaves=masks.leaves,
        leaf_starts=splits.leaf_starts,
        leaf_values=leaf_values,
        leaf_positions=layout.leaf_positions,
    )


def _same_splits(trees: Sequence[dict[str, str]]) -> bool:
    first = trees[0]
    return all(tree.get(name) == first.get(name) for tree in trees[1:] for name in STRUCTURE)


def leaf_covers(text: str) -> np.ndarray:
    """Return the number of training rows of each leaf, in the order of the text. Raises UnsupportedTrees if it lacks them.

    `leaf_cover`, which LightGBM ignores, may hold weights instead.
    """
    covers: list[str] = []
    for tree in _trees(text):
        line = "1" if tree["num_leaves"] == "1" else tree.get("leaf_cover") or tree.get("leaf_count")
        if not line:
            raise UnsupportedTrees("no numbers of training rows")
        covers += line.split(" ")
    try:
        numbers = np.array(covers, "f8")
    except ValueError:
        numbers = np.array([np.nan])
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise UnsupportedTrees("invalid numbers of training rows")
    return numbers


def _link(objective: str) -> tuple[str, float]:
    """Return the function of the sums, and the factor of a logistic one. Raises UnsupportedTrees for unusual parameters."""
    name, *parameters = objective.split(" ")
    link = LINK_OF_OBJECTIVE.get(name, "identity")
    if name in ("binary", "multiclassova"):
        sigmoids = [float(text.partition(":")[2]) for text in parameters if text.startswith("sigmoid:")]
        if len(sigmoids) == 1 and "sqrt" not in parameters:
            return link, sigmoids[0]
    elif name == "regression" and parameters == ["sqrt"]:
        return "square", 1.0
    elif "sqrt" not in parameters and not (link != "identity" and "sigmoid" in objective):
        return link, 1.0
    raise UnsupportedTrees("an objective with unusual parameters")


def _trees(text: str) -> list[dict[str, str]]:
    body = text.partition("\n\n")[2].partition("end of trees\n")[0]
    return [_fields(block) for block in re.split(r"^(?=Tree=)", body, flags=re.MULTILINE) if block]


def _fields(lines: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in lines.split("\n") if line)


def _numbers(trees: Sequence[dict[str, str]], name: str, dtype: str) -> np.ndarray:
    """Return a field of all trees, one after another; a tree of one leaf has no splits."""
    return np.array(" ".join(tree[name] for tree in trees if tree.get(name)).split(), "f8").astype(dtype)


@dataclass(frozen=True, slots=True)
class _Splits:
    """The splits and leaves of all trees, one tree after another; `left` and `right` index splits, or ~leaves."""

    feature: np.ndarray
    threshold: np.ndarray
    kind: np.ndarray
    missing_right: np.ndarray
    left: np.ndarray
    right: np.ndarray
    tree: np.ndarray
    split_starts: np.ndarray
    leaf_counts: np.ndarray
    leaf_starts: np.ndarray
    leaf_values: np.ndarray
    bits: np.ndarray

    @classmethod
    def parse(cls, trees: Sequence[dict[str, str]]) -> _Splits:
        leaf_counts = np.array([int(tree["num_leaves"]) for tree in trees])
        leaf_starts = np.cumsum(leaf_counts) - leaf_counts
        split_starts = np.cumsum(leaf_counts - 1) - (leaf_counts - 1)
        of_tree = np.repeat(np.arange(len(trees)), leaf_counts - 1)
        with_splits = [tree for tree in trees if int(tree["num_leaves"]) > 1]
        decision = _numbers(with_splits, "decision_type", "i8")
        threshold = _numbers(with_splits, "threshold", "f8")
        left, right = (_numbers(with_splits, f"{side}_child", "i8") for side in ("left", "right"))
        left, right = (
            np.where(child < 0, child - leaf_starts[of_tree], child + split_starts[of_tree]) for child in (left, right)
        )
        missing_type = decision >> 2 & 3  # none: NaN is 0; zero: 0 and NaN are missing; NaN
        kind = np.where(decision & 1, CATEGORY, np.where(missing_type == 1, ZERO_IS_MISSING, NUMBER))
        missing_right = np.where(missing_type == 0, ~(threshold >= 0.0), decision & 2 == 0)
        bits, positions = _category_bits(trees)
        is_category = kind == CATEGORY
        threshold[is_category] = positions[(threshold[is_category]).astype(int) + _set_starts(trees)[of_tree[is_category]]]
        feature = _numbers(with_splits, "split_feature", "i8")
        values = _numbers(trees, "leaf_value", "f8")
        return cls(
            feature, threshold, kind, missing_right, left, right, of_tree, split_starts, leaf_counts, leaf_starts, values, bits
        )


def _set_starts(trees: Sequence[dict[str, str]]) -> np.ndarray:
    counts = np.array([int(tree["num_cat"]) for tree in trees])
    return np.asarray(np.cumsum(counts) - counts)


def _category_bits(trees: Sequence[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return every bit set, preceded by its number of words, and the position of each set."""
    words: list[int] = []
    positions: list[int] = []
    for tree in trees:
        if not int(tree["num_cat"]):
            continue
        borders, bits = ([int(number) for number in tree[name].split()] for name in ("cat_boundaries", "cat_threshold"))
        for start, end in pairwise(borders):
            positions.append(len(words))
            words += [end - start, *bits[start:end]]
    return np.array(words or [0], "u4"), np.array(positions, "f8")


def _levels(splits: _Splits) -> list[np.ndarray]:
    """Return the splits of each depth."""
    level, levels = splits.split_starts[splits.leaf_counts > 1], []
    while len(level):
        levels.append(level)
        children = np.concatenate([splits.left[level], splits.right[level]])
        level = children[children >= 0]
    return levels


def _leaves_below(splits: _Splits, levels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of leaves on the left and on the right side of each split."""
    total = np.zeros(len(splits.feature), "i8")
    sides = np.zeros(len(splits.feature), "i8"), np.zeros(len(splits.feature), "i8")
    for level in reversed(levels):
        for child, side in zip((splits.left[level], splits.right[level]), sides, strict=True):
            side[level] = np.where(child < 0, 1, total[np.maximum(child, 0)])
        total[level] = sides[0][level] + sides[1][level]
    return sides


@dataclass(frozen=True, slots=True)
class _Layout:
    """Positions in the array of nodes.

    Each tree is in one piece, its nodes after their parent and siblings side by side. The larger side of a split comes first,
    so that a common path is close together in memory.
    """

    split_positions: np.ndarray
    leaf_positions: np.ndarray
    roots: np.ndarray
    depths: np.ndarray


def _lay_out(splits: _Splits, levels: list[np.ndarray], below: tuple[np.ndarray, np.ndarray]) -> _Layout:
    has_splits = splits.leaf_counts > 1
    roots = np.cumsum(2 * splits.leaf_counts - 1) - (2 * splits.leaf_counts - 1)
    split_positions, first_child = np.zeros(len(splits.feature), "i8"), np.zeros(len(splits.feature), "i8")
    leaf_positions = np.zeros(len(splits.leaf_values), "i8")
    leaf_positions[splits.leaf_starts[~has_splits]] = roots[~has_splits]
    starts = splits.split_starts[has_splits]
    split_positions[starts], first_child[starts] = roots[has_splits], roots[has_splits] + 1
    depths = np.zeros(len(splits.leaf_counts), "i4")
    for depth, level in enumerate(levels, 1):
        depths[splits.tree[level]] = depth
        left_below, right_below = (2 * (side[level] - 1) for side in below)
        is_left_first = left_below >= right_below
        next_left = first_child[level] + 2 + np.where(is_left_first, 0, right_below)
        next_right = first_child[level] + 2 + np.where(is_left_first, left_below, 0)
        for child, position, next_child in (
            (splits.left[level], first_child[level], next_left),
            (splits.right[level], first_child[level] + 1, next_right),
        ):
            is_leaf = child < 0
            leaf_positions[~child[is_leaf]] = position[is_leaf]
            split_positions[child[~is_leaf]], first_child[child[~is_leaf]] = position[~is_leaf], next_child[~is_leaf]
    return _Layout(split_positions, leaf_positions, roots.astype("i4"), depths)


def _nodes(splits: _Splits, layout: _Layout, features: int, leaf_numbers: np.ndarray) -> np.ndarray:
    nodes = np.zeros(len(splits.feature) + len(splits.leaf_values), NODE)
    at, leaves = layout.split_positions, layout.leaf_positions
    is_leaf = splits.left < 0
    left = np.where(is_leaf, leaves[np.where(is_leaf, ~splits.left, 0)], 0)
    left[~is_leaf] = at[splits.left[~is_leaf]]
    nodes["number"][at], nodes["left"][at], nodes["feature"][at] = splits.threshold, left, splits.feature
    nodes["kind"][at], nodes["missing_right"][at] = splits.kind, splits.missing_right
    nodes["number"][leaves], nodes["left"][leaves], nodes["feature"][leaves] = leaf_numbers, leaves, features
    return nodes


@dataclass(frozen=True, slots=True)
class _Masks:
    """The splits by feature and threshold, the end of each feature's splits, and the leaves from left to right."""

    splits: np.ndarray = field(default_factory=lambda: np.empty(0, SPLIT))
    thresholds: np.ndarray = field(default_factory=lambda: np.empty(0))
    split_ends: np.ndarray = field(default_factory=lambda: np.empty(0, "i4"))
    leaves: np.ndarray = field(default_factory=lambda: np.empty(0))


def _masks(splits: _Splits, levels: list[np.ndarray], below: tuple[np.ndarray, np.ndarray], features: int) -> _Masks:
    start = np.zeros(len(splits.feature), "i8")
    rank = np.zeros(len(splits.leaf_values), "i8")
    left_count = below[0]
    for level in levels:
        for side, offset in ((splits.left, 0), (splits.right, left_count[level])):
            child, first = side[level], start[level] + offset
            rank[~child[child < 0]], start[child[child >= 0]] = first[child < 0], first[child >= 0]
    lost = ((np.uint64(1) << left_count.astype("u8")) - np.uint64(1)) << start.astype("u8")
    order = np.lexsort((splits.threshold, splits.feature))
    masks = np.zeros(len(order), SPLIT)
    masks["tree"], masks["kept"] = splits.tree[order], ~lost[order].astype("u4")
    masks["missing_right"] = splits.missing_right[order]
    ends = np.searchsorted(splits.feature[order], np.arange(features), side="right").astype("i4")
    leaves = np.zeros(len(splits.leaf_values))
    leaves[np.repeat(splits.leaf_starts, splits.leaf_counts) + rank] = splits.leaf_values
    return _Masks(masks, splits.threshold[order], ends, leaves)

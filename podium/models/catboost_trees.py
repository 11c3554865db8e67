"""The splits and trees of CatBoost models, and the conversion of models that have numbers only.

CatBoost compares float32(x) with borders of 32 bits, so scorers round the features first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.models.lightgbm_export import TreeNodes, leaf_text, lightgbm_text, tree_text
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix

MAX_DEPTH = 16
"""The greatest depth of a symmetric tree in CatBoost."""


@dataclass(frozen=True, slots=True)
class Split:
    """True for a number above the border, or for one of some categories.

    With `missing`, it is true for a missing number, or, in trees only, for the other categories instead.
    """

    column: int
    border: float = 0.0
    missing: bool = False
    codes: tuple[int, ...] | None = None

    def holds(self, matrix: FloatMatrix) -> np.ndarray:
        cells = matrix[:, self.column]
        if self.codes is not None:
            return np.isin(cells, self.codes) != self.missing
        return np.where(np.isnan(cells), self.missing, cells > self.border)


def number_split(entry: Mapping[str, Any], border: float) -> Split:
    """Return the split of a column at one of its borders; `entry` describes the column. Raises KeyError."""
    missing = bool(entry["has_nans"]) and entry["nan_value_treatment"] == "AsTrue"
    return Split(entry["flat_feature_index"], float(np.float32(border)), missing)


NO_SPLIT = Split(0)
"""Stands for the split of a leaf."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree: the split of each node, or -1 for a leaf; the nodes to which no and yes lead; values and weights of leaves."""

    split: np.ndarray
    no: np.ndarray
    yes: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def nodes(self, splits: Sequence[Split], scale: float, output: int) -> TreeNodes:
        """Convert the tree. Rows of a set go left in `TreeNodes`, and so do numbers up to the border."""
        asked = [splits[number] if number >= 0 else NO_SPLIT for number in self.split.tolist()]
        categories = {node: split.codes for node, split in enumerate(asked) if split.codes is not None}
        yes_left = np.array([split.codes is not None and not split.missing for split in asked])
        return TreeNodes(
            np.array([split.column for split in asked]),
            np.array([split.border for split in asked]),
            np.where(yes_left, self.yes, self.no),
            np.where(yes_left, self.no, self.yes),
            np.array([not split.missing for split in asked]),
            scale * self.values[:, output : output + 1],
            self.weights,
            categories,
        )

    def without_equal_leaves(self) -> Tree:
        """Turn each node whose leaves all have the same values, such as 0 where there were no rows, into one leaf."""
        split, values, weights = self.split.copy(), self.values.copy(), self.weights.copy()
        while True:
            inner = np.flatnonzero(split >= 0)
            no, yes = self.no[inner], self.yes[inner]
            is_equal = (split[no] < 0) & (split[yes] < 0) & (values[no] == values[yes]).all(axis=1)
            if not is_equal.any():
                return Tree(split, self.no, self.yes, values, weights)._reachable()
            merged = inner[is_equal]
            values[merged], weights[merged] = values[no[is_equal]], weights[no[is_equal]] + weights[yes[is_equal]]
            split[merged] = -1

    def _reachable(self) -> Tree:
        """Number the nodes that can be reached from the root in their order."""
        is_reached = np.zeros(len(self.split), dtype=bool)
        level = np.array([0])
        while len(level):
            is_reached[level] = True
            level = level[self.split[level] >= 0]
            level = np.concatenate([self.no[level], self.yes[level]])
        number, split = np.cumsum(is_reached) - 1, self.split[is_reached]
        no, yes = (np.where(split < 0, -1, number[ends[is_reached]]) for ends in (self.no, self.yes))
        return Tree(split, no, yes, self.values[is_reached], self.weights[is_reached])


def read_tree(tree: Mapping[str, Any]) -> Tree:
    """Read a symmetric or a grown tree. Raises ValueError, KeyError or TypeError."""
    return (_symmetric(tree) if "leaf_values" in tree else _grown(tree)).without_equal_leaves()


def _symmetric(tree: Mapping[str, Any]) -> Tree:
    """Expand a tree with one split per level, the last split at the root, as CatBoost does for its SHAP values.

    The answers are the bits of the leaf's number, that of the first split being the lowest one.
    """
    numbers = [_split_number(split) for split in reversed(tree["splits"] or ())]
    if len(numbers) > MAX_DEPTH:
        raise ValueError("a tree is too deep")
    leaves = 1 << len(numbers)
    values = np.asarray(tree["leaf_values"], dtype=float).reshape(leaves, -1)
    weights = np.asarray(tree.get("leaf_weights", np.ones(leaves)), dtype=float).reshape(leaves)
    no, ends, inner = 2 * np.arange(leaves - 1) + 1, np.full(leaves, -1), np.zeros((leaves - 1, values.shape[1]))
    return Tree(
        np.append(np.repeat(np.array(numbers, dtype=int), 1 << np.arange(len(numbers))), ends),
        np.append(no, ends),
        np.append(no + 1, ends),
        np.vstack([inner, values]),
        np.append(np.zeros(leaves - 1), weights),
    )


def _grown(tree: Mapping[str, Any]) -> Tree:
    """Number the nodes of a nested tree from the root on."""
    nodes, numbers, no = [tree], [], []
    for node in nodes:
        is_leaf = "split" not in node
        numbers.append(-1 if is_leaf else _split_number(node["split"]))
        no.append(-1 if is_leaf else len(nodes))
        nodes += [] if is_leaf else [node["left"], node["right"]]
    leaf_values = [np.ravel(node["value"]) for node in nodes if "split" not in node]
    values = np.zeros((len(nodes), len(leaf_values[0])))
    split, first = np.array(numbers), np.array(no)
    values[split < 0] = np.array(leaf_values, dtype=float)
    weights = np.array([node.get("weight", 0.0) for node in nodes], dtype=float)
    return Tree(split, first, np.where(first < 0, -1, first + 1), values, weights)


def _split_number(split: Mapping[str, Any]) -> int:
    number = int(split["split_index"])
    if number < 0:
        raise ValueError("a tree has a split that does not exist")
    return number


def catboost_trees(content: Mapping[str, Any], features: int, objective: str, rounds: int | None = None) -> LightGBMScorer:
    """Convert the first rounds of a model of numbers, given as CatBoost's JSON; `objective` is LightGBM's with the same link.

    The initial sums become trees of one leaf.
    """
    columns = content["features_info"]["float_features"]
    splits = [number_split(column, border) for column in columns for border in column["borders"] or ()]
    scale, base = content["scale_and_bias"]
    trees = [read_tree(tree) for tree in content["oblivious_trees"][:rounds]]
    blocks = [leaf_text(value) for value in base]
    blocks += [tree_text(tree.nodes(splits, scale, output), 0) for tree in trees for output in range(len(base))]
    text = lightgbm_text(blocks, features, len(base), objective)
    return LightGBMScorer(text, features, len(base), float32=True, binary_probability="binary" in objective)

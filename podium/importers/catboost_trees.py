"""The splits and trees of CatBoost models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from podium.importers.graph_builder import GraphBuilder
from podium.models.lightgbm_export import TreeNodes
from podium.schema.arrays import FloatMatrix

MAX_DEPTH = 16
"""The greatest depth of a symmetric tree in CatBoost."""


@dataclass(frozen=True, slots=True)
class Split:
    """True for a number above the border, or for one of some categories.

    With `missing`, it is true for a missing number, and for the other categories instead.
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

    def add_to(self, graph: GraphBuilder, x: str) -> str:
        cells = graph.add("Gather", x, graph.integers([self.column]), axis=1)
        if self.codes is not None:
            hits = graph.add("Equal", cells, np.array([self.codes or (-1,)]))
            return graph.add("ReduceMax", _integer(graph, hits), graph.integers([1]), keepdims=1)
        above = graph.add("Greater", cells, self.border)
        return _integer(graph, graph.add("Or", above, graph.add("IsNaN", cells)) if self.missing else above)


NO_SPLIT = Split(0)
"""Stands for the split of a leaf."""


def _integer(graph: GraphBuilder, condition: str) -> str:
    return graph.add("Cast", condition, to=TensorProto.INT64)


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


def read_tree(tree: Mapping[str, Any]) -> Tree:
    """Read a symmetric or a grown tree. Raises ValueError, KeyError or TypeError."""
    return _symmetric(tree) if "leaf_values" in tree else _grown(tree)


def _symmetric(tree: Mapping[str, Any]) -> Tree:
    """Expand a tree with one split per level: the answers, as bits from the lowest one on, are the number of the leaf."""
    numbers = np.array([split["split_index"] for split in tree["splits"] or ()], dtype=int)
    depth = len(numbers)
    if depth > MAX_DEPTH or (numbers < 0).any():
        raise ValueError("a tree is too deep")
    leaves = 1 << depth
    values = np.asarray(tree["leaf_values"], dtype=float).reshape(leaves, -1)
    level = np.repeat(np.arange(depth), 1 << np.arange(depth))
    no = np.arange(leaves - 1) + (1 << level)
    ends = np.full(leaves, -1)
    inner = np.zeros((leaves - 1, values.shape[1]))
    weights = np.asarray(tree.get("leaf_weights", np.ones(leaves)), dtype=float).reshape(leaves)
    return Tree(
        np.append(numbers[level], ends),
        np.append(no, ends),
        np.append(no + (1 << level), ends),
        np.vstack([inner, values]),
        np.append(np.zeros(leaves - 1), weights),
    )


def _grown(tree: Mapping[str, Any]) -> Tree:
    """Number the nodes of a nested tree from the root on."""
    nodes, split, children = [tree], [], []
    for node in nodes:
        if "split" in node:
            split.append(abs(int(node["split"]["split_index"])))
            children.append((len(nodes), len(nodes) + 1))
            nodes += [node["left"], node["right"]]
        else:
            split.append(-1)
            children.append((-1, -1))
    values = [np.ravel(node["value"]) if "value" in node else None for node in nodes]
    width = max(len(value) for value in values if value is not None)
    no, yes = np.array(children).T
    return Tree(
        np.array(split),
        no,
        yes,
        np.array([np.zeros(width) if value is None else value for value in values], dtype=float),
        np.array([node.get("weight", 0.0) for node in nodes], dtype=float),
    )

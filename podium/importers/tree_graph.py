"""Sums of trees as the ONNX operator TreeEnsemble, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from podium.importers.graph_builder import Tensor
from podium.models.lightgbm_export import TreeNodes

AT_MOST, MEMBER = 0, 6
"""Modes of a node: x ≤ split, and x in a set."""

WeightedTree = tuple[TreeNodes, int, int, float]
"""A tree, which of its outputs counts, the target to which it is added, and a factor."""


def sum_of_trees(source: Tensor, trees: Sequence[WeightedTree], base: Sequence[float]) -> Tensor:
    """Return the sum of the weighted leaves of the trees and `base`, which has one number per target."""
    total = np.array(base, dtype=float)
    table = _Table()
    for nodes, output, target, weight in trees:
        if nodes.left[0] < 0:
            total[target] += weight * nodes.value[0, output]
        else:
            table.add(nodes, nodes.value[:, output] * weight, target)
    if not table.roots:
        return source.constant_rows(total)
    return source.apply("TreeEnsemble", domain="ai.onnx.ml", **table.attributes(len(total))) + total[None]


class _Table:
    """The nodes and leaves of all trees, one tree after another."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self._nodes: list[tuple[int, float, int, bool, int, bool, int, bool]] = []
        self._leaves: list[tuple[int, float]] = []
        self._members: list[float] = []

    def add(self, nodes: TreeNodes, values: np.ndarray, target: int) -> None:
        is_leaf = nodes.left < 0
        number = np.where(is_leaf, len(self._leaves) + np.cumsum(is_leaf), len(self._nodes) + np.cumsum(~is_leaf)) - 1
        self.roots.append(int(number[0]))
        for node in np.flatnonzero(~is_leaf).tolist():
            left, right = int(nodes.left[node]), int(nodes.right[node])
            codes = nodes.categories.get(node)
            if codes is not None:
                self._members += [*map(float, codes or [-1]), np.nan]
            ends = (int(number[left]), bool(is_leaf[left]), int(number[right]), bool(is_leaf[right]))
            mode, missing_left = (AT_MOST, bool(nodes.missing_left[node])) if codes is None else (MEMBER, False)
            self._nodes.append((int(nodes.feature[node]), float(nodes.threshold[node]), mode, missing_left, *ends))
        self._leaves += [(target, float(value)) for value in values[is_leaf].tolist()]

    def attributes(self, targets: int) -> dict[str, Any]:
        features, splits, modes, missing, true_ids, true_leaves, false_ids, false_leaves = zip(*self._nodes, strict=True)
        ids, weights = zip(*self._leaves, strict=True)
        table: dict[str, Any] = {
            "n_targets": targets,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": features,
            "nodes_splits": numpy_helper.from_array(np.array(splits, dtype=float)),
            "nodes_modes": numpy_helper.from_array(np.array(modes, dtype=np.uint8)),
            "nodes_missing_value_tracks_true": list(map(int, missing)),
            "nodes_truenodeids": true_ids,
            "nodes_trueleafs": list(map(int, true_leaves)),
            "nodes_falsenodeids": false_ids,
            "nodes_falseleafs": list(map(int, false_leaves)),
            "leaf_targetids": ids,
            "leaf_weights": numpy_helper.from_array(np.array(weights, dtype=float)),
        }
        if self._members:
            table["membership_values"] = numpy_helper.from_array(np.array(self._members, dtype=float))
        return table

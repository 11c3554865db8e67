"""Boosted trees of any library as arrays: their own evaluation, and their conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.extmath import softmax

from podium.models.lightgbm_export import TreeNodes, leaf_text, lightgbm_text, tree_text
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix


def logistic(sums: Any) -> Any:
    """Return 1 / (1 + exp(-sums))."""
    return 1.0 / (1.0 + np.exp(-np.clip(sums, -700.0, 700.0)))


OBJECTIVES = {
    "identity": "objective=regression",
    "logistic": "objective=binary sigmoid:1",
    "logistic each": "objective=multiclassova num_class:{} sigmoid:1",
    "softmax": "objective=multiclass num_class:{}",
    "exp": "objective=poisson",
}
"""LightGBM's objective with each link."""

LINKS: dict[str, Callable[[FloatMatrix], FloatMatrix]] = {
    "identity": lambda sums: sums,
    "logistic": lambda sums: np.hstack([1.0 - logistic(sums), logistic(sums)]),
    "logistic each": logistic,
    "softmax": softmax,
    "exp": np.exp,
}


@dataclass(frozen=True, slots=True)
class TreeModel:
    """Trees, each added to one of the sums in `base`, and the link from the sums to the scores.

    With `float32`, features are rounded to 32 bits. Cells equal to `missing` count as missing, in addition to NaN.
    """

    trees: tuple[TreeNodes, ...]
    targets: tuple[int, ...]
    base: tuple[float, ...]
    link: str
    features: int
    float32: bool = False
    missing: float = float("nan")

    def scores(self, rows: Any) -> FloatMatrix:
        """Evaluate the trees by walking each of them."""
        matrix = np.asarray(rows, dtype=np.float32 if self.float32 else float).astype(float)
        matrix = np.where(matrix == self.missing, np.nan, matrix)
        sums = np.tile(np.array(self.base), (len(matrix), 1))
        for nodes, target in zip(self.trees, self.targets, strict=True):
            sums[:, target] += nodes.value[_leaves(nodes, matrix), 0]
        return LINKS[self.link](sums)

    def scorer(self) -> LightGBMScorer:
        """Return the model in LightGBM's text format. Raises ValueError for another mark of missing cells."""
        if self.missing == self.missing:
            raise ValueError("a number marks missing cells")
        outputs = len(self.base)
        blocks = [leaf_text(value) for value in self.base]
        blocks += _by_iteration([tree_text(nodes, 0) for nodes in self.trees], self.targets, outputs)
        text = lightgbm_text(blocks, self.features, outputs, OBJECTIVES[self.link].format(outputs))
        return LightGBMScorer(text, self.features, outputs, self.float32, binary_probability=self.link == "logistic")


def _by_iteration(texts: Sequence[str], targets: Sequence[int], outputs: int) -> list[str]:
    """Order the trees so that each output has one tree per iteration; missing ones are empty."""
    queues: list[list[str]] = [[] for _ in range(outputs)]
    for text, target in zip(texts, targets, strict=True):
        queues[target].append(text)
    length = max(map(len, queues))
    return [queue[turn] if turn < len(queue) else leaf_text(0.0) for turn in range(length) for queue in queues]


def _leaves(nodes: TreeNodes, matrix: FloatMatrix) -> np.ndarray:
    """Return the leaf of each row."""
    at = np.zeros(len(matrix), dtype=int)
    rows = np.arange(len(matrix))
    while (nodes.left[at] >= 0).any():
        inner = nodes.left[at] >= 0
        cells = matrix[rows, np.where(inner, nodes.feature[at], 0)]
        is_left = np.where(np.isnan(cells), nodes.missing_left[at], cells <= nodes.threshold[at])
        for node in set(at[inner].tolist()) & nodes.categories.keys():
            here = at == node
            is_left[here] = np.isin(np.trunc(np.nan_to_num(cells[here], nan=-1.0)), list(nodes.categories[node]))
        at = np.where(inner, np.where(is_left, nodes.left[at], nodes.right[at]), at)
    return at

"""Exact contributions of the features to the score of each row: the Shapley values of "path-dependent TreeSHAP".

Lundberg et al., Consistent Individualized Feature Attribution for Tree Ensembles (2018); LightGBM's `pred_contrib` computes
the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from podium.engine.forest import Forest
from podium.engine.trees import LINK_NAMES, UnsupportedTrees, leaf_covers
from podium.schema.arrays import FloatArray, FloatMatrix, FloatVector

FORK_BYTES = 56
"""Size of a `Fork` in contributions.c."""
LANES = 4
"""The kernel takes the points of a quadrature rule in blocks of this size."""
MAX_PATH_FEATURES = 256


class Contributions:
    """Computes the contributions of groups of features to the sums of a forest's leaves, before the objective's function.

    `groups` holds the group of each feature, less than `count`. Raises UnsupportedTrees if the text of the forest does not say
    how many training rows reached each leaf.
    """

    def __init__(self, forest: Forest, text: str, groups: Sequence[int], count: int) -> None:
        arrays = forest.arrays
        nodes, roots = len(arrays.nodes), arrays.roots
        ends = np.append(roots[1:], nodes).astype("i4")
        covers = np.zeros(nodes)
        covers[arrays.leaf_positions] = leaf_covers(text)
        forks, counts, path_features = (
            np.empty(nodes // 2, f"V{FORK_BYTES}"),
            np.empty(arrays.trees, "i4"),
            np.empty(arrays.trees, "i4"),
        )
        buffers = np.empty(nodes, "i4"), np.empty(nodes, "i4"), np.empty(nodes)
        arguments = ends, covers, np.array(groups, "i4"), forks, counts, path_features, *buffers
        forest.kernels.podium_forks(forest.address, *(array.ctypes.data for array in arguments))
        if not covers[roots].all() or path_features.max() > MAX_PATH_FEATURES:
            raise UnsupportedTrees(f"a tree without training rows, or a path with more than {MAX_PATH_FEATURES} features")
        blocks = np.maximum(1, -(-path_features // (2 * LANES))).astype("i4")  # n points integrate the degree 2n - 1 exactly
        self._kept = forks, counts, blocks, _quadrature_rules(int(blocks.max()))  # the kernel reads these
        self._addresses = [array.ctypes.data for array in self._kept]
        self._work = int((ends - roots).max()), 2 * LANES * int(blocks.max()) + 2
        self._forest, self._count, self.link = forest, count, LINK_NAMES[arrays.link]
        self._divisor = arrays.divisor
        self.base: FloatVector = _mean_leaves(forest, covers, ends) / self._divisor
        """The (outputs,) scores before any contribution: the means over the training rows."""

    def of(self, rows: FloatMatrix) -> FloatArray:
        """Return the (n, outputs, groups) contributions for an (n, features) matrix; with `base`, they add up to the sums."""
        rows = np.ascontiguousarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self._forest.features:
            raise ValueError(f"the rows have shape {rows.shape}, expected {self._forest.features} columns")
        result = np.zeros((len(rows), self._forest.outputs, self._count))
        work, numbers = np.empty(self._work), (rows.ctypes.data, len(rows), self._count)
        self._forest.kernels.podium_contributions(
            self._forest.address, *self._addresses, *numbers, result.ctypes.data, work.ctypes.data, len(work)
        )
        return result / self._divisor if self._divisor != 1 else result


def _mean_leaves(forest: Forest, covers: FloatVector, ends: np.ndarray) -> FloatVector:
    """Return the sum over the trees of each output of the mean leaf."""
    arrays, leaves = forest.arrays, forest.arrays.leaf_positions
    tree = np.searchsorted(ends, leaves, side="right")
    means = arrays.nodes["number"][leaves] * covers[leaves] / covers[arrays.roots][tree]
    return np.asarray(np.bincount(tree % arrays.outputs, means, minlength=arrays.outputs), dtype=float)


@functools.cache
def _quadrature_rules(blocks: int) -> FloatVector:
    """Return the points t, weights, 1 - t and 1 / (1 - t) on [0, 1] of the Gauss-Legendre rules with 4, 8, 12 … points."""
    rules = [np.polynomial.legendre.leggauss(LANES * block) for block in range(1, blocks + 1)]
    return np.concatenate([part for t, weights in rules for part in ((1 + t) / 2, weights / 2, (1 - t) / 2, 2 / (1 - t))])

"""Statistics of the target by category or combination of categories (CTRs) in CatBoost models.

A combination joins categories of some columns and answers of some splits; its statistic is a number between borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from podium.importers.graph_builder import Tensor
from podium.models.catboost_trees import Split
from podium.schema.arrays import FloatMatrix

FACTOR = 0x4906BA494954CB65
INVERSE = pow(FACTOR, -2, 2**64)
MAX_ELEMENTS = 64
"""The greatest number of categories and splits in a combination."""
NO_HASH = 2**64 - 1
"""Marks an empty bucket of a hash table."""


@dataclass(frozen=True, slots=True, eq=False)
class Category:
    """The category of a column; `hashes` has one per code, the last one for an unknown category."""

    column: int
    hashes: np.ndarray

    def holds(self, matrix: FloatMatrix) -> np.ndarray:
        return self.hashes[matrix[:, self.column].astype(int)]

    def tensor(self, x: Tensor) -> Tensor:
        """Return the hashes of the cells, from a (rows, columns) tensor."""
        codes = x.column(self.column).apply("Cast", to=TensorProto.INT64)
        return x.graph.integers(self.hashes.view(np.int64)).apply("Gather", codes, axis=0)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number per combination; `values` has those of the hashes, which are in ascending order."""

    elements: tuple[Category | Split, ...]
    hashes: np.ndarray
    values: np.ndarray
    default: np.float32

    def split_by_category(self, border: float) -> Split:
        """Return the split of the categories above the border. Raises ValueError for a combination."""
        category = self.elements[0]
        if len(self.elements) > 1 or not isinstance(category, Category):
            raise ValueError("a statistic of a combination")
        matrix = np.zeros((len(category.hashes), category.column + 1))
        matrix[:, category.column] = np.arange(len(category.hashes))
        above = self.of(matrix) > border  # the last one is that of an unknown category
        codes = np.flatnonzero(above[:-1] != above[-1]).tolist()
        return Split(category.column, missing=bool(above[-1]), codes=tuple(codes))

    def of(self, matrix: FloatMatrix) -> np.ndarray:
        keys = np.zeros(len(matrix), dtype=np.uint64)
        for element in self.elements:
            keys = np.uint64(FACTOR) * (keys + np.uint64(FACTOR) * element.holds(matrix).astype(np.uint64))
        index = np.minimum(np.searchsorted(self.hashes, keys), max(0, len(self.hashes) - 1))
        if not len(self.hashes):
            return np.full(len(keys), self.default)
        return np.where(self.hashes[index] == keys, self.values[index], self.default)


class StatisticsGraph:
    """Computes statistics in a graph from a (rows, columns) tensor; they share the hashes of common elements.

    Integers of 64 bits overflow, as in CatBoost.
    """

    def __init__(self, x: Tensor) -> None:
        self._x, self._factor = x, x.graph.integers(np.array([[FACTOR]]))
        self._parts: dict[Category | Split, Tensor] = {}
        self._keys: dict[Sequence[Category | Split], Tensor] = {(): x.graph.integers(np.array([[0]]))}

    def tensor(self, statistic: Statistic) -> Tensor:
        """Return a statistic in float32."""
        table = {"keys_int64s": statistic.hashes.view(np.int64).tolist(), "values_floats": statistic.values.tolist()}
        keys, default = self._key(statistic.elements), float(statistic.default)
        return keys.apply("LabelEncoder", domain="ai.onnx.ml", default_float=default, **table)

    def _key(self, elements: Sequence[Category | Split]) -> Tensor:
        if elements not in self._keys:
            self._keys[elements] = self._factor * (self._key(elements[:-1]) + self._part(elements[-1]))
        return self._keys[elements]

    def _part(self, element: Category | Split) -> Tensor:
        if element not in self._parts:
            holds = _split(self._x, element) if isinstance(element, Split) else element.tensor(self._x)
            self._parts[element] = self._factor * holds
        return self._parts[element]


def _split(x: Tensor, split: Split) -> Tensor:
    """Return whole numbers: 1 for the rows for which a split of a combination is true, else 0."""
    cells = x.column(split.column)
    if split.codes is not None:
        return (cells == np.array([split.codes or (-1,)])).apply("Cast", to=TensorProto.INT64).reduce("ReduceMax")
    above = cells > split.border
    return (above.apply("Or", cells.map(np.isnan)) if split.missing else above).apply("Cast", to=TensorProto.INT64)


@dataclass(frozen=True, slots=True)
class Counts:
    """What the training rows of each hash were: `counts` has one row per hash, in ascending order of the hashes."""

    hashes: np.ndarray
    counts: np.ndarray
    denominator: float

    @property
    def categories(self) -> set[int]:
        """The 32-bit hashes of the categories, if the table is of a single column."""
        return {int(key) * INVERSE & 0xFFFFFFFF for key in self.hashes}


def read_counts(table: Mapping[str, Any]) -> Counts:
    """Read a table of the binary format, or of JSON, which also lists an empty bucket. Raises ValueError, KeyError."""
    if "hashes" in table:
        hashes, counts = table["hashes"], table["counts"]
    else:
        width = int(table["hash_stride"])
        rows = [table["hash_map"][start : start + width] for start in range(0, len(table["hash_map"]), width)]
        hashes = np.array([int(row[0]) for row in rows], dtype=np.uint64)
        counts = np.array([row[1:] for row in rows], dtype=float).reshape(len(rows), width - 1)
    order = np.argsort(hashes)
    order = order[hashes[order] != NO_HASH]
    return Counts(hashes[order], counts[order], float(table["counter_denominator"]))


def read_statistic(entry: Mapping[str, Any], table: Counts, elements: Sequence[Category | Split]) -> Statistic:
    """Compute the numbers from the counts in float32, as CatBoost does. Raises ValueError, KeyError."""
    kind, border, counts = entry["ctr_type"], int(entry["target_border_idx"]), table.counts
    total, nothing = counts.sum(axis=1), 0.0
    if len(elements) > MAX_ELEMENTS:
        raise ValueError("a combination is too long")
    if kind in ("BinarizedTargetMeanValue", "FloatTargetMeanValue"):
        good, total = counts.T
    elif kind in ("Counter", "FeatureFreq"):
        nothing = table.denominator
        good, total = counts[:, 0], np.full(len(counts), nothing)
    elif kind == "Buckets":
        good = counts[:, border]
    elif kind == "Borders":
        good = counts[:, border + 1 :].sum(axis=1)
    else:
        raise ValueError("an unknown kind of statistic")
    names = ("prior_numerator", "prior_denomerator", "shift", "scale")
    prior, weight, shift, scale = (np.float32(entry[name]) for name in names)
    good, total = np.append(good, 0.0).astype(np.float32), np.append(total, nothing).astype(np.float32)
    with np.errstate(all="ignore"):
        values = ((good + prior) / (total + weight) + shift) * scale
    return Statistic(tuple(elements), table.hashes, values[:-1], values[-1])

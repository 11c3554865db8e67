"""Statistics of the target by category or combination of categories (CTRs) in CatBoost models.

A combination joins categories of some columns and answers of some splits; its statistic is a number between borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from podium.importers.catboost_trees import Split
from podium.importers.graph_builder import GraphBuilder
from podium.schema.arrays import FloatMatrix

FACTOR = 0x4906BA494954CB65
INVERSE = pow(FACTOR, -2, 2**64)
NO_HASH = 2**64 - 1
"""Marks an empty bucket of a hash table."""
NO_CATEGORY = 1 << 40
"""Stands for the hash of an unknown category; hashes have 32 bits."""


@dataclass(frozen=True, slots=True)
class Category:
    """The category of a column; `hashes` has one per code, the last one for an unknown category."""

    column: int
    hashes: np.ndarray

    def holds(self, matrix: FloatMatrix) -> np.ndarray:
        return self.hashes[matrix[:, self.column].astype(int)]

    def add_to(self, graph: GraphBuilder, x: str) -> str:
        cells = graph.add("Gather", x, graph.integers([self.column]), axis=1)
        codes = graph.add("Cast", cells, to=TensorProto.INT64)
        return graph.add("Gather", graph.integers(self.hashes.view(np.int64)), codes, axis=0)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number per combination; `values` has those of the hashes, which are in ascending order."""

    elements: tuple[Category | Split, ...]
    hashes: np.ndarray
    values: np.ndarray
    default: np.float32

    @property
    def column(self) -> int | None:
        """The column, if the statistic is of the categories of a single one."""
        first = self.elements[0]
        return first.column if len(self.elements) == 1 and isinstance(first, Category) else None

    def column_values(self) -> np.ndarray:
        """Return the statistic by code. Only for single columns."""
        category = self.elements[0]
        assert isinstance(category, Category)
        matrix = np.zeros((len(category.hashes), category.column + 1))
        matrix[:, category.column] = np.arange(len(category.hashes))
        return self.of(matrix)

    def of(self, matrix: FloatMatrix) -> np.ndarray:
        keys = np.zeros(len(matrix), dtype=np.uint64)
        for element in self.elements:
            keys = np.uint64(FACTOR) * (keys + np.uint64(FACTOR) * element.holds(matrix).astype(np.uint64))
        index = np.minimum(np.searchsorted(self.hashes, keys), max(0, len(self.hashes) - 1))
        if not len(self.hashes):
            return np.full(len(keys), self.default)
        return np.where(self.hashes[index] == keys, self.values[index], self.default)

    def add_to(self, graph: GraphBuilder, x: str) -> str:
        """Compute the statistic from the (rows, columns) tensor `x`; integers of 64 bits overflow as in CatBoost."""
        factor, keys = graph.integers(np.array([[FACTOR]])), graph.integers(np.array([[0]]))
        for element in self.elements:
            keys = graph.add("Mul", factor, graph.add("Add", keys, graph.add("Mul", factor, element.add_to(graph, x))))
        values = {"keys_int64s": self.hashes.view(np.int64).tolist(), "values_floats": self.values.tolist()}
        found = graph.add("LabelEncoder", keys, domain="ai.onnx.ml", default_float=float(self.default), **values)
        return graph.add("Cast", found, to=TensorProto.DOUBLE)


def read_statistic(entry: Mapping[str, Any], table: Mapping[str, Any], elements: Sequence[Category | Split]) -> Statistic:
    """Compute the numbers from the counts in float32, as CatBoost does. Raises ValueError, KeyError."""
    hashes, counts = _counts(table)
    kind, border, total = entry["ctr_type"], int(entry["target_border_idx"]), counts.sum(axis=1)
    nothing = 0.0
    if kind in ("BinarizedTargetMeanValue", "FloatTargetMeanValue"):
        good, total = counts.T
    elif kind in ("Counter", "FeatureFreq"):
        nothing = float(table["counter_denominator"])
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
    order = np.argsort(hashes)
    return Statistic(tuple(elements), hashes[order], values[:-1][order], values[-1])


def _counts(table: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes and the (hashes, counts) matrix. JSON also lists an empty bucket, which does not count."""
    if "hashes" in table:
        return table["hashes"], table["counts"]
    width = int(table["hash_stride"])
    rows = [table["hash_map"][start : start + width] for start in range(0, len(table["hash_map"]), width)]
    rows = [row for row in rows if int(row[0]) != NO_HASH]
    hashes = np.array([int(row[0]) for row in rows], dtype=np.uint64)
    return hashes, np.array([row[1:] for row in rows], dtype=float).reshape(len(rows), width - 1)


def trained_hashes(table: Mapping[str, Any]) -> set[int]:
    """Return the hashes of the categories in a table of a single column."""
    return {int(key) * INVERSE & 0xFFFFFFFF for key in _counts(table)[0]}


def extended(hashes: Sequence[int]) -> np.ndarray:
    """Return signed 32-bit hashes as 64 bits, and that of an unknown category."""
    return np.append(np.array(hashes, dtype=np.uint32).astype(np.int32).astype(np.int64), NO_CATEGORY).view(np.uint64)

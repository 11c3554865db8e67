"""Find inputs that alone predict nearly all of the target, as a column does that is only known afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

MIN_ROWS = 50
MAX_BINS, MIN_BIN_ROWS, MAX_TREE_ROWS = 20, 5, 50_000
SUSPICIOUS = {"regression": 0.9, "binary": 0.98, "multiclass": 0.98}
"""The fraction of the variance, or of the rows, that an input must predict alone to be a finding."""
NEARLY_ALL = {"regression": 0.999, "binary": 0.999, "multiclass": 0.999}
"""The fraction that fails the gate."""
NEARLY_EXACT = 0.9999
"""The R² of a model that suggests that the target was computed from the inputs."""


def leaking_inputs(
    inputs: pd.DataFrame, target: pd.Series, signature: Target, thresholds: Mapping[str, float] = SUSPICIOUS
) -> dict[str, float]:
    """Return the inputs that alone predict nearly all of the target, with the fraction that each predicts.

    A category or a bin of a numeric input predicts its most frequent class, or for a regression its mean, in bins a line. Bins
    end where the classes are separated best; for a regression, they have the same number of rows.
    """
    threshold = thresholds.get(signature.task)
    known = target.notna().to_numpy()
    inputs, values = inputs[known], target[known].to_numpy(dtype=float)
    if threshold is None or len(values) < MIN_ROWS:
        return {}
    score = _explained_variance if signature.task == "regression" else _correct_rows
    scores = {str(name): score(cells, values) for name, cells in inputs.items()}
    return {name: found for name, found in scores.items() if found >= threshold}


def _bins(cells: pd.Series, values: FloatVector | None = None) -> np.ndarray:
    """Return the bin or category of each cell, -1 if missing. Bins of numbers separate the classes in `values`, if given."""
    is_number = pd.api.types.is_numeric_dtype(cells)
    count = len(cells) // MIN_BIN_ROWS
    if cells.nunique() <= (min(MAX_BINS, count) if is_number else count):
        return pd.factorize(cells)[0]
    if not is_number:
        return np.zeros(len(cells), dtype=int)
    if values is None:
        bins = pd.qcut(cells, min(MAX_BINS, count), labels=False, duplicates="drop")
        return bins.fillna(-1).to_numpy(dtype=int)
    numbers = cells.to_numpy(dtype=float)
    known = ~np.isnan(numbers)
    return np.where(known, np.searchsorted(_cuts(numbers[known], values[known]), numbers, side="right"), -1)


def _cuts(numbers: FloatVector, values: FloatVector) -> FloatVector:
    """Return the cuts of a decision tree by Gini impurity: the smallest numbers of its leaves, except the first."""
    order = np.argsort(numbers, kind="stable")
    order = order[:: 1 + len(order) // MAX_TREE_ROWS]
    numbers, is_class = numbers[order], values[order, None] == np.unique(values)
    counts = np.vstack([np.zeros(is_class.shape[1]), is_class.cumsum(axis=0)])
    leaves, cuts = [_best_cut(numbers, counts, 0, len(numbers))], list[int]()
    while len(cuts) < MAX_BINS - 1 and max(leaves)[0] > 0:
        leaf = max(leaves)
        _, cut, start, end = leaf
        leaves.remove(leaf)
        leaves += [_best_cut(numbers, counts, start, cut), _best_cut(numbers, counts, cut, end)]
        cuts.append(cut)
    return numbers[np.sort(np.array(cuts, dtype=int))]


def _best_cut(numbers: FloatVector, counts: FloatMatrix, start: int, end: int) -> tuple[float, int, int, int]:
    """Return how much the best cut of a leaf gains, 0 if there is none, where it is, and the start and end of the leaf."""
    cuts = np.arange(start + MIN_BIN_ROWS, end - MIN_BIN_ROWS + 1)
    cuts = cuts[numbers[cuts - 1] < numbers[cuts]] if len(cuts) else cuts
    if not len(cuts):
        return 0.0, end, start, end
    left, right, both = counts[cuts] - counts[start], counts[end] - counts[cuts], counts[end] - counts[start]
    purity = sum((side**2).sum(axis=1) / side.sum(axis=1) for side in (left, right))
    best = int(np.argmax(purity))
    gain = float(purity[best] - (both**2).sum() / both.sum())
    return (gain if gain > 1e-9 else 0.0), int(cuts[best]), start, end


def _explained_variance(cells: pd.Series, values: FloatVector) -> float:
    """Return the lower of the R² of the values and of their ranks, so that a few outliers do not decide."""
    ranks = cells.rank() if pd.api.types.is_numeric_dtype(cells) else cells
    return min(_adjusted_r2(cells, values), _adjusted_r2(ranks, pd.Series(values).rank().to_numpy()))


def _adjusted_r2(cells: pd.Series, values: FloatVector) -> float:
    """Return the adjusted R² of a line in each bin of a numeric input, or of the means of categories."""
    bins = pd.Series(_bins(cells))
    rest, parts = _centered(values, bins), 1
    if pd.api.types.is_numeric_dtype(cells):
        inputs = _centered(cells.fillna(0).to_numpy(dtype=float), bins)
        products, squares = (pd.Series(x).groupby(bins).transform("sum") for x in (inputs * rest, inputs * inputs))
        rest, parts = rest - inputs * (products / squares.where(squares > 0, 1)).to_numpy(), 2
    degrees = len(values) - parts * bins.nunique()
    variance = values.var() * len(values) / (len(values) - 1)
    return float(1 - (rest**2).sum() / degrees / variance) if variance > 0 and degrees > 0 else 0.0


def _centered(values: FloatVector, bins: pd.Series) -> FloatVector:
    centered: FloatVector = values - pd.Series(values).groupby(bins).transform("mean").to_numpy()
    return centered


def _correct_rows(cells: pd.Series, values: FloatVector) -> float:
    """Return the fraction of rows in the most frequent class of their bin, 0 if the largest class alone gives as much."""
    counts = pd.crosstab(_bins(cells, values), values).to_numpy()
    correct = counts.max(axis=1).sum() / len(values)
    largest = counts.sum(axis=0).max() / len(values)
    return float(correct) if 1 - correct < (1 - largest) / 20 else 0.0

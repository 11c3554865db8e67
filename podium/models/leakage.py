"""Find inputs that alone predict nearly all of the target, as a column does that is only known afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatVector
from podium.schema.columns import Target

MIN_ROWS = 50
MAX_BINS, MIN_BIN_ROWS = 20, 5
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

    A numeric input is divided into at most 20 bins; a bin or category predicts a line, its mean or its most frequent class.
    """
    threshold = thresholds.get(signature.task)
    known = target.notna().to_numpy()
    inputs, values = inputs[known], target[known].to_numpy(dtype=float)
    if threshold is None or len(values) < MIN_ROWS:
        return {}
    score = _explained_variance if signature.task == "regression" else _correct_rows
    scores = {str(name): score(cells, values) for name, cells in inputs.items()}
    return {name: found for name, found in scores.items() if found >= threshold}


def _bins(cells: pd.Series) -> np.ndarray:
    """Return the bin or category of each cell; -1 for missing cells."""
    count = min(MAX_BINS, len(cells) // MIN_BIN_ROWS)
    if cells.nunique() <= count:
        return pd.factorize(cells)[0]
    if cells.dtype == object:
        return np.zeros(len(cells), dtype=int)
    bins: np.ndarray = pd.qcut(cells, count, labels=False, duplicates="drop").fillna(-1).to_numpy(dtype=int)
    return bins


def _explained_variance(cells: pd.Series, values: FloatVector) -> float:
    """Return the adjusted R² of a line in each bin of a numeric input, or of the means of categories."""
    bins = pd.Series(_bins(cells))
    rest, parts = _centered(values, bins), 1
    if cells.dtype != object:
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
    counts = pd.crosstab(_bins(cells), values).to_numpy()
    correct = counts.max(axis=1).sum() / len(values)
    largest = counts.sum(axis=0).max() / len(values)
    return float(correct) if 1 - correct < (1 - largest) / 20 else 0.0

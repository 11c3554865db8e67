"""Find inputs that alone predict nearly all of the target, as a column does that is only known afterwards."""

from __future__ import annotations

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatVector
from podium.schema.columns import Target

MIN_ROWS = 50
MAX_BINS, MIN_BIN_ROWS = 20, 5
NEARLY_ALL = {"regression": 0.98, "binary": 0.995, "multiclass": 0.995}
"""The fraction of the variance, or of the rows, that a single input must predict."""
NEARLY_EXACT = 0.9999
"""The R² of a model that suggests that the target was computed from the inputs."""


def leaking_inputs(inputs: pd.DataFrame, target: pd.Series, signature: Target) -> dict[str, float]:
    """Return the inputs that alone predict nearly all of the target, with the fraction that each predicts.

    A numeric input is divided into at most 20 bins; each bin or category predicts its mean or its most frequent class.
    """
    threshold = NEARLY_ALL.get(signature.task)
    known = target.notna().to_numpy()
    inputs, values = inputs[known], target[known].to_numpy(dtype=float)
    if threshold is None or len(values) < MIN_ROWS:
        return {}
    score = _explained_variance if signature.task == "regression" else _correct_rows
    scores = {str(name): score(_bins(cells), values) for name, cells in inputs.items()}
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


def _explained_variance(bins: np.ndarray, values: FloatVector) -> float:
    rest = values - pd.Series(values).groupby(bins).transform("mean").to_numpy()
    degrees = len(values) - len(np.unique(bins))
    variance = values.var() * len(values) / (len(values) - 1)
    return float(1 - (rest**2).sum() / degrees / variance) if variance > 0 and degrees > 0 else 0.0


def _correct_rows(bins: np.ndarray, values: FloatVector) -> float:
    """Return the fraction of rows in the most frequent class of their bin, 0 if the largest class alone gives as much."""
    counts = pd.crosstab(bins, values).to_numpy()
    correct = counts.max(axis=1).sum() / len(values)
    largest = counts.sum(axis=0).max() / len(values)
    return float(correct) if 1 - correct < (1 - largest) / 20 else 0.0

"""How much the inputs and the predictions differ from those of the training data. This is shown, and is no alarm by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from podium.schema.arrays import FloatVector
from podium.schema.columns import Signature

BINS = 10
LEAST_SHARE = 1e-4
"""Of a bin in PSI, which is infinite for an empty one."""
MAX_CATEGORIES, RARE = 200, 5
MAX_WEIGHT = 20.0
TREES: Mapping[str, Any] = {"n_jobs": 1, "verbosity": -1, "deterministic": True, "force_col_wise": True}
"""One thread, because other processes of the machine may be serving."""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """The distance of a column from its training values.

    `distance` is the Wasserstein distance in standard deviations for numbers, the Jensen-Shannon distance (0 to 1) for
    categories. `psi` is the population stability index; by convention, above 0.25 is a large change. `missing` is the change of
    the fraction of missing values.
    """

    column: str
    measure: str
    distance: float
    psi: float
    missing: float


def column_drift(name: str, reference: pd.Series, current: pd.Series) -> ColumnDrift:
    """Compare the values of a column, in which missing values count as a category of their own."""
    missing = float(current.isna().mean() - reference.isna().mean())
    if pd.api.types.is_numeric_dtype(reference):
        old, new = (cells.dropna().to_numpy(dtype=float) for cells in (reference, current))
        edges = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1])) if len(old) else np.empty(0)
        psi = _psi(*(_shares(np.searchsorted(edges, cells), len(edges) + 1) for cells in (old, new)))
        spread = float(old.std()) if len(old) else 0.0
        distance = float(wasserstein_distance(old, new)) / (spread or 1.0) if len(old) and len(new) else 0.0
        return ColumnDrift(name, "Wasserstein", distance, psi, missing)
    codes, _ = pd.factorize(pd.concat([reference, current]).astype(object), use_na_sentinel=False)
    shares = [_shares(part, codes.max() + 1) for part in (codes[: len(reference)], codes[len(reference) :])]
    return ColumnDrift(name, "Jensen-Shannon", float(jensenshannon(*shares, base=2)), _psi(*shares), missing)


def _shares(bins: np.ndarray, count: int) -> FloatVector:
    counts = np.bincount(bins, minlength=count)
    shares: FloatVector = counts / max(1, counts.sum())
    return shares


def _psi(reference: FloatVector, current: FloatVector) -> float:
    old, new = np.maximum(reference, LEAST_SHARE), np.maximum(current, LEAST_SHARE)
    return float(((new - old) * np.log(new / old)).sum())


@dataclass(frozen=True, slots=True)
class JointDrift:
    """The ROC AUC of a classifier that tells current and training rows apart (0.5: by chance), and weights of training rows.

    Weighted by these, the training rows are distributed like the current ones.
    """

    auc: float
    weights: FloatVector

    @property
    def comparable_rows(self) -> float:
        """Of how many training rows the weights make use (Kish's effective sample size)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum()) if self.weights.any() else 0.0


def comparable(frame: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Return the columns with free texts as their lengths, since no two texts are the same."""
    texts = [column.name for column in signature.inputs if column.kind == "text" and column.name in frame]
    return frame.assign(**{name: frame[name].map(len, na_action="ignore").astype(float) for name in texts})


def joint_drift(reference: pd.DataFrame, current: pd.DataFrame, seed: int = 0) -> JointDrift:
    """Compare all columns together, out of fold."""
    if reference.columns.empty:
        return JointDrift(0.5, np.ones(len(reference)))
    rows = encoded(pd.concat([reference, current], ignore_index=True))
    is_current = np.repeat([0, 1], [len(reference), len(current)])
    folds = StratifiedKFold(min(5, len(reference), len(current)), shuffle=True, random_state=seed)
    model = LGBMClassifier(n_estimators=60, num_leaves=15, random_state=seed, **TREES)
    probability = cross_val_predict(model, rows, is_current, cv=folds, method="predict_proba")[:, 1]
    odds = probability[: len(reference)] / np.maximum(1e-9, 1 - probability[: len(reference)])
    weights = np.minimum(MAX_WEIGHT, odds * len(reference) / len(current))
    return JointDrift(float(roc_auc_score(is_current, probability)), weights)


def encoded(frame: pd.DataFrame) -> np.ndarray:
    """Return the columns as numbers: categories as codes in the order of their frequency, rare ones as one."""
    columns = []
    for name in frame.columns:
        cells = frame[name]
        if not pd.api.types.is_numeric_dtype(cells):
            counts = cells.value_counts().sort_index().sort_values(ascending=False, kind="stable")
            usual = counts[counts >= RARE].index[:MAX_CATEGORIES]
            cells = pd.Series(pd.Categorical(cells, categories=usual).codes).replace(-1, len(usual))
        columns.append(cells.to_numpy(dtype=float))
    return np.column_stack(columns)

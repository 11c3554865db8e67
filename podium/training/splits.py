"""Training rows, test rows and cross-validation folds.

Test rows are chosen by a hash of their raw content, so they stay the same as the table grows or column options change. Each
version records its split boundary, so that two versions are compared only on rows that neither was trained on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit

from podium.project import Project
from podium.registry.versions import SplitBoundary
from podium.schema.arrays import IndexArray
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.tables.split_keys import SINGLE_STRATUM, row_hash, strata
from podium.training.project_kinds import kind_of


def train_and_test(data: LabeledRows, project: Project) -> tuple[IndexArray, IndexArray]:
    """Return the indices of the training rows and of the test rows. A time split never divides a day."""
    kind, test_size = kind_of(project).split_kind(data), project.split.test_size
    keys = _split_keys(data)
    if kind == "time":
        order = np.argsort(keys, kind="stable")
        border = keys[order[len(order) - max(1, round(len(order) * test_size))]]
        border = max(border, keys[keys > keys.min()].min(initial=border))
        return order[keys[order] < border], order[keys[order] >= border]
    hashes = row_hash(keys, project.seed)
    if kind == "grouped":
        groups, group = np.unique(hashes, return_inverse=True)
        test = _lowest_hashes(groups, np.full(len(groups), SINGLE_STRATUM), test_size)[group]
    else:
        test = _lowest_hashes(hashes, strata(data, kind), test_size)
    return np.flatnonzero(~test), np.flatnonzero(test)


def split_boundary(data: LabeledRows, project: Project) -> SplitBoundary:
    """Return the boundary between training rows and all others: the last time, or the lowest hash per stratum."""
    kind, train = kind_of(project).split_kind(data), train_and_test(data, project)[0]
    columns = tuple(data.raw.column_names) if data.raw is not None else ()
    keys = _split_keys(data)
    if kind == "time":
        return SplitBoundary(kind="time", columns=columns, boundaries={SINGLE_STRATUM: float(keys[train].max())})
    lowest = pd.Series(row_hash(keys, project.seed)[train]).groupby(strata(data, kind)[train]).min()
    return SplitBoundary(
        kind=kind, columns=columns, boundaries={str(stratum): int(border) for stratum, border in lowest.items()}
    )


def training_rows(data: LabeledRows, project: Project) -> LabeledRows:
    """Return the training rows; their signature has only their own ranges and categories."""
    rows = data.rows(train_and_test(data, project)[0])
    return replace(rows, signature=kind_of(project).training_signature(rows))


def held_out_rows(data: LabeledRows, project: Project) -> LabeledRows:
    """Return the test rows."""
    return data.rows(train_and_test(data, project)[1])


def _lowest_hashes(hashes: np.ndarray, strata: np.ndarray, fraction: float) -> np.ndarray:
    """Mask of the rows with the lowest hashes in their stratum; at least one row per stratum."""
    count = pd.Series(strata).map(pd.Series(strata).value_counts()) * fraction
    return (pd.Series(hashes).groupby(strata).rank(method="first") <= count.round().clip(lower=1)).to_numpy()


def folds(data: LabeledRows, project: Project) -> list[tuple[IndexArray, IndexArray]]:
    """Return, per fold, the indices of rows to fit on and to validate on. Raises BadData if there are too few rows."""
    kind, count = kind_of(project).split_kind(data), project.split.folds
    if kind == "time":
        return _time_folds(data, count)
    smallest_class = int(data.target.value_counts().min())
    splitter: Any
    if kind == "grouped":
        splitter = GroupKFold(count)
    elif kind == "stratified" and smallest_class >= 2:
        splitter = StratifiedKFold(min(count, smallest_class), shuffle=True, random_state=project.seed)
    else:
        splitter = KFold(count, shuffle=True, random_state=project.seed)
    groups = _split_keys(data) if kind == "grouped" else None
    try:
        return list(splitter.split(data.inputs, data.target, groups))
    except ValueError as error:
        raise _cannot_split(error) from None


def _time_folds(data: LabeledRows, count: int) -> list[tuple[IndexArray, IndexArray]]:
    """Folds that validate on the days after those they are fitted on; no day is divided."""
    days, day_index = np.unique(_split_keys(data), return_inverse=True)
    try:
        parts = list(TimeSeriesSplit(count).split(days))
    except ValueError as error:
        raise _cannot_split(error) from None
    return [(np.flatnonzero(np.isin(day_index, fit)), np.flatnonzero(np.isin(day_index, check))) for fit, check in parts]


def _cannot_split(error: ValueError) -> BadData:
    return BadData([Problem("split", f"cannot split the rows: {error}; add rows, or lower split.folds or split.test_size")])


def _split_keys(data: LabeledRows) -> np.ndarray:
    assert data.order is not None
    return data.order.to_numpy()

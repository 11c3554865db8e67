"""Training rows, cross-validation folds, and the rows to evaluate on: test rows, or all rows with out-of-fold scores.

Test rows and folds are chosen by a hash of their raw content: equal rows stay together, and test rows stay the same as the
table grows or column options change. Each version records its split, so that two versions are compared only on rows that
neither was trained on, or on out-of-fold scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, TimeSeriesSplit

from podium.project import Project
from podium.registry.versions import SplitBoundary
from podium.schema.arrays import FloatMatrix, IndexArray
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.tables.split_keys import SINGLE_STRATUM, row_hash, strata
from podium.training.project_kinds import kind_of

MAX_ROWS_WITHOUT_TEST, TEST_SIZE = 50_000, 0.2
"""Tables of up to this many independent rows have no test rows by default, and others this fraction."""


def has_test_rows(data: LabeledRows, project: Project) -> bool:
    """Return whether some rows are kept out of training."""
    by_key = kind_of(project).split_kind(data) in ("grouped", "time") or project.split.column is not None
    return by_key or project.split.test_size is not None or len(data.target) > MAX_ROWS_WITHOUT_TEST


def train_and_test(data: LabeledRows, project: Project) -> tuple[IndexArray, IndexArray]:
    """Return the indices of the training rows and of the test rows. A time split never divides a day."""
    kind, test_size = kind_of(project).split_kind(data), project.split.test_size or TEST_SIZE
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
    columns = tuple(data.raw.column_names) if data.raw is not None else ()
    if not has_test_rows(data, project):
        return SplitBoundary(kind="out-of-fold", columns=columns, boundaries={})
    kind, train = kind_of(project).split_kind(data), train_and_test(data, project)[0]
    keys = _split_keys(data)
    if kind == "time":
        return SplitBoundary(kind="time", columns=columns, boundaries={SINGLE_STRATUM: float(keys[train].max())})
    lowest = pd.Series(row_hash(keys, project.seed)[train]).groupby(strata(data, kind)[train]).min()
    return SplitBoundary(
        kind=kind, columns=columns, boundaries={str(stratum): int(border) for stratum, border in lowest.items()}
    )


def training_rows(data: LabeledRows, project: Project) -> LabeledRows:
    """Return the training rows; their signature has only their own ranges and categories."""
    rows = data.rows(train_and_test(data, project)[0]) if has_test_rows(data, project) else data
    return replace(rows, signature=kind_of(project).training_signature(rows))


def evaluation_rows(data: LabeledRows, project: Project, out_of_fold: Mapping[str, FloatMatrix]) -> LabeledRows:
    """Return the test rows, or all rows with the out-of-fold scores of each model if there are no test rows."""
    if has_test_rows(data, project):
        return data.rows(train_and_test(data, project)[1])
    return replace(data, scores=out_of_fold)


def _lowest_hashes(hashes: np.ndarray, strata: np.ndarray, fraction: float) -> np.ndarray:
    """Mask of the rows with the lowest hashes in their stratum; at least one row per stratum."""
    count = pd.Series(strata).map(pd.Series(strata).value_counts()) * fraction
    return (pd.Series(hashes).groupby(strata).rank(method="first") <= count.round().clip(lower=1)).to_numpy()


def folds(data: LabeledRows, project: Project) -> list[tuple[IndexArray, IndexArray]]:
    """Return, per fold, the indices of rows to fit on and to validate on. Raises BadData if there are too few rows."""
    kind, count = kind_of(project).split_kind(data), project.split.folds or _default_folds(data, project)
    if kind == "time":
        return _time_folds(data, count)
    if kind != "grouped":
        return _random_folds(data, kind, count, project.seed)
    try:
        return list(GroupKFold(count).split(data.inputs, data.target, _split_keys(data)))
    except ValueError as error:
        raise _cannot_split(error) from None


def _default_folds(data: LabeledRows, project: Project) -> int:
    """More folds for small tables, where every row counts; fewer for large ones, and for many scores per row."""
    rows = len(data.target)
    if rows * max(1, len(data.signature.target.classes) - 1) > 200_000:
        return 3
    return 8 if rows <= 2_000 and kind_of(project).split_kind(data) in ("random", "stratified") else 5


def repeated_rows(data: LabeledRows) -> float:
    """Return the fraction of the rows that repeat an earlier one."""
    return float(pd.Series(_split_keys(data)).duplicated().mean())


def _random_folds(data: LabeledRows, kind: str, count: int, seed: int) -> list[tuple[IndexArray, IndexArray]]:
    """Folds that are equally frequent in each stratum, if it has enough rows; equal rows are in the same fold."""
    rows = pd.DataFrame({"stratum": strata(data, kind), "hash": row_hash(_split_keys(data), seed)})
    smallest = int(rows.drop_duplicates()["stratum"].value_counts().min())
    if kind == "stratified" and smallest < 2:
        return _random_folds(data, "random", count, seed)
    if kind == "random" and smallest < count:
        raise _cannot_split(ValueError(f"{smallest} different rows are too few for {count} folds"))
    fold = rows.groupby(["stratum", "hash"]).ngroup().to_numpy() % min(count, smallest)
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(fold.max() + 1)]


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

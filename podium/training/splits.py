"""Which rows train, which test, and the folds between.

A row's own content decides whether it tests, so that it stays a test row when the table grows or is read otherwise, and a
version says where the border was, so that a later one is compared with it on rows that neither has learned from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit

from podium.project import ColumnOptions, Project
from podium.registry.versions import SplitBoundary
from podium.schema.arrays import IndexArray
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import window_columns
from podium.tables.schema_inference import with_statistics
from podium.tables.split_keys import SINGLE_STRATUM, row_hash, strata
from podium.training.panel import with_known_entities


def split_kind(data: LabeledRows, project: Project) -> str:
    """The project's, else stratified for classes and random for numbers."""
    if project.split.kind or project.panel:
        return project.split.kind or "time"
    return "stratified" if data.signature.target.classes and _smallest_class(data) >= 2 else "random"


def train_and_test(data: LabeledRows, project: Project) -> tuple[IndexArray, IndexArray]:
    """Places of the training rows and of the test rows, which are looked at once, in the ranking."""
    kind, size = split_kind(data, project), project.split.test_size
    if kind == "time":
        days, order = _split_keys(data), np.argsort(_split_keys(data), kind="stable")
        border = days[order[len(order) - max(1, round(len(order) * size))]]  # a day is not divided
        border = max(border, days[days > days.min()].min(initial=border))
        return order[days[order] < border], order[days[order] >= border]
    chance = row_hash(_split_keys(data), project.seed)
    if kind == "grouped":
        names, group = np.unique(chance, return_inverse=True)
        test = _lowest_hashes(names, np.full(len(names), SINGLE_STRATUM), size)[group]
    else:
        test = _lowest_hashes(chance, strata(data, kind), size)
    return np.flatnonzero(~test), np.flatnonzero(test)


def split_boundary(data: LabeledRows, project: Project) -> SplitBoundary:
    """Where the border lies between the rows that are learned from and the others."""
    kind, train = split_kind(data, project), train_and_test(data, project)[0]
    columns = tuple(data.raw.column_names) if data.raw is not None else ()
    if kind == "time":
        return SplitBoundary(kind="time", columns=columns, borders={SINGLE_STRATUM: float(_split_keys(data)[train].max())})
    learned = pd.Series(row_hash(_split_keys(data), project.seed)[train]).groupby(strata(data, kind)[train]).min()
    return SplitBoundary(kind=kind, columns=columns, borders={str(stratum): int(least) for stratum, least in learned.items()})


def training_rows(data: LabeledRows, project: Project) -> LabeledRows:
    """The training rows, with the ranges and categories that they have."""
    rows = data.rows(train_and_test(data, project)[0])
    if rows.signature.panel and rows.order is not None:
        panel = with_known_entities(rows.signature.panel, rows.inputs, rows.order)
        return replace(rows, signature=replace(rows.signature, inputs=window_columns(panel), panel=panel))
    inputs = [
        with_statistics(c, rows.inputs[c.name], project.columns.get(c.name, ColumnOptions())) for c in data.signature.inputs
    ]
    return replace(rows, signature=replace(data.signature, inputs=tuple(inputs)))


def held_out_rows(data: LabeledRows, project: Project) -> LabeledRows:
    return data.rows(train_and_test(data, project)[1])


def _lowest_hashes(chance: np.ndarray, strata: np.ndarray, size: float) -> np.ndarray:
    """Whether a row is among the share of its stratum with the lowest numbers."""
    count = pd.Series(strata).map(pd.Series(strata).value_counts()) * size
    return (pd.Series(chance).groupby(strata).rank(method="first") <= count.round().clip(lower=1)).to_numpy()


def folds(data: LabeledRows, project: Project) -> list[tuple[IndexArray, IndexArray]]:
    """Places to fit on and to validate on, for rows that `train_and_test` gave for training, in that order."""
    kind, count = split_kind(data, project), project.split.folds
    by = _split_keys(data) if kind == "grouped" else None
    if kind == "time":
        return _by_time(data, count)
    splitter: Any
    if kind == "grouped":
        splitter = GroupKFold(count)
    elif kind == "stratified" and _smallest_class(data) >= 2:
        splitter = StratifiedKFold(min(count, _smallest_class(data)), shuffle=True, random_state=project.seed)
    else:
        splitter = KFold(count, shuffle=True, random_state=project.seed)
    try:
        return list(splitter.split(data.inputs, data.target, by))
    except ValueError as error:
        raise _cannot_split(error) from None


def _by_time(data: LabeledRows, count: int) -> list[tuple[IndexArray, IndexArray]]:
    """Each fold validates on the days that follow those it learns from; a day is not divided."""
    days, place = np.unique(_split_keys(data), return_inverse=True)
    try:
        parts = list(TimeSeriesSplit(count).split(days))
    except ValueError as error:
        raise _cannot_split(error) from None
    return [(np.flatnonzero(np.isin(place, fit)), np.flatnonzero(np.isin(place, check))) for fit, check in parts]


def _cannot_split(error: ValueError) -> BadData:
    return BadData([Problem("split", f"the rows cannot be split like this: {error}")])


def _smallest_class(data: LabeledRows) -> int:
    return int(data.target.value_counts().min())


def _split_keys(data: LabeledRows) -> np.ndarray:
    assert data.order is not None, "the project's validation asks for split.column"
    return data.order.to_numpy()

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

from podium.data.infer import described
from podium.data.panel import window_columns
from podium.data.problems import BadData, Problem
from podium.data.typed import Mask
from podium.learn.clean import Clean, order_of
from podium.learn.panel import known_by
from podium.project import ColumnOptions, Project
from podium.store.versions import ALL, Split

Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def kind_of_split(data: Clean, project: Project) -> str:
    """The project's, else stratified for classes and random for numbers."""
    if project.split.kind or project.kind == "panel":
        return project.split.kind or "time"
    return "stratified" if data.signature.target.classes and _smallest_class(data) >= 2 else "random"


def train_and_test(data: Clean, project: Project) -> tuple[Places, Places]:
    """Places of the training rows and of the test rows, which are looked at once, in the ranking."""
    kind, size = kind_of_split(data, project), project.split.test_size
    if kind == "time":
        days, order = _by(data), np.argsort(_by(data), kind="stable")
        border = days[order[len(order) - max(1, round(len(order) * size))]]  # a day is not divided
        border = max(border, days[days > days.min()].min(initial=border))
        return order[days[order] < border], order[days[order] >= border]
    chance = _chance(_by(data), project.seed)
    if kind == "grouped":
        names, group = np.unique(chance, return_inverse=True)
        test = _lowest(names, np.full(len(names), ALL), size)[group]
    else:
        test = _lowest(chance, _strata(data, kind), size)
    return np.flatnonzero(~test), np.flatnonzero(test)


def split_of(data: Clean, project: Project) -> Split:
    """Where the border lies between the rows that are learned from and the others."""
    kind, train = kind_of_split(data, project), train_and_test(data, project)[0]
    columns = tuple(data.raw.column_names) if data.raw is not None else ()
    if kind == "time":
        return Split(kind="time", columns=columns, borders={ALL: float(_by(data)[train].max())})
    learned = pd.Series(_chance(_by(data), project.seed)[train]).groupby(_strata(data, kind)[train]).min()
    return Split(kind=kind, columns=columns, borders={str(stratum): int(least) for stratum, least in learned.items()})


def not_learned(rows: Clean, split: Split, project: Project) -> Mask:
    """Which of these rows a training of this project that was split so has not learned from. Raises BadData, KeyError."""
    order = rows.order if rows.raw is None else order_of(rows.raw.select(split.columns), project)
    assert order is not None, "panels have days, and other rows come with their texts"
    by = order.to_numpy()
    if split.kind == "time":
        beyond: Mask = by > split.borders[ALL]
        return beyond
    border = [split.borders.get(stratum, 2**64 - 1) for stratum in _strata(rows, split.kind)]
    fresh: Mask = _chance(by, project.seed) < np.array(border, dtype=np.uint64)
    return fresh


def training_rows(data: Clean, project: Project) -> Clean:
    """The training rows, with the ranges and categories that they have."""
    rows = data.rows(train_and_test(data, project)[0])
    if rows.signature.panel and rows.order is not None:
        panel = known_by(rows.signature.panel, rows.inputs, rows.order)
        return replace(rows, signature=replace(rows.signature, inputs=window_columns(panel), panel=panel))
    inputs = [described(c, rows.inputs[c.name], project.columns.get(c.name, ColumnOptions())) for c in data.signature.inputs]
    return replace(rows, signature=replace(data.signature, inputs=tuple(inputs)))


def held_out_rows(data: Clean, project: Project) -> Clean:
    return data.rows(train_and_test(data, project)[1])


def _chance(by: np.ndarray, seed: int) -> np.ndarray:
    """A number that only content and seed decide."""
    return pd.util.hash_array(pd.util.hash_array(by) ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def _lowest(chance: np.ndarray, strata: np.ndarray, size: float) -> np.ndarray:
    """Whether a row is among the share of its stratum with the lowest numbers."""
    count = pd.Series(strata).map(pd.Series(strata).value_counts()) * size
    return (pd.Series(chance).groupby(strata).rank(method="first") <= count.round().clip(lower=1)).to_numpy()


def _strata(data: Clean, kind: str) -> np.ndarray:
    if kind == "stratified":
        return data.target.astype(int).astype(str).to_numpy()
    return np.full(len(data.target), ALL)


def folds(data: Clean, project: Project) -> list[tuple[Places, Places]]:
    """Places to fit on and to validate on, for rows that `train_and_test` gave for training, in that order."""
    kind, count = kind_of_split(data, project), project.split.folds
    by = _by(data) if kind == "grouped" else None
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
        raise _unsplit(error) from None


def _by_time(data: Clean, count: int) -> list[tuple[Places, Places]]:
    """Each fold validates on the days that follow those it learns from; a day is not divided."""
    days, place = np.unique(_by(data), return_inverse=True)
    try:
        parts = list(TimeSeriesSplit(count).split(days))
    except ValueError as error:
        raise _unsplit(error) from None
    return [(np.flatnonzero(np.isin(place, fit)), np.flatnonzero(np.isin(place, check))) for fit, check in parts]


def _unsplit(error: ValueError) -> BadData:
    return BadData([Problem("split", f"the rows cannot be split like this: {error}")])


def _smallest_class(data: Clean) -> int:
    return int(data.target.value_counts().min())


def _by(data: Clean) -> np.ndarray:
    assert data.order is not None, "the project's validation asks for split.column"
    return data.order.to_numpy()

"""Which rows train, which test, and the folds between.

A row's own content decides whether it tests, so that it stays a test row when the table grows, and a new version and the
champion can be compared on rows that neither has learned from.
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
from podium.learn.clean import Clean
from podium.learn.panel import known_by
from podium.project import ColumnOptions, Project

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
    if kind == "grouped":
        groups = pd.Series(_by(data))
        names = groups.drop_duplicates().reset_index(drop=True)
        test = groups.isin(names[_lucky(names, np.zeros(len(names)), size, project.seed)]).to_numpy()
    else:
        strata = data.target.to_numpy() if kind == "stratified" else np.zeros(len(data.target))
        test = _lucky(data.inputs.assign(target=data.target), strata, size, project.seed)
    return np.flatnonzero(~test), np.flatnonzero(test)


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


def _lucky(rows: pd.Series | pd.DataFrame, strata: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Whether a row is among the share of its stratum with the lowest numbers, which only content and seed decide."""
    mixed = pd.util.hash_pandas_object(rows, index=False).to_numpy() ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    luck = pd.Series(pd.util.hash_array(mixed))
    count = pd.Series(strata).map(pd.Series(strata).value_counts()) * size
    return (luck.groupby(strata).rank(method="first") <= count.round().clip(lower=1)).to_numpy()


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

"""Which rows train, which test, and the folds between.

A row's own content decides whether it tests, so that it stays a test row when the table grows, and a new version and the
champion can be compared on rows that neither has learned from.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit

from podium.learn.clean import Clean
from podium.project import Project

Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def kind_of_split(data: Clean, project: Project) -> str:
    """The project's, else stratified for classes and random for numbers."""
    if project.split.kind:
        return project.split.kind
    return "stratified" if data.signature.target.classes and _smallest_class(data) >= 2 else "random"


def train_and_test(data: Clean, project: Project) -> tuple[Places, Places]:
    """Places of the training rows and of the test rows, which are looked at once, in the ranking."""
    kind, size = kind_of_split(data, project), project.split.test_size
    if kind == "time":
        order = np.argsort(_by(data), kind="stable")
        cut = len(order) - max(1, round(len(order) * size))
        return order[:cut], order[cut:]
    luck = _luck(pd.Series(_by(data)) if kind == "grouped" else data.inputs.assign(target=data.target), project.seed)
    if kind == "grouped":
        test = luck < size
    else:
        strata = data.target.to_numpy() if kind == "stratified" else np.zeros(len(luck))
        test = pd.Series(luck).groupby(strata).rank(method="first").to_numpy() <= _count(strata, size)
    return np.flatnonzero(~test), np.flatnonzero(test)


def _luck(rows: pd.Series | pd.DataFrame, seed: int) -> np.ndarray:
    """For each row a number in [0, 1) that only its content and the seed decide."""
    mixed = pd.util.hash_pandas_object(rows, index=False).to_numpy() ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    return pd.util.hash_array(mixed) / 2.0**64


def _count(strata: np.ndarray, size: float) -> np.ndarray:
    """For each row, how many of its stratum test."""
    rows = pd.Series(strata)
    return np.maximum(1, (rows.map(rows.value_counts()) * size).round()).to_numpy()


def folds(data: Clean, project: Project) -> list[tuple[Places, Places]]:
    """Places to fit on and to validate on, for rows that `train_and_test` gave for training, in that order."""
    kind, count = kind_of_split(data, project), project.split.folds
    if kind == "time":
        return list(TimeSeriesSplit(count).split(data.inputs))
    if kind == "grouped":
        return list(GroupKFold(count).split(data.inputs, data.target, _by(data)))
    if kind == "stratified" and _smallest_class(data) >= 2:
        count = min(count, _smallest_class(data))
        return list(StratifiedKFold(count, shuffle=True, random_state=project.seed).split(data.inputs, data.target))
    return list(KFold(count, shuffle=True, random_state=project.seed).split(data.inputs))


def _smallest_class(data: Clean) -> int:
    return int(data.target.value_counts().min())


def _by(data: Clean) -> np.ndarray:
    if data.order is None:
        raise ValueError("split.column says which column holds the group or the time; it is missing")
    return data.order.to_numpy()

"""Which rows train, which test, and the folds between: the same answer for the same data and seed."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
)

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
    chosen = {"random": ShuffleSplit, "stratified": StratifiedShuffleSplit, "grouped": GroupShuffleSplit}[kind]
    splitter = chosen(n_splits=1, test_size=size, random_state=project.seed)
    train, test = next(splitter.split(data.inputs, data.target, _by(data) if kind == "grouped" else None))
    return np.sort(train), np.sort(test)


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

"""Rows keyed by entity and day to windows: each day with what was known of its entity before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatVector, IndexArray
from podium.schema.columns import Column, Panel

INDEX_NAME = "index"
INDEX, DAY, ACTUAL, LAST = "podium:index", "podium:day", "podium:actual", "podium:last"
"""Of each window: the day's number within its entity, the day, the target on it (NaN for the day to come), and before it."""


def derived(frame: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The frame with the panel's derived columns; a quotient by zero, or what is not finite, is 0."""
    made = frame.copy(deep=False)
    for column in panel.derived_columns:
        with np.errstate(all="ignore"):
            found = RULES[column.rule](*(made[name].to_numpy(dtype=float) for name in column.of))
        made[column.name] = np.where(
            np.isfinite(found) | np.isnan(sum(made[name].to_numpy() for name in column.of)), found, 0.0
        )
    return made


def _position(value: FloatVector, low: FloatVector, high: FloatVector) -> FloatVector:
    return np.where(high == low, 0.0, (value - low) / (high - low))


def _log_count(whole: FloatVector, part: FloatVector) -> FloatVector:
    return np.where(part == 0, 0.0, np.log(np.ceil(whole / part)))


RULES: dict[str, Callable[..., FloatVector]] = {
    "position": _position,
    "difference": lambda one, other: one - other,
    "ratio": lambda one, other: np.where(other == 0, 0.0, one / other),
    "log-count": _log_count,
}
"""`position` of a value between a low and a high; `difference`; `ratio`; `log-count`, ln(ceil(whole / part))."""


def sort_rows(frame: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Sorted by entity, in the order of their first rows, and day; of a day that comes twice the row that came last."""
    codes = pd.factorize(frame[panel.entity])[0]
    days = frame[panel.time].to_numpy(dtype=float)
    order = np.lexsort((np.arange(len(frame)), days, codes))
    codes, days = codes[order], days[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (codes[1:] != codes[:-1]) | (days[1:] != days[:-1])
    return frame.iloc[order[last]].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Windows:
    """`inputs` is a row a day for the model; `keys` has for each its entity, INDEX, DAY, ACTUAL and LAST."""

    inputs: pd.DataFrame
    keys: pd.DataFrame

    def take(self, places: IndexArray | np.ndarray) -> Windows:
        return Windows(self.inputs.iloc[places].reset_index(drop=True), self.keys.iloc[places].reset_index(drop=True))


def windows(frame: pd.DataFrame, panel: Panel, *, ahead: bool = True) -> Windows:
    """Typed rows (n) to windows (n, and with `ahead` one more an entity: the day after its last), in order.

    A day before is the row before of the same entity, whatever lies between them. Raises nothing: what is not known is NaN.
    """
    rows = derived(sort_rows(frame, panel), panel)
    codes = pd.factorize(rows[panel.entity])[0]
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(rows) else np.zeros(0, dtype=int)
    counts = np.diff(np.r_[starts, len(rows)])
    lengths = counts + ahead
    first = np.repeat(starts, lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place, known = first + index, index < np.repeat(counts, lengths)
    days, target = rows[panel.time].to_numpy(dtype=float), rows[panel.target].to_numpy(dtype=float)
    here = np.where(known, place, place - 1)
    entity = pd.Series(rows[panel.entity].to_numpy(dtype=object)[first], dtype=object)
    keys = {
        panel.entity: entity,
        INDEX: index,
        DAY: days[here] + ~known,
        ACTUAL: np.where(known, target[here], np.nan),
        LAST: _lagged(target, place, index, 1),
    }
    cells: dict[str, object] = {panel.entity: entity}
    for name in panel.numeric_columns:
        numbers = rows[name].to_numpy(dtype=float)
        cells |= {lag_name(name, step): _lagged(numbers, place, index, step) for step in range(1, panel.lags + 2)}
    return Windows(pd.DataFrame(cells), pd.DataFrame(keys))


def _lagged(numbers: FloatVector, place: IndexArray, index: IndexArray, step: int) -> FloatVector:
    return np.where(index >= step, numbers[np.maximum(place - step, 0)], np.nan)


def lag_name(name: str, step: int) -> str:
    """The input that holds a column so many days before."""
    return f"{name} {step} before"


def window_columns(panel: Panel) -> tuple[Column, ...]:
    """What a model of this panel takes."""
    numbers = [
        Column(lag_name(name, step), "number", nullable=True)
        for name in panel.numeric_columns
        for step in range(1, panel.lags + 2)
    ]
    return panel.entity_column, *numbers


def change_scale(last: FloatVector) -> FloatVector:
    """What a change is measured in: the size of the last value; 1 where there is none, or it is 0."""
    size = np.abs(last)
    return np.where(np.isnan(size) | (size == 0), 1.0, size)


@dataclass(frozen=True, slots=True)
class Forecast:
    """For each window: the target by the day before and the change alone, and as the panel integrates it."""

    step: FloatVector
    value: FloatVector


def forecast(keys: pd.DataFrame, changes: FloatVector, integrate: Literal["first", "last"]) -> Forecast:
    """Changes in units of the last value to values; the first day of an entity has no forecast and keeps its actual value."""
    index, actual, last = (keys[name].to_numpy() for name in (INDEX, ACTUAL, LAST))
    velocity = np.where(index == 0, 0.0, changes * change_scale(last))
    step = np.where(index == 0, actual, last + velocity)
    if integrate == "last":
        return Forecast(step, step)
    starts = np.flatnonzero(index == 0)
    lengths = np.diff(np.r_[starts, len(index)])
    runs = np.split(velocity, starts[1:]) if len(starts) else []
    summed = np.concatenate([np.cumsum(run) for run in runs]) if runs else velocity
    return Forecast(step, np.repeat(actual[starts], lengths) + summed)


def mask_entities(keys: pd.DataFrame, panel: Panel, entities: Sequence[str]) -> np.ndarray:
    """Which windows are of these entities."""
    return keys[panel.entity].isin(list(entities)).to_numpy()

"""Convert panel rows, keyed by entity and day, to windows: each day with the values of the days before it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from podium.schema.arrays import BoolMask, Columns, FloatVector, IndexArray
from podium.schema.columns import Column, Panel
from podium.tables.frequency import shift_times

INDEX_NAME = "index"
INDEX, DAY, ACTUAL, LAST = "podium:index", "podium:day", "podium:actual", "podium:last"
"""Key columns of a window: the day's index within its entity, the day, its target (NaN if unknown) and the previous target."""


def add_derived_columns(rows: Columns, panel: Panel) -> Columns:
    """Return the rows with the panel's derived columns added; non-finite results become 0 unless a source is NaN."""
    result = dict(rows)
    for column in panel.derived_columns:
        sources = [result[name] for name in column.of]
        with np.errstate(all="ignore"):
            values = RULES[column.rule](*sources)
        result[column.name] = np.where(np.isfinite(values) | np.isnan(sum(sources)), values, 0.0)
    return result


def _position(value: FloatVector, low: FloatVector, high: FloatVector) -> FloatVector:
    return np.where(high == low, 0.0, (value - low) / (high - low))


def _log_count(total: FloatVector, part: FloatVector) -> FloatVector:
    return np.where(part == 0, 0.0, np.log(np.ceil(total / part)))


RULES: dict[str, Callable[..., FloatVector]] = {
    "position": _position,
    "difference": lambda a, b: a - b,
    "ratio": lambda a, b: np.where(b == 0, 0.0, a / b),
    "log-count": _log_count,
}
"""Rules for derived columns: position of a value between low and high; a - b; a / b; ln(ceil(total / part))."""


def sort_rows(rows: Columns, panel: Panel) -> Columns:
    """Sort by entity, in order of first appearance, then by time. Rows with the same key become one."""
    codes, days = pd.factorize(rows[panel.entity])[0], rows[panel.time]
    order = np.lexsort((np.arange(len(days)), days, codes))
    codes, days = codes[order], days[order]
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = (codes[1:] != codes[:-1]) | (days[1:] != days[:-1])
    result = dict(take(rows, order[is_last]))
    if panel.duplicates in ("mean", "sum") and not is_last.all():
        starts = np.flatnonzero(np.r_[True, is_last[:-1]])
        counts = np.diff(np.r_[starts, len(order)]) if panel.duplicates == "mean" else 1
        for name in set(rows) - {panel.entity, panel.time}:
            result[name] = np.add.reduceat(rows[name][order], starts) / counts
    return result


def take(columns: Columns, indices: IndexArray | np.ndarray) -> Columns:
    """Return the rows with these indices."""
    return {name: cells[indices] for name, cells in columns.items()}


@dataclass(frozen=True, slots=True)
class Windows:
    """`inputs` has the model's inputs, one row per day; `keys` has the entity, INDEX, DAY, ACTUAL and LAST of each row."""

    inputs: Columns
    keys: Columns

    def __len__(self) -> int:
        return len(self.keys[INDEX])

    def take(self, indices: IndexArray | np.ndarray) -> Windows:
        return Windows(take(self.inputs, indices), take(self.keys, indices))


def windows(rows: Columns, panel: Panel, *, ahead: bool = True) -> Windows:
    """Return one window per typed row and, if `ahead`, one for the step after each entity's last, in the order of `sort_rows`.

    Lags count rows, not calendar steps: gaps are not filled. Missing lags are NaN.
    """
    rows = add_derived_columns(sort_rows(rows, panel), panel)
    codes, days, target = pd.factorize(rows[panel.entity])[0], rows[panel.time], rows[panel.target]
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else np.zeros(0, dtype=int)
    counts = np.diff(np.r_[starts, len(codes)])
    lengths = counts + ahead
    first = np.repeat(starts, lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    position, exists = first + index, index < np.repeat(counts, lengths)
    row = np.where(exists, position, position - 1)
    entity = rows[panel.entity][first]
    keys = {
        panel.entity: entity,
        INDEX: index,
        DAY: np.where(exists, days[row], shift_times(days[row], panel.frequency)),
        ACTUAL: np.where(exists, target[row], np.nan),
        LAST: _lagged(target, position, index, 1),
    }
    cells = {panel.entity: entity}
    for step in range(1, panel.lags + 2):
        earlier, is_missing = np.maximum(position - step, 0), index < step
        for name in panel.numeric_columns:
            cells[lag_name(name, step)] = lagged = rows[name][earlier]
            lagged[is_missing] = np.nan
    return Windows({column.name: cells[column.name] for column in window_columns(panel)}, keys)


def _lagged(numbers: FloatVector, position: IndexArray, index: IndexArray, step: int) -> FloatVector:
    return np.where(index >= step, numbers[np.maximum(position - step, 0)], np.nan)


def lag_name(name: str, step: int) -> str:
    """Return the name of the input that holds the value of a column `step` days earlier."""
    return f"{name} {step} before"


def window_columns(panel: Panel) -> tuple[Column, ...]:
    """Return the columns of the windows."""
    steps = range(1, panel.lags + 2)
    numbers = [Column(lag_name(name, step), "number", nullable=True) for name in panel.numeric_columns for step in steps]
    return panel.entity_column, *numbers


def change_scale(last: FloatVector) -> FloatVector:
    """Return the scale of a change: |previous value|, or 1 if it is missing or zero."""
    size = np.abs(last)
    return np.where(np.isnan(size) | (size == 0), 1.0, size)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Per window, `step` is the previous target plus the predicted change; `value` is the forecast from the panel's base."""

    step: FloatVector
    value: FloatVector


def forecast(keys: Columns, changes: FloatVector, base: Literal["first", "last"]) -> Forecast:
    """Turn predicted relative changes into values. An entity's first day has no forecast and keeps its actual value."""
    index, actual, last = (keys[name] for name in (INDEX, ACTUAL, LAST))
    change = np.where(index == 0, 0.0, changes * change_scale(last))
    step = np.where(index == 0, actual, last + change)
    if base == "last":
        return Forecast(step, step)
    starts = np.flatnonzero(index == 0)
    lengths = np.diff(np.r_[starts, len(index)])
    runs = np.split(change, starts[1:]) if len(starts) else []
    total_change = np.concatenate([np.cumsum(run) for run in runs]) if runs else change
    return Forecast(step, np.repeat(actual[starts], lengths) + total_change)


def mask_entities(keys: Columns, panel: Panel, entities: Collection[str]) -> BoolMask:
    """Return a mask that selects the windows of these entities."""
    codes, names = pd.factorize(keys[panel.entity])
    known = set(entities)
    return np.array([*(name in known for name in names), False], dtype=bool)[codes]  # -1: missing

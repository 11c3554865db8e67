"""Features of windows: changes between days, in units that make entities of any size alike.

Each has two forms that give the same bits: over the cells of a frame, and for the cells of one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatVector
from podium.schema.columns import Column, Value

CLIP = 1e6
"""Standardised numbers are cut off here, so that no input overflows a 32-bit tree."""
One = Callable[[Sequence[Value]], float]


@dataclass(slots=True)
class ColumnCache:
    """The columns of a frame as arrays, each made once."""

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    _entities: dict[int, tuple[np.ndarray, Any]] = field(default_factory=dict)

    def numbers(self, place: int) -> FloatVector:
        return self.frame[self.columns[place].name].to_numpy(dtype=float)

    def by_entity(self, place: int, table: Mapping[str, float]) -> FloatVector:
        """The number of each row's entity, NaN for one that the table does not have."""
        if place not in self._entities:
            self._entities[place] = pd.factorize(self.frame[self.columns[place].name])
        codes, names = self._entities[place]
        return np.array([*(table.get(name, np.nan) for name in names), np.nan])[codes]


@dataclass(frozen=True, slots=True)
class RelativeChange:
    """(a - b) / (|a| + |b|) of two columns, between -1 and 1, then (x - mean) / scale; 0 where one is missing or both are 0."""

    column: int
    name: str
    base: int
    mean: float
    scale: float

    def over(self, cells: ColumnCache) -> FloatVector:
        one, other = cells.numbers(self.column), cells.numbers(self.base)
        with np.errstate(all="ignore"):
            share = (one - other) / (np.abs(one) + np.abs(other))
        return np.where(np.isnan(share), 0.0, np.clip((share - self.mean) / self.scale, -CLIP, CLIP))

    def one(self) -> One:
        column, base, mean, scale = self.column, self.base, self.mean, self.scale

        def change(values: Sequence[Value]) -> float:
            one: Any = values[column]
            other: Any = values[base]
            if one is None or other is None or not (size := abs(one) + abs(other)):
                return 0.0
            return float(max(-CLIP, min(CLIP, ((one - other) / size - mean) / scale)))

        return change


@dataclass(frozen=True, slots=True)
class EntityStandardized:
    """A number, or its change since `base`, standardised by its entity's mean and scale; 0 where it is missing.

    Where only what was before is missing the change is 0. Without a table the number stays as it is; an entity that a table
    does not have gives NaN.
    """

    column: int
    name: str
    base: int | None
    entity: int
    table: tuple[tuple[str, float, float], ...] = ()

    def over(self, cells: ColumnCache) -> FloatVector:
        number = cells.numbers(self.column)
        found = number
        if self.base is not None:
            found = number - cells.numbers(self.base)
            found = np.where(np.isnan(found), 0.0, found)
        if self.table:
            mean = cells.by_entity(self.entity, {name: mean for name, mean, _ in self.table})
            found = (found - mean) / cells.by_entity(self.entity, {name: scale for name, _, scale in self.table})
        return np.where(np.isnan(number), 0.0, found)

    def one(self) -> One:
        column, base, entity, has_table = self.column, self.base, self.entity, bool(self.table)
        table = {name: (mean, scale) for name, mean, scale in self.table}
        unknown = (math.nan, math.nan)

        def change(values: Sequence[Value]) -> float:
            found: Any = values[column]
            if found is None:
                return 0.0
            if base is not None:
                other: Any = values[base]
                found = 0.0 if other is None else found - other
            if has_table:
                mean, scale = table.get(values[entity], unknown)  # type: ignore[arg-type]
                found = (found - mean) / scale
            return float(found)

        return change


@dataclass(frozen=True, slots=True)
class EntityScale:
    """A number of each entity as a share of a column's size; of 1 where that is missing or 0, and NaN for other entities."""

    column: int
    name: str
    entity: int
    table: tuple[tuple[str, float], ...]

    def over(self, cells: ColumnCache) -> FloatVector:
        size = np.abs(cells.numbers(self.column))
        return cells.by_entity(self.entity, dict(self.table)) / np.where(np.isnan(size) | (size == 0), 1.0, size)

    def one(self) -> One:
        column, entity, table = self.column, self.entity, dict(self.table)

        def share(values: Sequence[Value]) -> float:
            size: Any = values[column]
            return table.get(values[entity], math.nan) / (abs(size) if size else 1.0)  # type: ignore[arg-type]

        return share

"""Features of panel windows: changes between days, scaled so that entities of any size are comparable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from podium.models.features import CLIP, ColumnCache, RowWriter, Vector, check_column
from podium.schema.arrays import FloatVector
from podium.schema.columns import Column, Value

RowFunction = Callable[[Sequence[Value]], float]


def _write_each(functions: Sequence[tuple[int, RowFunction]], vector: Vector) -> RowWriter:
    def write(values: Sequence[Value]) -> None:
        for index, function in functions:
            vector[index] = function(values)

    return write


@dataclass(frozen=True, slots=True)
class RelativeChange:
    """(a - b) / (|a| + |b|) for two columns, standardized as (x - mean) / scale; 0 if a cell is missing or both are 0."""

    column: int
    name: str
    base: int
    mean: float
    scale: float

    def transform(self, cells: ColumnCache) -> FloatVector:
        number, base = cells.numbers(self.column), cells.numbers(self.base)
        with np.errstate(all="ignore"):
            change = (number - base) / (np.abs(number) + np.abs(base))
        return np.where(np.isnan(change), 0.0, np.clip((change - self.mean) / self.scale, -CLIP, CLIP))

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        return _write_each([(index, feature._row_function()) for index, feature in features], vector)

    def _row_function(self) -> RowFunction:
        column, base, mean, scale = self.column, self.base, self.mean, self.scale

        def change(values: Sequence[Value]) -> float:
            number: Any = values[column]
            previous: Any = values[base]
            if number is None or previous is None or not (size := abs(number) + abs(previous)):
                return 0.0
            return float(max(-CLIP, min(CLIP, ((number - previous) / size - mean) / scale)))

        return change

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=False)
        check_column(self, self.base, columns, text=False)


@dataclass(frozen=True, slots=True)
class EntityStandardized:
    """A number, or its change from `base`, standardized by its entity's mean and scale.

    `table` holds (entity, mean, scale); if it is empty, the number stays unscaled. The feature is 0 if the number is
    missing, and NaN for an entity that is not in the table. The change is 0 if only `base` is missing.
    """

    column: int
    name: str
    base: int | None
    entity: int
    table: tuple[tuple[str, float, float], ...] = ()

    def transform(self, cells: ColumnCache) -> FloatVector:
        number = cells.numbers(self.column)
        result = number
        if self.base is not None:
            change = number - cells.numbers(self.base)
            result = np.where(np.isnan(change), 0.0, change)
        if self.table:
            mean = cells.by_entity(self.entity, {name: mean for name, mean, _ in self.table})
            result = (result - mean) / cells.by_entity(self.entity, {name: scale for name, _, scale in self.table})
        return np.where(np.isnan(number), 0.0, result)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        return _write_each([(index, feature._row_function()) for index, feature in features], vector)

    def _row_function(self) -> RowFunction:
        column, base, entity, has_table = self.column, self.base, self.entity, bool(self.table)
        table = {name: (mean, scale) for name, mean, scale in self.table}
        unknown = (math.nan, math.nan)

        def standardized(values: Sequence[Value]) -> float:
            number: Any = values[column]
            if number is None:
                return 0.0
            if base is not None:
                previous: Any = values[base]
                number = 0.0 if previous is None else number - previous
            if has_table:
                mean, scale = table.get(values[entity], unknown)  # type: ignore[arg-type]
                number = (number - mean) / scale
            return float(number)

        return standardized

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=False)
        if self.base is not None:
            check_column(self, self.base, columns, text=False)
        if self.table:
            check_column(self, self.entity, columns, text=True)
        if not all(math.isfinite(scale) and scale for _, _, scale in self.table):
            raise ValueError(f"feature {self.name[:80]}: every scale must be finite and not 0")


@dataclass(frozen=True, slots=True)
class EntityScale:
    """The entity's number in `table` divided by |x|, or by 1 if x is missing or 0; NaN for unknown entities."""

    column: int
    name: str
    entity: int
    table: tuple[tuple[str, float], ...]

    def transform(self, cells: ColumnCache) -> FloatVector:
        size = np.abs(cells.numbers(self.column))
        return cells.by_entity(self.entity, dict(self.table)) / np.where(np.isnan(size) | (size == 0), 1.0, size)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        return _write_each([(index, feature._row_function()) for index, feature in features], vector)

    def _row_function(self) -> RowFunction:
        column, entity, table = self.column, self.entity, dict(self.table)

        def ratio(values: Sequence[Value]) -> float:
            size: Any = values[column]
            return table.get(values[entity], math.nan) / (abs(size) if size else 1.0)  # type: ignore[arg-type]

        return ratio

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=False)
        check_column(self, self.entity, columns, text=True)

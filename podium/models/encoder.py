"""Typed cells to numbers: fitted once, stored with the model, the same for a frame and for one record."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from podium.models.panel_features import CLIP, ColumnCache, EntityScale, EntityStandardized, RelativeChange
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import EPOCH, Column, Value


@dataclass(frozen=True, slots=True)
class Standardized:
    """A number, or a part of a date: missing filled with the median, then (x - mean) / scale."""

    column: int
    name: str
    part: str
    fill: float
    mean: float
    scale: float


@dataclass(frozen=True, slots=True)
class MissingIndicator:
    """1 where the column has no value."""

    column: int
    name: str


@dataclass(frozen=True, slots=True)
class OneHot:
    """1 where the column is one of these categories; with `rest`, also where it was never seen in training."""

    column: int
    name: str
    levels: tuple[str, ...]
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The number as it came; NaN where it is missing."""

    column: int
    name: str


@dataclass(frozen=True, slots=True)
class Ordinal:
    """The place of the category among `levels`; `other` where it is none of them, NaN where it is missing."""

    column: int
    name: str
    levels: tuple[str, ...]
    other: float


OfCell = Standardized | MissingIndicator | OneHot | Passthrough | Ordinal
Feature = OfCell | RelativeChange | EntityStandardized | EntityScale


def _month(days: float) -> float:
    return float(date.fromordinal(int(days) + EPOCH).month)


DATE_PARTS: dict[str, tuple[Callable[[pd.Series], pd.Series], Callable[[float], float]]] = {
    "month": (lambda days: days.map(_month, na_action="ignore").astype(float), _month),
    "weekday": (lambda days: (days + 3) % 7, lambda days: (days + 3) % 7),
}
"""Parts of a date from the days since 1970: for a column, and for one value."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """The fitted tables that turn a row of typed cells into a vector, one number a feature."""

    columns: tuple[Column, ...]
    features: tuple[Feature, ...]

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    def only(self, places: Sequence[int]) -> Encoder:
        """The encoder of the chosen features."""
        return Encoder(self.columns, tuple(self.features[place] for place in places))

    def transform(self, frame: pd.DataFrame) -> FloatMatrix:
        """A typed frame (n rows) to a float64 matrix (n, features)."""
        matrix, cells = np.empty((len(frame), len(self.features)), order="F"), ColumnCache(frame, self.columns)
        for place, feature in enumerate(self.features):
            if isinstance(feature, RelativeChange | EntityStandardized | EntityScale):
                matrix[:, place] = feature.over(cells)
            else:
                matrix[:, place] = _column(feature, frame[self.columns[feature.column].name], self.columns[feature.column])
        return np.ascontiguousarray(matrix)

    def into(self, vector: MutableSequence[float]) -> Callable[[Sequence[Value]], None]:
        """A function that writes one row's features into `vector`, with the same numbers as `transform`."""
        numbers = [
            (place, f.column, f.fill, f.mean, f.scale, DATE_PARTS[f.part][1] if f.part else None)
            for place, f in enumerate(self.features)
            if isinstance(f, Standardized)
        ]
        plain = [entry[:5] for entry in numbers if entry[5] is None]
        parts = [entry for entry in numbers if entry[5] is not None]
        blanks = [(place, f.column) for place, f in enumerate(self.features) if isinstance(f, MissingIndicator)]
        asis = [(place, f.column) for place, f in enumerate(self.features) if isinstance(f, Passthrough)]
        codes = [(place, f.column, _codes(f), f.other) for place, f in enumerate(self.features) if isinstance(f, Ordinal)]
        changes = [
            (place, f.one())
            for place, f in enumerate(self.features)
            if isinstance(f, RelativeChange | EntityStandardized | EntityScale)
        ]
        levels = self._level_tables()
        zeros = [place for place, f in enumerate(self.features) if isinstance(f, OneHot)]

        def write(values: Sequence[Value]) -> None:
            for place, column, fill, mean, scale in plain:
                value = values[column]
                vector[place] = _cut(((fill if value is None else value) - mean) / scale)  # type: ignore[operator]
            for place, column, fill, mean, scale, part in parts:
                value = values[column]
                days = fill if value is None else part(value)  # type: ignore[misc,arg-type]
                vector[place] = _cut((days - mean) / scale)
            for place, column in blanks:
                vector[place] = 1.0 if values[column] is None else 0.0
            for place, column in asis:
                value = values[column]
                vector[place] = math.nan if value is None else value  # type: ignore[assignment]
            for place, column, known, other in codes:
                vector[place] = known.get(values[column], other)
            for place, change in changes:
                vector[place] = change(values)
            for place in zeros:
                vector[place] = 0.0
            for column, table, rest in levels:
                place = table.get(values[column], rest)
                if place >= 0:
                    vector[place] = 1.0

        return write

    def _level_tables(self) -> list[tuple[int, dict[Value, int], int]]:
        """For each text column: category to place, and the place of what was never seen (-1: none)."""
        tables: dict[int, tuple[dict[Value, int], int]] = {}
        for place, feature in enumerate(self.features):
            if isinstance(feature, OneHot):
                table, rest = tables.get(feature.column, ({None: -1}, -1))
                table.update(dict.fromkeys(feature.levels, place))
                tables[feature.column] = table, place if feature.rest else rest
        for column, (table, _) in tables.items():
            for level in self.columns[column].categories:
                table.setdefault(level, -1)
        return [(column, table, rest) for column, (table, rest) in tables.items()]


def _codes(feature: Ordinal) -> dict[Value, float]:
    return {None: math.nan, **{level: float(code) for code, level in enumerate(feature.levels)}}


def _cut(number: float) -> float:
    if -CLIP < number < CLIP or number != number:
        return number
    return CLIP if number > 0 else -CLIP


def _column(feature: OfCell, cells: pd.Series, column: Column) -> FloatVector:
    if isinstance(feature, MissingIndicator):
        return cells.isna().to_numpy(dtype=float)
    if isinstance(feature, Passthrough):
        return cells.to_numpy(dtype=float)
    if isinstance(feature, Ordinal):
        return (
            cells.map(_codes(feature), na_action="ignore")
            .where(cells.isin(feature.levels) | cells.isna(), feature.other)
            .to_numpy(dtype=float)
        )
    if isinstance(feature, OneHot):
        hit = cells.isin(feature.levels)
        if feature.rest:
            hit |= cells.notna() & ~cells.isin(column.categories)
        return hit.to_numpy(dtype=float)
    numbers = DATE_PARTS[feature.part][0](cells) if feature.part else cells
    filled = numbers.fillna(feature.fill).to_numpy(dtype=float)
    return np.clip((filled - feature.mean) / feature.scale, -CLIP, CLIP)


def fit_encoder(frame: pd.DataFrame, columns: Sequence[Column], max_categories: int) -> Encoder:
    """Learn medians, scales and levels from typed training rows."""
    features: list[Feature] = []
    for place, column in enumerate(columns):
        cells = frame[column.name]
        if column.is_text:
            features += _fit_levels(place, column, cells, max_categories)
        else:
            features += _fit_numbers(place, column, cells)
        if column.nullable:
            features.append(MissingIndicator(place, f"{column.name} is missing"))
    return Encoder(tuple(columns), tuple(features))


def _fit_numbers(place: int, column: Column, cells: pd.Series) -> list[Feature]:
    features: list[Feature] = []
    for part in ("", *DATE_PARTS) if column.kind == "date" else ("",):
        numbers = DATE_PARTS[part][0](cells) if part else cells
        present = numbers.dropna().to_numpy(dtype=float)
        middle, mean, scale = (np.median(present), present.mean(), present.std()) if len(present) else (0.0, 0.0, 1.0)
        name = f"{column.name} {part}".strip()
        steady = scale <= 1e-12 * abs(mean)  # all the same but for rounding
        features.append(Standardized(place, name, part, float(middle), float(mean), 1.0 if steady else float(scale)))
    return features


def _fit_levels(place: int, column: Column, cells: pd.Series, most: int) -> list[Feature]:
    """A feature for each frequent category, one more for the others; ties by name, so runs repeat."""
    counts = cells.value_counts().to_dict()
    order = sorted(column.categories, key=lambda level: (-counts.get(level, 0), level))
    frequent, rare = order[:most], order[most:]
    features: list[Feature] = [OneHot(place, f"{column.name} = {level}", (level,)) for level in sorted(frequent)]
    if rare:
        features.append(OneHot(place, f"{column.name} is another", tuple(sorted(rare)), rest=True))
    return features

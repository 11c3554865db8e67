"""Features computed from a single table cell: categories, numbers and dates as floats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd

from podium.schema.arrays import FloatVector
from podium.schema.columns import EPOCH, Column, Value

CLIP = 1e6
"""Bound on standardized numbers, so that no input overflows a tree that computes in float32."""

Vector = MutableSequence[float]
RowWriter = Callable[[Sequence[Value]], None]
"""Writes the features of one row of typed cells into a vector."""


@dataclass(slots=True)
class ColumnCache:
    """The columns of a typed frame; entities are factorized and texts are split once for all features."""

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    _entities: dict[int, tuple[np.ndarray, Any]] = field(default_factory=dict)
    _words: dict[int, list[frozenset[str]]] = field(default_factory=dict)

    def series(self, index: int) -> pd.Series:
        return self.frame[self.columns[index].name]

    def numbers(self, index: int) -> FloatVector:
        return self.series(index).to_numpy(dtype=float)

    def words(self, index: int) -> list[frozenset[str]]:
        """Return the words of each text; none for a missing text."""
        if index not in self._words:
            self._words[index] = list(map(words_of, self.series(index).tolist()))
        return self._words[index]

    def by_entity(self, index: int, table: Mapping[str, float]) -> FloatVector:
        """Return each row's value in `table`, looked up by its entity; NaN for entities that are not in `table`."""
        if index not in self._entities:
            self._entities[index] = pd.factorize(self.series(index))
        codes, names = self._entities[index]
        return np.array([*(table.get(name, np.nan) for name in names), np.nan])[codes]


class Feature(Protocol):
    """One number per row. `transform` and `compile_row` must give identical results.

    To add a feature, write a frozen dataclass with these members and list it in `podium.models.encoder.FEATURE_CLASSES`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def column(self) -> int: ...

    @property
    def name(self) -> str: ...

    def transform(self, cells: ColumnCache) -> FloatVector:
        """Return the value of the feature for every row."""

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        """Return a function that writes `features`, all of this class, to their indices in `vector`.

        One loop per class is faster than one call per feature.
        """

    def check(self, columns: Sequence[Column]) -> None:
        """Raise ValueError if a column to read is missing or of the wrong kind, or a parameter is out of range."""


def check_column(feature: Feature, index: int, columns: Sequence[Column], *, text: bool | None) -> None:
    """Check a column that a feature reads; `text` says whether it must be text (None: any kind). Raises ValueError."""
    if not 0 <= index < len(columns):
        raise ValueError(f"feature {feature.name[:80]}: column {index} does not exist")
    if text is not None and columns[index].is_text != text:
        raise ValueError(f"feature {feature.name[:80]}: column {index} must be {'text' if text else 'numeric'}")


@dataclass(frozen=True, slots=True)
class Standardized:
    """(x - mean) / scale, where x is a number or a part of a date. Missing values are first replaced by `fill`."""

    column: int
    name: str
    part: str
    fill: float
    mean: float
    scale: float

    def transform(self, cells: ColumnCache) -> FloatVector:
        series = cells.series(self.column)
        numbers = DATE_PARTS[self.part][0](series) if self.part else series
        filled = numbers.fillna(self.fill).to_numpy(dtype=float)
        return np.clip((filled - self.mean) / self.scale, -CLIP, CLIP)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        numbers = [(index, f.column, f.fill, f.mean, f.scale) for index, f in features if not f.part]
        dates = [(index, f.column, f.fill, f.mean, f.scale, DATE_PARTS[f.part][1]) for index, f in features if f.part]

        def write(values: Sequence[Value]) -> None:
            value: Any
            for index, column, fill, mean, scale in numbers:
                value = values[column]
                vector[index] = _clip(((fill if value is None else value) - mean) / scale)
            for index, column, fill, mean, scale, part in dates:
                value = values[column]
                vector[index] = _clip(((fill if value is None else part(value)) - mean) / scale)

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=False)
        if self.part and (self.part not in DATE_PARTS or columns[self.column].kind != "date"):
            raise ValueError(f"feature {self.name[:80]}: unknown part of a date")
        if not math.isfinite(self.scale) or self.scale == 0 or not math.isfinite(self.mean):
            raise ValueError(f"feature {self.name[:80]}: mean and scale must be finite, and the scale not 0")


def _month(days: float) -> float:
    return float(date.fromordinal(math.floor(days) + EPOCH).month)


DATE_PARTS: dict[str, tuple[Callable[[pd.Series], pd.Series], Callable[[float], float]]] = {
    "month": (lambda days: days.map(_month, na_action="ignore").astype(float), _month),
    "weekday": (lambda days: (np.floor(days) + 3) % 7, lambda days: (math.floor(days) + 3.0) % 7),
    "hour": (lambda days: days % 1 * 24, lambda days: days % 1 * 24),
}
"""Parts of a date, computed from days since 1970, for a column and for a single value."""


def _clip(number: float) -> float:
    if -CLIP < number < CLIP or number != number:
        return number
    return CLIP if number > 0 else -CLIP


@dataclass(frozen=True, slots=True)
class MissingIndicator:
    """1 if the cell is missing, else 0."""

    column: int
    name: str

    def transform(self, cells: ColumnCache) -> FloatVector:
        return cells.series(self.column).isna().to_numpy(dtype=float)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        pairs = [(index, f.column) for index, f in features]

        def write(values: Sequence[Value]) -> None:
            for index, column in pairs:
                vector[index] = 1.0 if values[column] is None else 0.0

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=None)


@dataclass(frozen=True, slots=True)
class OneHot:
    """1 if the cell is one of `levels`, else 0; with `rest`, also 1 for categories unseen in training."""

    column: int
    name: str
    levels: tuple[str, ...]
    rest: bool = False

    def transform(self, cells: ColumnCache) -> FloatVector:
        series = cells.series(self.column)
        hit = series.isin(self.levels)
        if self.rest:
            hit |= series.notna() & ~series.isin(cells.columns[self.column].categories)
        return hit.to_numpy(dtype=float)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        indices = [index for index, _ in features]
        tables = _category_tables(features, columns)

        def write(values: Sequence[Value]) -> None:
            for index in indices:
                vector[index] = 0.0
            for column, table, rest in tables:
                index = table.get(values[column], rest)
                if index >= 0:
                    vector[index] = 1.0

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=True)


def _category_tables(
    features: Sequence[tuple[int, OneHot]], columns: Sequence[Column]
) -> list[tuple[int, dict[Value, int], int]]:
    """Return each text column with its category-to-index map and its index for unseen categories (-1: none)."""
    tables: dict[int, tuple[dict[Value, int], int]] = {}
    for index, feature in features:
        table, rest = tables.get(feature.column, ({None: -1}, -1))
        table.update(dict.fromkeys(feature.levels, index))
        tables[feature.column] = table, index if feature.rest else rest
    for column, (table, _) in tables.items():
        for category in columns[column].categories:
            table.setdefault(category, -1)
    return [(column, table, rest) for column, (table, rest) in tables.items()]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The number unchanged; NaN if missing."""

    column: int
    name: str

    def transform(self, cells: ColumnCache) -> FloatVector:
        return cells.numbers(self.column)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        pairs = [(index, f.column) for index, f in features]

        def write(values: Sequence[Value]) -> None:
            for index, column in pairs:
                value: Any = values[column]
                vector[index] = math.nan if value is None else value

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=False)


@dataclass(frozen=True, slots=True)
class PassthroughText:
    """The text unchanged; None if missing. It makes the matrix one of objects, which only a RunnerScorer takes."""

    column: int
    name: str

    def transform(self, cells: ColumnCache) -> Any:
        series = cells.series(self.column)
        return series.astype(object).where(series.notna(), None).to_numpy()

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Any) -> RowWriter:
        pairs = [(index, f.column) for index, f in features]

        def write(values: Sequence[Value]) -> None:
            for index, column in pairs:
                vector[index] = values[column]

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=True)


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Position of the category in `levels`; `other` for any other category, NaN if missing."""

    column: int
    name: str
    levels: tuple[str, ...]
    other: float

    def transform(self, cells: ColumnCache) -> FloatVector:
        series = cells.series(self.column)
        codes = series.map(self._codes(), na_action="ignore")
        return codes.where(series.isin(self.levels) | series.isna(), self.other).to_numpy(dtype=float)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        tables = [(index, f.column, f._codes(), f.other) for index, f in features]

        def write(values: Sequence[Value]) -> None:
            for index, column, codes, other in tables:
                vector[index] = codes.get(values[column], other)

        return write

    def _codes(self) -> dict[Value, float]:
        return {None: math.nan, **{level: float(code) for code, level in enumerate(self.levels)}}

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=True)


_WORD = re.compile(r"[^\W\d_]{2,}")


def words_of(text: Any) -> frozenset[str]:
    """Return the distinct words of a text in lower case; none for None."""
    return frozenset(_WORD.findall(text.lower())) if text is not None else frozenset()


@dataclass(frozen=True, slots=True)
class Word:
    """1 if the text has the word, else 0."""

    column: int
    name: str
    word: str

    def transform(self, cells: ColumnCache) -> FloatVector:
        return np.array([self.word in words for words in cells.words(self.column)], dtype=float)

    @classmethod
    def compile_row(cls, features: Sequence[tuple[int, Self]], columns: Sequence[Column], vector: Vector) -> RowWriter:
        indices: dict[int, list[tuple[int, str]]] = {}
        for index, feature in features:
            indices.setdefault(feature.column, []).append((index, feature.word))

        def write(values: Sequence[Value]) -> None:
            for column, pairs in indices.items():
                words = words_of(values[column])
                for index, word in pairs:
                    vector[index] = 1.0 if word in words else 0.0

        return write

    def check(self, columns: Sequence[Column]) -> None:
        check_column(self, self.column, columns, text=True)

"""Fitted encoders, stored with the model: convert typed cells to feature vectors, identically for a frame and for one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from podium.models.features import (
    DATE_PARTS,
    ColumnCache,
    Feature,
    MissingIndicator,
    OneHot,
    Ordinal,
    Passthrough,
    PassthroughText,
    RowWriter,
    Standardized,
    Vector,
    Word,
    words_of,
)
from podium.models.panel_features import EntityScale, EntityStandardized, RelativeChange
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Value

MAX_WORDS, MIN_WORD_CELLS = 100, 5
"""Number of words of a text column that become features, and number of cells that must have a word."""
FEATURE_CLASSES: tuple[type[Feature], ...] = (
    Standardized,
    MissingIndicator,
    Passthrough,
    PassthroughText,
    Ordinal,
    OneHot,
    Word,
    RelativeChange,
    EntityStandardized,
    EntityScale,
)
"""The feature classes that an encoder, and therefore a model file, may contain."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Fitted features, in the order in which they appear in the feature vector."""

    columns: tuple[Column, ...]
    features: tuple[Feature, ...]

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def holds_text(self) -> bool:
        """Return whether a feature is a text, so that the matrix is one of objects."""
        return any(isinstance(feature, PassthroughText) for feature in self.features)

    def subset(self, indices: Sequence[int]) -> Encoder:
        """Return an encoder with only the chosen features."""
        return Encoder(self.columns, tuple(self.features[index] for index in indices))

    def used_columns(self) -> set[str]:
        """Return the names of the columns that a feature reads."""
        return {self.columns[feature.column].name for feature in self.features}

    def transform(self, frame: pd.DataFrame) -> FloatMatrix:
        """Return the (n, features) matrix of a typed frame of n rows, column by column in memory."""
        cells, dtype = ColumnCache(frame, self.columns), object if self.holds_text else float
        matrix = np.empty((len(frame), len(self.features)), dtype, order="F")
        for index, feature in enumerate(self.features):
            matrix[:, index] = feature.transform(cells)
        return matrix

    def transform_rows(self, rows: Sequence[Sequence[Value]]) -> FloatMatrix:
        """Return the (n, features) matrix of a few rows of typed cells, faster than `transform` for less than a hundred."""
        vector = [0.0] * len(self.features)
        write = self.compile_row_writer(vector)
        matrix = np.empty((len(rows), len(self.features)), object if self.holds_text else float)
        for index, row in enumerate(rows):
            write(row)
            matrix[index] = vector
        return matrix

    def compile_row_writer(self, vector: Vector) -> RowWriter:
        """Return a function that writes one row's features into `vector`, identical to those of `transform`."""
        groups: dict[type[Feature], list[tuple[int, Feature]]] = {}
        for index, feature in enumerate(self.features):
            groups.setdefault(type(feature), []).append((index, feature))
        writers = [feature_class.compile_row(group, self.columns, vector) for feature_class, group in groups.items()]
        if len(writers) == 1:
            return writers[0]

        def write(values: Sequence[Value]) -> None:
            for writer in writers:
                writer(values)

        return write


def fit_encoder(frame: pd.DataFrame, columns: Sequence[Column], max_categories: int) -> Encoder:
    """Learn medians, scales and categories from typed training rows."""
    features: list[Feature] = []
    for index, column in enumerate(columns):
        cells = frame[column.name]
        if column.kind == "text":
            features += _fit_words(index, column, cells)
        elif column.is_text:
            features += _fit_categories(index, column, cells, max_categories)
        else:
            features += _fit_numbers(index, column, cells)
        if column.nullable:
            features.append(MissingIndicator(index, f"{column.name} is missing"))
    return Encoder(tuple(columns), tuple(features))


def _fit_numbers(index: int, column: Column, cells: pd.Series) -> list[Feature]:
    features: list[Feature] = []
    for part in ("", *DATE_PARTS) if column.kind == "date" else ("",):
        numbers = DATE_PARTS[part][0](cells) if part else cells
        present = numbers.dropna().to_numpy(dtype=float)
        if part == "hour" and not present.any():
            continue  # dates without a time of day
        median, mean, scale = (np.median(present), present.mean(), present.std()) if len(present) else (0.0, 0.0, 1.0)
        name = f"{column.name} {part}".strip()
        is_constant = scale <= 1e-12 * abs(mean)  # up to rounding
        features.append(Standardized(index, name, part, float(median), float(mean), 1.0 if is_constant else float(scale)))
    return features


def _fit_words(index: int, column: Column, cells: pd.Series) -> list[Feature]:
    """Return a feature for each of the words that are in the most cells, but not in nearly all."""
    counts = Counter(word for text in cells.dropna() for word in words_of(text))
    low, high = max(MIN_WORD_CELLS, 0.01 * len(cells)), 0.9 * len(cells)
    frequent = sorted((word for word, count in counts.items() if low <= count <= high), key=lambda word: (-counts[word], word))
    return [Word(index, f'{column.name} has "{word}"', word) for word in sorted(frequent[:MAX_WORDS])]


def _fit_categories(index: int, column: Column, cells: pd.Series, max_categories: int) -> list[Feature]:
    """Return one feature per frequent category and one for the others. Ties are broken by name for reproducibility."""
    counts = cells.value_counts().to_dict()
    order = sorted(column.categories, key=lambda level: (-counts.get(level, 0), level))
    frequent, rare = order[:max_categories], order[max_categories:]
    features: list[Feature] = [OneHot(index, f"{column.name} = {level}", (level,)) for level in sorted(frequent)]
    if rare:
        features.append(OneHot(index, f"{column.name} is another", tuple(sorted(rare)), rest=True))
    return features

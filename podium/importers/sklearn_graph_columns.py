"""Columns of numbers and of codes in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from podium.importers.graph_builder import GraphBuilder, Tensor
from podium.schema.columns import Column

NO_CODE = -1.0
"""The code of a category that a text column does not have."""


class Unsupported(Exception):
    """An estimator, or an option of one, that has no operators here."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A (rows, columns) tensor; `names` and `categories` are known for input columns only, `categories` for text."""

    tensor: Tensor
    names: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of_input(cls, columns: Sequence[Column]) -> Columns:
        """Return the input of a new graph."""
        names, categories = tuple(column.name for column in columns), tuple(column.categories for column in columns)
        return cls(GraphBuilder().source, names, categories)

    def select(self, indices: Sequence[int]) -> Columns:
        return Columns(self.tensor.select(list(indices)), _pick(self.names, indices), _pick(self.categories, indices))

    def code(self, index: int, value: Any) -> float:
        """Return the number of a value in a column."""
        categories = self.categories[index] if self.categories else ()
        if is_missing(value):
            return float("nan")
        if categories or isinstance(value, str):
            return float(categories.index(value)) if value in categories else NO_CODE
        return float(value)


def _pick(values: tuple[Any, ...], indices: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[index] for index in indices) if values else ()


def is_missing(value: Any) -> bool:
    """Return whether a value is None or NaN."""
    return value is None or value != value

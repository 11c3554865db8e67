"""Text columns of CatBoost models, which know categories by their hash; their texts may come from a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from podium.importers.catboost_statistics import Category, Counts
from podium.importers.city_hash import category_hash
from podium.models.catboost_trees import Split

NO_CATEGORY = 1 << 40
"""Stands for the hash of an unknown category; hashes have 32 bits."""


@dataclass(frozen=True)
class TextColumn:
    """A column of categories. `is_complete` is false if other categories may have been in the training rows."""

    index: int
    texts: tuple[str, ...]
    is_complete: bool

    @cached_property
    def _hashes(self) -> np.ndarray:
        return np.array([category_hash(text) for text in self.texts], dtype=np.uint32)

    @cached_property
    def category(self) -> Category:
        """The hashes by code as signed 64-bit integers, the last one for an unknown category."""
        signed = self._hashes.astype(np.int32).astype(np.int64)
        return Category(self.index, np.append(signed, NO_CATEGORY).view(np.uint64))

    def split(self, value: int) -> Split:
        """Return the split that is true for the category with this hash."""
        return Split(self.index, codes=tuple(np.flatnonzero(self._hashes == value & 0xFFFFFFFF).tolist()))

    def codes(self, cells: pd.Series) -> pd.Series:
        """Return the codes of texts. Raises ValueError for a missing category, or one that training may have had."""
        codes = cells.map({text: float(code) for code, text in enumerate(self.texts)})
        if cells.isna().any() or (codes.isna().any() and not self.is_complete):
            raise ValueError("a missing or unknown category")
        return codes.fillna(len(self.texts)).astype(float)


def read_text_columns(
    features: Mapping[str, Any], tables: Mapping[str, Counts], sample_texts: Callable[[int], Sequence[str]]
) -> dict[int, TextColumn]:
    """Return the text columns by their number among the text columns; `sample_texts` returns those in a column of a sample.

    A column's own table of counts has all categories of the training rows; tables of combinations do not show them.
    """
    file_texts = {category_hash(entry["value"]): entry["value"] for entry in features.get("cat_features_hash") or ()}
    trained: dict[int, set[int]] = {}
    combined: set[int] = set()
    for entry in features.get("ctrs") or ():
        elements = entry["elements"]
        numbers = [part["cat_feature_index"] for part in elements if part["combination_element"] == "cat_feature_value"]
        if len(elements) > 1:
            combined.update(numbers)
        elif numbers[0] not in trained:
            trained[numbers[0]] = tables[entry["identifier"]].categories
    columns = {}
    for entry in features.get("categorical_features") or ():
        number, index = entry["feature_index"], entry["flat_feature_index"]
        hashes = {int(value) & 0xFFFFFFFF for value in entry.get("values") or ()} | trained.get(number, set())
        texts = {*sample_texts(index), *(entry.get("string_values") or ())}
        texts |= {file_texts[key] for key in hashes & file_texts.keys()}
        texts = texts or set(file_texts.values())
        is_complete = hashes <= set(map(category_hash, texts)) and (number in trained or number not in combined)
        columns[number] = TextColumn(index, tuple(sorted(texts)), is_complete)
    return columns

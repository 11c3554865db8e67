"""Convert scikit-learn's common preprocessing to encoder features, without rounding differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils.validation import check_array

from podium.models.encoder import Encoder
from podium.models.features import Feature, OneHot, Ordinal, Passthrough, Standardized
from podium.schema.columns import Column


class Unchanged:
    """Stands for `partial(check_array, …)`, by which histogram boosting passes numbers on."""

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, rows: Any) -> Any:
        return rows


def is_unchanged(function: Any) -> bool:
    """True for a function that returns the numbers that it gets."""
    return function is None or function is check_array or isinstance(function, Unchanged)


class UnsupportedStep(Exception):
    """A preprocessing step that has no equivalent encoder feature."""


def preprocessing(steps: Sequence[Any], columns: Sequence[Column], codes: Mapping[int, tuple[str, ...]]) -> Encoder:
    """Return an encoder equivalent to these fitted steps in sequence. Raises UnsupportedStep.

    `codes` are the categories, by column, that the model itself encodes: as their position, or NaN.
    """
    features: list[Feature] = [Passthrough(index, column.name) for index, column in enumerate(columns)]
    for step in steps:
        features = _apply(step, features, [column.name for column in columns])
    features = [
        Ordinal(feature.column, feature.name, codes[index], math.nan)
        if index in codes and isinstance(feature, Passthrough)
        else feature
        for index, feature in enumerate(features)
    ]
    if any(isinstance(feature, Passthrough) and columns[feature.column].is_text for feature in features):
        raise UnsupportedStep("text without an encoder")
    return Encoder(tuple(columns), tuple(features))


def _apply(step: Any, features: list[Feature], names: Sequence[str]) -> list[Feature]:
    """The features after one more step. Raises UnsupportedStep."""
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            features = _apply(part, features, names)
        return features
    if isinstance(step, ColumnTransformer):
        return _apply_by_column(step, features, names)
    if isinstance(step, str) or (isinstance(step, FunctionTransformer) and is_unchanged(step.func)):
        return features
    if isinstance(step, StandardScaler):
        return [_standardize(feature, step, index) for index, feature in enumerate(features)]
    if isinstance(step, SimpleImputer) and not step.add_indicator and len(step.statistics_) == len(features):
        return [_impute(feature, value) for feature, value in zip(features, step.statistics_.tolist(), strict=True)]
    if isinstance(step, OneHotEncoder):
        return [one_hot for index, feature in enumerate(features) for one_hot in _one_hot(feature, step, index)]
    if isinstance(step, OrdinalEncoder):
        return [_ordinal(feature, step, index) for index, feature in enumerate(features)]
    raise UnsupportedStep(type(step).__name__)


def _apply_by_column(step: ColumnTransformer, features: list[Feature], names: Sequence[str]) -> list[Feature]:
    result: list[Feature] = []
    for _, part, selection in step.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        selected = [features[index] for index in selected_columns(selection, range(len(features)), names)]
        result += _apply(part, selected, names)
    return result


def selected_columns(selection: Any, indices: Sequence[int], names: Sequence[str]) -> list[int]:
    """Resolve a ColumnTransformer's selection, which may be names, indices, a mask or a slice."""
    if isinstance(selection, slice):
        if isinstance(selection.start, str) or isinstance(selection.stop, str):  # of labels, including the last one
            stop = None if selection.stop is None else names.index(selection.stop) + 1
            selection = slice(None if selection.start is None else names.index(selection.start), stop)
        return list(indices)[selection]
    entries = [selection] if isinstance(selection, str | int) else list(selection)
    if entries and str(type(entries[0]).__name__).startswith("bool"):
        return [index for index, selected in zip(indices, entries, strict=True) if selected]
    return [names.index(entry) if isinstance(entry, str) else indices[int(entry)] for entry in entries]


def _standardize(feature: Feature, scaler: StandardScaler, index: int) -> Feature:
    mean = float(scaler.mean_[index]) if scaler.with_mean else 0.0
    scale = float(scaler.scale_[index]) if scaler.with_std else 1.0
    if isinstance(feature, Passthrough):
        return Standardized(feature.column, feature.name, "", math.nan, mean, scale)
    if isinstance(feature, Standardized) and (feature.mean, feature.scale) == (0.0, 1.0):
        return replace(feature, mean=mean, scale=scale)
    raise UnsupportedStep("scaled twice")


def _impute(feature: Feature, value: Any) -> Feature:
    if not isinstance(feature, Passthrough) or not isinstance(value, float) or value != value:
        raise UnsupportedStep("imputed with something other than a number")
    return Standardized(feature.column, feature.name, "", value, 0.0, 1.0)


def _one_hot(feature: Feature, encoder: OneHotEncoder, index: int) -> list[Feature]:
    categories = _text_categories(feature, encoder, index)
    dropped = None if encoder.drop_idx_ is None else encoder.drop_idx_[index]
    return [
        OneHot(feature.column, f"{feature.name} = {category}", (category,))
        for number, category in enumerate(categories)
        if number != dropped
    ]


def _ordinal(feature: Feature, encoder: OrdinalEncoder, index: int) -> Feature:
    categories = _text_categories(feature, encoder, index)
    unknown = float(encoder.unknown_value) if encoder.unknown_value is not None else math.nan
    return Ordinal(feature.column, feature.name, tuple(categories), unknown)


def _text_categories(feature: Feature, encoder: OneHotEncoder | OrdinalEncoder, index: int) -> list[str]:
    """Return the categories. Raises UnsupportedStep if they are not text, or if infrequent ones are grouped."""
    categories: list[Any] = encoder.categories_[index].tolist()
    is_text = all(isinstance(category, str) for category in categories)
    if not isinstance(feature, Passthrough) or getattr(encoder, "_infrequent_enabled", False) or not is_text:
        raise UnsupportedStep("categories that are not text, or grouped as infrequent")
    return categories

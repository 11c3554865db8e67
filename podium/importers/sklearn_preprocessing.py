"""scikit-learn's common preprocessing as features of Podium's encoder, number for number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from podium.models.encoder import Encoder
from podium.models.features import Feature, OneHot, Ordinal, Passthrough, Standardized
from podium.schema.columns import Column


class UnsupportedStep(Exception):
    """A step that is not known here."""


def preprocessing(steps: Sequence[Any], columns: Sequence[Column]) -> Encoder:
    """The encoder that does what these fitted steps do, one after the other. Raises Untranslated."""
    features: list[Feature] = [Passthrough(place, column.name) for place, column in enumerate(columns)]
    for step in steps:
        features = _after(step, features, [column.name for column in columns])
    if any(isinstance(feature, Passthrough) and columns[feature.column].is_text for feature in features):
        raise UnsupportedStep("text without an encoder")
    return Encoder(tuple(columns), tuple(features))


def _after(step: Any, features: list[Feature], names: Sequence[str]) -> list[Feature]:
    """The features after one more step. Raises Untranslated."""
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            features = _after(part, features, names)
        return features
    if isinstance(step, ColumnTransformer):
        return _by_column(step, features, names)
    if isinstance(step, str) or (isinstance(step, FunctionTransformer) and step.func is None):
        return features
    if isinstance(step, StandardScaler):
        return [_scaled(feature, step, place) for place, feature in enumerate(features)]
    if isinstance(step, SimpleImputer) and not step.add_indicator and len(step.statistics_) == len(features):
        return [_filled(feature, value) for feature, value in zip(features, step.statistics_.tolist(), strict=True)]
    if isinstance(step, OneHotEncoder):
        return [level for place, feature in enumerate(features) for level in _levels(feature, step, place)]
    if isinstance(step, OrdinalEncoder):
        return [_code(feature, step, place) for place, feature in enumerate(features)]
    raise UnsupportedStep(type(step).__name__)


def _by_column(step: ColumnTransformer, features: list[Feature], names: Sequence[str]) -> list[Feature]:
    found: list[Feature] = []
    for _, part, chosen in step.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        found += _after(part, [features[place] for place in selected_columns(chosen, range(len(features)), names)], names)
    return found


def selected_columns(chosen: Any, places: Sequence[int], names: Sequence[str]) -> list[int]:
    """What a ColumnTransformer's selection means: names, places, truth values or a slice."""
    if isinstance(chosen, slice):
        return list(places)[chosen]
    listed = [chosen] if isinstance(chosen, str) else list(chosen)
    if listed and str(type(listed[0]).__name__).startswith("bool"):
        return [place for place, taken in zip(places, listed, strict=True) if taken]
    return [names.index(each) if isinstance(each, str) else places[int(each)] for each in listed]


def _scaled(feature: Feature, scaler: StandardScaler, place: int) -> Feature:
    mean = float(scaler.mean_[place]) if scaler.with_mean else 0.0
    scale = float(scaler.scale_[place]) if scaler.with_std else 1.0
    if isinstance(feature, Passthrough):
        return Standardized(feature.column, feature.name, "", math.nan, mean, scale)
    if isinstance(feature, Standardized) and (feature.mean, feature.scale) == (0.0, 1.0):
        return replace(feature, mean=mean, scale=scale)
    raise UnsupportedStep("scaled twice")


def _filled(feature: Feature, value: Any) -> Feature:
    if not isinstance(feature, Passthrough) or not isinstance(value, float) or value != value:
        raise UnsupportedStep("filled with something else than a number")
    return Standardized(feature.column, feature.name, "", value, 0.0, 1.0)


def _levels(feature: Feature, encoder: OneHotEncoder, place: int) -> list[Feature]:
    levels = encoder.categories_[place].tolist()
    dropped = None if encoder.drop_idx_ is None else encoder.drop_idx_[place]
    if not isinstance(feature, Passthrough) or getattr(encoder, "_infrequent_enabled", False) or not _all_text(levels):
        raise UnsupportedStep("categories that are no text, or rare ones together")
    return [
        OneHot(feature.column, f"{feature.name} = {level}", (level,))
        for number, level in enumerate(levels)
        if number != dropped
    ]


def _code(feature: Feature, encoder: OrdinalEncoder, place: int) -> Feature:
    levels = encoder.categories_[place].tolist()
    if not isinstance(feature, Passthrough) or getattr(encoder, "_infrequent_enabled", False) or not _all_text(levels):
        raise UnsupportedStep("categories that are no text, or rare ones together")
    other = float(encoder.unknown_value) if encoder.unknown_value is not None else math.nan
    return Ordinal(feature.column, feature.name, tuple(levels), other)


def _all_text(levels: Sequence[Any]) -> bool:
    return all(isinstance(level, str) for level in levels)

"""scikit-learn's imputers and encoders of categories as float64 ONNX operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.preprocessing._encoders import _BaseEncoder

from podium.importers.graph_builder import Tensor, concat, where
from podium.importers.sklearn_graph_columns import NO_CODE, Columns, is_missing


def impute(step: SimpleImputer, x: Columns) -> Columns:
    missing = _is_missing_cell(step.missing_values, x)
    fill = np.array([x.code(index, value) for index, value in enumerate(step.statistics_)])
    filled = Columns(where(missing, np.nan_to_num(fill)[None], x.tensor), x.names, x.categories)
    if np.isnan(fill).any():
        filled = filled.select(np.flatnonzero(~np.isnan(fill)).tolist())
    if step.indicator_ is None:
        return filled
    return Columns(concat([filled.tensor, missing.number().select(step.indicator_.features_)]))


def _is_missing_cell(marker: Any, x: Columns) -> Tensor:
    if is_missing(marker):
        return x.tensor.map(np.isnan)
    return x.tensor == np.array([x.code(index, marker) for index in range(len(x.categories) or 1)])[None]


def missing_indicator(step: MissingIndicator, x: Columns) -> Tensor:
    return _is_missing_cell(step.missing_values, x).number().select(step.features_)


def _hits(step: _BaseEncoder, x: Columns, index: int) -> tuple[Tensor, Tensor]:
    """Return which category of a column each cell is, as (rows, categories) and (rows, 1) for none of them."""
    cell = x.tensor.column(index)
    codes = np.array([x.code(index, category) for category in step.categories_[index]])
    found = (cell == np.nan_to_num(codes, nan=NO_CODE)[None]).number()
    if np.isnan(codes).any():
        found = found + cell.map(np.isnan).number() @ np.isnan(codes).astype(float)[None]
    return found, 1.0 - found.reduce("ReduceSum")


def _grouping(step: _BaseEncoder, index: int) -> tuple[np.ndarray, bool]:
    """Return the (categories, outputs) matrix that groups infrequent categories, and whether unknown ones join them."""
    count = len(step.categories_[index])
    mapping = step._default_to_infrequent_mappings[index] if getattr(step, "_infrequent_enabled", False) else None
    if mapping is None:
        return np.eye(count), False
    joins = step.handle_unknown in ("infrequent_if_exist", "warn")
    return np.eye(int(mapping.max()) + 1)[mapping], joins


def one_hot(step: OneHotEncoder, x: Columns) -> Tensor:
    parts = []
    for index in range(len(step.categories_)):
        found, unknown = _hits(step, x, index)
        groups, joins = _grouping(step, index)
        result = found @ groups
        if joins:
            result = result + unknown @ np.eye(groups.shape[1])[-1:]
        dropped = getattr(step, "_drop_idx_after_grouping", step.drop_idx_)
        if dropped is not None and dropped[index] is not None:
            result = result.select([number for number in range(groups.shape[1]) if number != dropped[index]])
        parts.append(result)
    return concat(parts)


def ordinal(step: OrdinalEncoder, x: Columns) -> Tensor:
    parts = []
    for index, categories in enumerate(step.categories_):
        found, unknown = _hits(step, x, index)
        groups, _ = _grouping(step, index)
        numbers = groups @ np.arange(float(groups.shape[1]))
        missing = np.array([is_missing(category) for category in categories])
        result = found @ np.where(missing, 0.0, numbers)[:, None]
        if missing.any() and float(step.encoded_missing_value) == step.encoded_missing_value:
            result = result + found @ (step.encoded_missing_value * missing[:, None])
        elif missing.any():
            result = where(x.tensor.column(index).map(np.isnan), float("nan"), result)
        other = float("nan") if step.unknown_value is None else float(step.unknown_value)
        parts.append(where(unknown > 0.5, other, result))
    return concat(parts)


def target_encoding(step: TargetEncoder, x: Columns) -> Tensor:
    means = np.atleast_1d(np.asarray(step.target_mean_, dtype=float))
    parts = []
    for index in range(len(step.categories_)):
        found, unknown = _hits(step, x, index)
        encodings = step.encodings_[index * len(means) : (index + 1) * len(means)]
        parts.append(found @ np.column_stack(encodings) + unknown @ means[None])
    return concat(parts)

"""scikit-learn transformers as float64 ONNX operators, written from their fitted attributes.

A text column is a column of codes: the index of its category, a larger number for an unknown one, and NaN for a missing cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import preprocessing
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline

from podium.importers.graph_builder import Tensor, concat, where
from podium.importers.sklearn_graph_categories import impute, missing_indicator, one_hot, ordinal, target_encoding
from podium.importers.sklearn_graph_columns import Columns, Unsupported
from podium.importers.sklearn_preprocessing import is_unchanged, selected_columns
from podium.importers.stand_ins import NUMPY_FUNCTIONS

FUNCTIONS = frozenset(getattr(np, name) for name in NUMPY_FUNCTIONS)
"""Functions of numpy that an estimator may hold."""


def transform(step: Any, x: Columns) -> Columns:
    """Apply a fitted step. Raises Unsupported."""
    if isinstance(step, str) or step is None:
        return x
    for kinds, converter in STEPS.items():
        if isinstance(step, kinds):
            result = converter(step, x)
            return result if isinstance(result, Columns) else Columns(result)
    raise Unsupported(f"{type(step).__name__} is not known")


def inverse_transform(step: Any, y: Tensor) -> Tensor:
    """Undo the transformation of a target. Raises Unsupported."""
    if isinstance(step, preprocessing.FunctionTransformer):
        return _function(step.inverse_func, y)
    if isinstance(step, preprocessing.StandardScaler | preprocessing.RobustScaler | preprocessing.MaxAbsScaler):
        center, scale = _center_and_scale(step)
        return y * scale[None] + center[None]
    if isinstance(step, preprocessing.MinMaxScaler):
        return (y - step.min_[None]) / step.scale_[None]
    if isinstance(step, preprocessing.PowerTransformer):
        return _inverse_power(step, y)
    raise Unsupported(f"the inverse of {type(step).__name__}")


# --- compositions ------------------------------------------------------------------------------------------------------


def _pipeline(pipeline: Pipeline, x: Columns) -> Columns:
    for _, step in pipeline.steps:
        x = transform(step, x)
    return x


def _by_column(step: ColumnTransformer, x: Columns) -> Tensor:
    parts = []
    width = len(x.names) or int(step.n_features_in_)
    for name, part, selection in step.transformers_:
        indices = selected_columns(selection, range(width), x.names)
        if (isinstance(part, str) and part == "drop") or not indices:
            continue
        chosen = transform(part, x.select(indices))
        if any(chosen.categories):
            raise Unsupported("text without an encoder")
        weight = (step.transformer_weights or {}).get(name)
        parts.append(chosen.tensor if weight is None else chosen.tensor * float(weight))
    return concat(parts)


def _union(step: FeatureUnion, x: Columns) -> Tensor:
    weights = step.transformer_weights or {}
    parts = [(name, part) for name, part in step.transformer_list if part != "drop"]
    return concat([transform(part, x).tensor * float(weights.get(name, 1.0)) for name, part in parts])


# --- numbers -----------------------------------------------------------------------------------------------------------


def _center_and_scale(step: Any) -> tuple[np.ndarray, np.ndarray]:
    center = getattr(step, "mean_", None) if getattr(step, "with_mean", True) else None
    center = getattr(step, "center_", center)
    count = step.n_features_in_
    return (
        np.zeros(count) if center is None else np.asarray(center, dtype=float),
        np.ones(count) if step.scale_ is None else np.asarray(step.scale_, dtype=float),
    )


def _scale(step: Any, x: Columns) -> Tensor:
    center, scale = _center_and_scale(step)
    return (x.tensor - center[None]) / scale[None]


def _min_max(step: preprocessing.MinMaxScaler, x: Columns) -> Tensor:
    scaled = x.tensor * step.scale_[None] + step.min_[None]
    low, high = map(float, step.feature_range)
    return scaled.clip(low, high) if step.clip else scaled


def _normalize(step: preprocessing.Normalizer, x: Columns) -> Tensor:
    source = x.tensor.map(np.absolute) if step.norm == "max" else x.tensor
    size = source.reduce({"l1": "ReduceL1", "l2": "ReduceL2", "max": "ReduceMax"}[step.norm])
    return x.tensor / where(size == 0.0, 1.0, size)


def _binarize(step: preprocessing.Binarizer, x: Columns) -> Tensor:
    return (x.tensor > float(step.threshold)).number()


def _power(step: preprocessing.PowerTransformer, x: Columns) -> Tensor:
    columns = [x.tensor.column(index) for index in range(len(step.lambdas_))]
    result = concat([_power_column(step.method, float(power), x) for power, x in zip(step.lambdas_, columns, strict=True)])
    return _scale(step._scaler, Columns(result)) if step.standardize else result


def _power_column(method: str, power: float, x: Tensor) -> Tensor:
    """Apply the transformation of Box and Cox (1964), or of Yeo and Johnson (2000)."""
    if method == "box-cox":
        return _box_cox(x, power)
    return _box_cox(x.clip(0.0) + 1.0, power) - _box_cox(1.0 - x.clip(high=0.0), 2.0 - power)


def _box_cox(x: Tensor, power: float) -> Tensor:
    return x.map(np.log) if abs(power) < np.spacing(1.0) else (x**power - 1.0) / power


def _inverse_power(step: preprocessing.PowerTransformer, y: Tensor) -> Tensor:
    if step.standardize:
        y = inverse_transform(step._scaler, y)
    (power,) = (float(number) for number in step.lambdas_)
    if step.method == "box-cox":
        return _inverse_box_cox(y, power)
    positive = _inverse_box_cox(y.clip(0.0), power) - 1.0
    return positive - (_inverse_box_cox(-y.clip(high=0.0), 2.0 - power) - 1.0)


def _inverse_box_cox(y: Tensor, power: float) -> Tensor:
    return y.map(np.exp) if abs(power) < np.spacing(1.0) else (y * power + 1.0) ** (1.0 / power)


def _quantiles(step: preprocessing.QuantileTransformer, x: Columns) -> Tensor:
    if step.output_distribution != "uniform":
        raise Unsupported("quantiles of the normal distribution")
    parts = []
    for index, quantiles in enumerate(step.quantiles_.T):
        knots, first = np.unique(quantiles, return_index=True)
        last = len(quantiles) - 1 - np.unique(quantiles[::-1], return_index=True)[1]
        references = np.asarray(step.references_, dtype=float)
        middle = (references[first] + references[last]) / 2
        parts.append(_steps(x.tensor.column(index), knots, (references[first], middle, references[last])))
    return concat(parts)


def _steps(x: Tensor, knots: np.ndarray, sides: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Tensor:
    """Interpolate from the value above a knot to the value below the next one; on a knot, the middle one counts."""
    below, middle, above = sides
    inner = x * 0.0 + float(above[0])
    if len(knots) > 1:
        part = ((x - knots[None, :-1]) / np.diff(knots)[None]).clip(0.0, 1.0)
        slopes, jumps = below[1:] - above[:-1], above[1:] - below[1:]
        inner = inner + part @ slopes[:, None]
        inner = inner + (x > knots[None, 1:]).number() @ jumps[:, None]
        inner = inner + (x == knots[None]).number() @ (middle - below)[:, None]
    return where(x >= float(knots[-1]), 0.0, where(x <= float(knots[0]), 1.0, inner))


def _bins(step: preprocessing.KBinsDiscretizer, x: Columns) -> Tensor:
    parts = []
    for index, edges in enumerate(step.bin_edges_):
        cell = x.tensor.column(index)
        number = (cell >= edges[None, 1:-1]).number().reduce("ReduceSum") if len(edges) > 2 else cell * 0.0
        if step.encode != "ordinal":
            number = (number == np.arange(float(len(edges) - 1))[None]).number()
        parts.append(number)
    return concat(parts)


def _polynomial(step: preprocessing.PolynomialFeatures, x: Columns) -> Tensor:
    """Multiply columns; the last column of the source is 1."""
    powers = step.powers_
    source = concat([x.tensor, x.tensor.column(0) ** 0.0])
    degree = max(1, int(powers.sum(axis=1).max()))
    factors = [[*np.repeat(np.arange(len(row)), row), *[len(row)] * (degree - row.sum())] for row in powers]
    result = source.select([row[0] for row in factors])
    for number in range(1, degree):
        result = result * source.select([row[number] for row in factors])
    return result


def _components(step: Any, x: Columns) -> Tensor:
    mean = getattr(step, "mean_", None)
    source = x.tensor if mean is None else x.tensor - np.asarray(mean)[None]
    weights = np.asarray(step.components_, dtype=float).T
    if getattr(step, "whiten", False):
        weights = weights / np.sqrt(step.explained_variance_)
    return source @ weights


def _discriminants(step: LinearDiscriminantAnalysis, x: Columns) -> Tensor:
    if step.solver == "lsqr":
        raise Unsupported("the solver lsqr has no transformation")
    source = x.tensor - step.xbar_[None] if step.solver == "svd" else x.tensor
    return source @ np.asarray(step.scalings_[:, : step._max_components], dtype=float)


def _center_distances(step: KMeans, x: Columns) -> Tensor:
    return (x.tensor.expand(1) - step.cluster_centers_[None]).reduce("ReduceL2", 2, keepdims=False)


def _select(step: SelectorMixin, x: Columns) -> Columns:
    return x.select(step.get_support(indices=True).tolist())


def _function(function: Any, x: Tensor) -> Tensor:
    if function is None:
        return x
    if function not in FUNCTIONS:
        raise Unsupported("a function of its own")
    return x.map(function)


def _apply_function(step: preprocessing.FunctionTransformer, x: Columns) -> Columns:
    if is_unchanged(step.func):
        return x
    if step.kw_args:
        raise Unsupported("a function with arguments")
    return Columns(_function(step.func, x.tensor))


STEPS: dict[Any, Callable[[Any, Columns], Tensor | Columns]] = {
    Pipeline: _pipeline,
    ColumnTransformer: _by_column,
    FeatureUnion: _union,
    (preprocessing.StandardScaler, preprocessing.RobustScaler, preprocessing.MaxAbsScaler): _scale,
    preprocessing.MinMaxScaler: _min_max,
    preprocessing.Normalizer: _normalize,
    preprocessing.Binarizer: _binarize,
    preprocessing.PowerTransformer: _power,
    preprocessing.QuantileTransformer: _quantiles,
    preprocessing.KBinsDiscretizer: _bins,
    preprocessing.PolynomialFeatures: _polynomial,
    preprocessing.FunctionTransformer: _apply_function,
    (PCA, IncrementalPCA, TruncatedSVD): _components,
    LinearDiscriminantAnalysis: _discriminants,
    KMeans: _center_distances,
    SelectorMixin: _select,
    SimpleImputer: impute,
    MissingIndicator: missing_indicator,
    preprocessing.TargetEncoder: target_encoding,
    preprocessing.OneHotEncoder: one_hot,
    preprocessing.OrdinalEncoder: ordinal,
}
"""Converters by class; the first match counts."""

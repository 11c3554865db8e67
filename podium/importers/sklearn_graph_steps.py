"""scikit-learn transformers as float64 ONNX operators, written from their fitted attributes.

A text column is a column of codes: the index of its category, a larger number for an unknown one, and NaN for a missing cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn import preprocessing
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing._encoders import _BaseEncoder

from podium.importers.graph_builder import GraphBuilder
from podium.importers.sklearn_preprocessing import is_unchanged, selected_columns

Graph = GraphBuilder
NO_CODE = -1.0
"""The code of a category that a text column does not have."""


class Unsupported(Exception):
    """An estimator, or an option of one, that has no operators here."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A (rows, columns) tensor; `names` and `categories` are known for input columns only, `categories` for text."""

    tensor: str
    names: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()

    def select(self, graph: Graph, indices: Sequence[int]) -> Columns:
        tensor = graph.add("Gather", self.tensor, graph.integers(list(indices)), axis=1)
        return Columns(tensor, _pick(self.names, indices), _pick(self.categories, indices))

    def code(self, index: int, value: Any) -> float:
        """Return the number of a value in a column."""
        categories = self.categories[index] if self.categories else ()
        if _is_missing(value):
            return float("nan")
        if categories or isinstance(value, str):
            return float(categories.index(value)) if value in categories else NO_CODE
        return float(value)


def columns(tensor: str) -> Columns:
    """Return numeric columns without names."""
    return Columns(tensor)


def _pick(values: tuple[Any, ...], indices: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[index] for index in indices) if values else ()


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def transform(graph: Graph, step: Any, x: Columns) -> Columns:
    """Apply a fitted step. Raises Unsupported."""
    if isinstance(step, str) or step is None:
        return x
    for kinds, converter in STEPS.items():
        if isinstance(step, kinds):
            result = converter(graph, step, x)
            return result if isinstance(result, Columns) else Columns(result)
    raise Unsupported(f"{type(step).__name__} is not known")


def inverse_transform(graph: Graph, step: Any, y: str) -> str:
    """Undo the transformation of a target. Raises Unsupported."""
    if isinstance(step, preprocessing.FunctionTransformer):
        return _function(graph, step.inverse_func, y)
    if isinstance(step, preprocessing.StandardScaler | preprocessing.RobustScaler | preprocessing.MaxAbsScaler):
        center, scale = _center_and_scale(step)
        return graph.add("Add", graph.add("Mul", y, scale[None]), center[None])
    if isinstance(step, preprocessing.MinMaxScaler):
        return graph.add("Div", graph.add("Sub", y, step.min_[None]), step.scale_[None])
    if isinstance(step, preprocessing.PowerTransformer):
        return _inverse_power(graph, step, y)
    raise Unsupported(f"the inverse of {type(step).__name__}")


# --- compositions ------------------------------------------------------------------------------------------------------


def _pipeline(graph: Graph, pipeline: Pipeline, x: Columns) -> Columns:
    for _, step in pipeline.steps:
        x = transform(graph, step, x)
    return x


def _by_column(graph: Graph, step: ColumnTransformer, x: Columns) -> str:
    parts = []
    width = len(x.names) or int(step.n_features_in_)
    for _, part, selection in step.transformers_:
        indices = selected_columns(selection, range(width), x.names)
        if (isinstance(part, str) and part == "drop") or not indices:
            continue
        chosen = transform(graph, part, x.select(graph, indices))
        if any(chosen.categories):
            raise Unsupported("text without an encoder")
        weight = (step.transformer_weights or {}).get(_)
        parts.append(chosen.tensor if weight is None else graph.add("Mul", chosen.tensor, float(weight)))
    return graph.add("Concat", *parts, axis=1)


def _union(graph: Graph, step: FeatureUnion, x: Columns) -> str:
    weights = step.transformer_weights or {}
    parts = [
        graph.add("Mul", transform(graph, part, x).tensor, float(weights.get(name, 1.0)))
        for name, part in step.transformer_list
        if part != "drop"
    ]
    return graph.add("Concat", *parts, axis=1)


# --- numbers -----------------------------------------------------------------------------------------------------------


def _center_and_scale(step: Any) -> tuple[np.ndarray, np.ndarray]:
    center = getattr(step, "mean_", None) if getattr(step, "with_mean", True) else None
    center = getattr(step, "center_", center)
    count = step.n_features_in_
    return (
        np.zeros(count) if center is None else np.asarray(center, dtype=float),
        np.ones(count) if step.scale_ is None else np.asarray(step.scale_, dtype=float),
    )


def _scale(graph: Graph, step: Any, x: Columns) -> str:
    center, scale = _center_and_scale(step)
    return graph.add("Div", graph.add("Sub", x.tensor, center[None]), scale[None])


def _min_max(graph: Graph, step: preprocessing.MinMaxScaler, x: Columns) -> str:
    scaled = graph.add("Add", graph.add("Mul", x.tensor, step.scale_[None]), step.min_[None])
    low, high = map(float, step.feature_range)
    return graph.add("Min", graph.add("Max", scaled, low), high) if step.clip else scaled


def _normalize(graph: Graph, step: preprocessing.Normalizer, x: Columns) -> str:
    operator = {"l1": "ReduceL1", "l2": "ReduceL2", "max": "ReduceMax"}[step.norm]
    source = graph.add("Abs", x.tensor) if step.norm == "max" else x.tensor
    size = graph.add(operator, source, graph.integers([1]), keepdims=1)
    return graph.add("Div", x.tensor, graph.add("Where", graph.add("Equal", size, 0.0), 1.0, size))


def _binarize(graph: Graph, step: preprocessing.Binarizer, x: Columns) -> str:
    return _number(graph, graph.add("Greater", x.tensor, float(step.threshold)))


def _number(graph: Graph, condition: str) -> str:
    return graph.add("Cast", condition, to=TensorProto.DOUBLE)


def _power(graph: Graph, step: preprocessing.PowerTransformer, x: Columns) -> str:
    parts = [
        _power_column(graph, step.method, float(power), graph.add("Gather", x.tensor, graph.integers([index]), axis=1))
        for index, power in enumerate(step.lambdas_)
    ]
    result = graph.add("Concat", *parts, axis=1)
    return _scale(graph, step._scaler, Columns(result)) if step.standardize else result


def _power_column(graph: Graph, method: str, power: float, x: str) -> str:
    """Apply the transformation of Box and Cox (1964), or of Yeo and Johnson (2000)."""
    if method == "box-cox":
        return _box_cox(graph, x, power)
    positive = _box_cox(graph, graph.add("Add", graph.add("Max", x, 0.0), 1.0), power)
    negative = _box_cox(graph, graph.add("Sub", 1.0, graph.add("Min", x, 0.0)), 2.0 - power)
    return graph.add("Sub", positive, negative)


def _box_cox(graph: Graph, x: str, power: float) -> str:
    if abs(power) < np.spacing(1.0):
        return graph.add("Log", x)
    return graph.add("Div", graph.add("Sub", graph.add("Pow", x, power), 1.0), power)


def _inverse_power(graph: Graph, step: preprocessing.PowerTransformer, y: str) -> str:
    if step.standardize:
        y = inverse_transform(graph, step._scaler, y)
    (power,) = (float(number) for number in step.lambdas_)
    if step.method == "box-cox":
        return _inverse_box_cox(graph, y, power)
    positive = graph.add("Sub", _inverse_box_cox(graph, graph.add("Max", y, 0.0), power), 1.0)
    negative = graph.add("Sub", _inverse_box_cox(graph, graph.add("Neg", graph.add("Min", y, 0.0)), 2.0 - power), 1.0)
    return graph.add("Sub", positive, negative)


def _inverse_box_cox(graph: Graph, y: str, power: float) -> str:
    if abs(power) < np.spacing(1.0):
        return graph.add("Exp", y)
    return graph.add("Pow", graph.add("Add", graph.add("Mul", y, power), 1.0), 1.0 / power)


def _quantiles(graph: Graph, step: preprocessing.QuantileTransformer, x: Columns) -> str:
    if step.output_distribution != "uniform":
        raise Unsupported("quantiles of the normal distribution")
    parts = []
    for index, quantiles in enumerate(step.quantiles_.T):
        cell = graph.add("Gather", x.tensor, graph.integers([index]), axis=1)
        knots, first = np.unique(quantiles, return_index=True)
        last = len(quantiles) - 1 - np.unique(quantiles[::-1], return_index=True)[1]
        references = np.asarray(step.references_, dtype=float)
        middle = (references[first] + references[last]) / 2
        parts.append(_steps(graph, cell, knots, (references[first], middle, references[last])))
    return graph.add("Concat", *parts, axis=1)


def _steps(graph: Graph, x: str, knots: np.ndarray, sides: tuple[np.ndarray, np.ndarray, np.ndarray]) -> str:
    """Interpolate from the value above a knot to the value below the next one; on a knot, the middle one counts."""
    below, middle, above = sides
    low, high = graph.add("GreaterOrEqual", x, float(knots[-1])), graph.add("LessOrEqual", x, float(knots[0]))
    inner = graph.add("Add", graph.add("Mul", x, 0.0), float(above[0]))
    if len(knots) > 1:
        part = graph.add("Div", graph.add("Sub", x, knots[None, :-1]), np.diff(knots)[None])
        part = graph.add("Min", graph.add("Max", part, 0.0), 1.0)
        slopes, jumps = below[1:] - above[:-1], above[1:] - below[1:]
        inner = graph.add("Add", inner, graph.add("MatMul", part, slopes[:, None]))
        over = _number(graph, graph.add("Greater", x, knots[None, 1:]))
        inner = graph.add("Add", inner, graph.add("MatMul", over, jumps[:, None]))
        exact = _number(graph, graph.add("Equal", x, knots[None]))
        inner = graph.add("Add", inner, graph.add("MatMul", exact, (middle - below)[:, None]))
    return graph.add("Where", high, 0.0, graph.add("Where", low, 1.0, inner))


def _bins(graph: Graph, step: preprocessing.KBinsDiscretizer, x: Columns) -> str:
    parts = []
    for index, edges in enumerate(step.bin_edges_):
        cell = graph.add("Gather", x.tensor, graph.integers([index]), axis=1)
        over = _number(graph, graph.add("GreaterOrEqual", cell, edges[None, 1:-1]))
        number = (
            graph.add("ReduceSum", over, graph.integers([1]), keepdims=1) if len(edges) > 2 else graph.add("Mul", cell, 0.0)
        )
        if step.encode != "ordinal":
            number = _number(graph, graph.add("Equal", number, np.arange(float(len(edges) - 1))[None]))
        parts.append(number)
    return graph.add("Concat", *parts, axis=1)


def _polynomial(graph: Graph, step: preprocessing.PolynomialFeatures, x: Columns) -> str:
    """Multiply columns; the last column of the source is 1."""
    powers = step.powers_
    source = graph.add("Concat", x.tensor, graph.add("Pow", _first(graph, x), 0.0), axis=1)
    degree = max(1, int(powers.sum(axis=1).max()))
    factors = [[*np.repeat(np.arange(len(row)), row), *[len(row)] * (degree - row.sum())] for row in powers]
    result = ""
    for number in range(degree):
        factor = graph.add("Gather", source, graph.integers([row[number] for row in factors]), axis=1)
        result = graph.add("Mul", result, factor) if result else factor
    return result


def _first(graph: Graph, x: Columns) -> str:
    return graph.add("Gather", x.tensor, graph.integers([0]), axis=1)


def _components(graph: Graph, step: Any, x: Columns) -> str:
    mean = getattr(step, "mean_", None)
    source = x.tensor if mean is None else graph.add("Sub", x.tensor, np.asarray(mean)[None])
    weights = np.asarray(step.components_, dtype=float).T
    if getattr(step, "whiten", False):
        weights = weights / np.sqrt(step.explained_variance_)
    return graph.add("MatMul", source, weights)


def _discriminants(graph: Graph, step: LinearDiscriminantAnalysis, x: Columns) -> str:
    if step.solver == "lsqr":
        raise Unsupported("the solver lsqr has no transformation")
    source = graph.add("Sub", x.tensor, step.xbar_[None]) if step.solver == "svd" else x.tensor
    return graph.add("MatMul", source, np.asarray(step.scalings_[:, : step._max_components], dtype=float))


def _center_distances(graph: Graph, step: KMeans, x: Columns) -> str:
    difference = graph.add("Sub", graph.add("Unsqueeze", x.tensor, graph.integers([1])), step.cluster_centers_[None])
    return graph.add("ReduceL2", difference, graph.integers([2]), keepdims=0)


def _select(graph: Graph, step: SelectorMixin, x: Columns) -> Columns:
    return x.select(graph, step.get_support(indices=True).tolist())


# --- functions ---------------------------------------------------------------------------------------------------------

FUNCTIONS: dict[np.ufunc, Callable[[Graph, str], str]] = {
    np.log: lambda graph, x: graph.add("Log", x),
    np.log1p: lambda graph, x: graph.add("Log", graph.add("Add", x, 1.0)),
    np.log2: lambda graph, x: graph.add("Div", graph.add("Log", x), float(np.log(2.0))),
    np.log10: lambda graph, x: graph.add("Div", graph.add("Log", x), float(np.log(10.0))),
    np.exp: lambda graph, x: graph.add("Exp", x),
    np.exp2: lambda graph, x: graph.add("Pow", 2.0, x),
    np.expm1: lambda graph, x: graph.add("Sub", graph.add("Exp", x), 1.0),
    np.sqrt: lambda graph, x: graph.add("Sqrt", x),
    np.square: lambda graph, x: graph.add("Mul", x, x),
    np.cbrt: lambda graph, x: graph.add("Mul", graph.add("Sign", x), graph.add("Pow", graph.add("Abs", x), 1.0 / 3.0)),
    np.absolute: lambda graph, x: graph.add("Abs", x),
    np.fabs: lambda graph, x: graph.add("Abs", x),
    np.negative: lambda graph, x: graph.add("Neg", x),
    np.positive: lambda graph, x: x,
    np.reciprocal: lambda graph, x: graph.add("Reciprocal", x),
    np.sign: lambda graph, x: graph.add("Sign", x),
    np.sin: lambda graph, x: graph.add("Sin", x),
    np.cos: lambda graph, x: graph.add("Cos", x),
    np.tanh: lambda graph, x: graph.add("Tanh", x),
    np.floor: lambda graph, x: graph.add("Floor", x),
    np.ceil: lambda graph, x: graph.add("Ceil", x),
    np.rint: lambda graph, x: graph.add("Round", x),
}
"""Functions of numpy that an estimator may hold: each computes one number from one number, and has no side effect."""


def _function(graph: Graph, function: Any, x: str) -> str:
    if function is None:
        return x
    if function not in FUNCTIONS:
        raise Unsupported("a function of its own")
    return FUNCTIONS[function](graph, x)


def _apply_function(graph: Graph, step: preprocessing.FunctionTransformer, x: Columns) -> Columns:
    if is_unchanged(step.func):
        return x
    if step.kw_args:
        raise Unsupported("a function with arguments")
    return Columns(_function(graph, step.func, x.tensor))


# --- missing cells and categories --------------------------------------------------------------------------------------


def _impute(graph: Graph, step: SimpleImputer, x: Columns) -> Columns:
    missing = _is_missing_cell(graph, step.missing_values, x)
    fill = np.array([x.code(index, value) for index, value in enumerate(step.statistics_)])
    filled = Columns(graph.add("Where", missing, np.nan_to_num(fill)[None], x.tensor), x.names, x.categories)
    if np.isnan(fill).any():
        filled = filled.select(graph, np.flatnonzero(~np.isnan(fill)).tolist())
    if step.indicator_ is None:
        return filled
    flags = _number(graph, missing)
    flags = graph.add("Gather", flags, graph.integers(step.indicator_.features_), axis=1)
    return Columns(graph.add("Concat", filled.tensor, flags, axis=1))


def _is_missing_cell(graph: Graph, marker: Any, x: Columns) -> str:
    if _is_missing(marker):
        return graph.add("IsNaN", x.tensor)
    width = len(x.categories) or 1
    return graph.add("Equal", x.tensor, np.array([x.code(index, marker) for index in range(width)])[None])


def _missing_indicator(graph: Graph, step: MissingIndicator, x: Columns) -> str:
    flags = _number(graph, _is_missing_cell(graph, step.missing_values, x))
    return graph.add("Gather", flags, graph.integers(step.features_), axis=1)


def _hits(graph: Graph, step: _BaseEncoder, x: Columns, index: int) -> tuple[str, str]:
    """Return which category of a column each cell is, as (rows, categories) and (rows, 1) for none of them."""
    cell = graph.add("Gather", x.tensor, graph.integers([index]), axis=1)
    codes = np.array([x.code(index, category) for category in step.categories_[index]])
    found = _number(graph, graph.add("Equal", cell, np.nan_to_num(codes, nan=NO_CODE)[None]))
    if np.isnan(codes).any():
        missing = _number(graph, graph.add("IsNaN", cell))
        found = graph.add("Add", found, graph.add("MatMul", missing, np.isnan(codes).astype(float)[None]))
    return found, graph.add("Sub", 1.0, graph.add("ReduceSum", found, graph.integers([1]), keepdims=1))


def _grouping(step: _BaseEncoder, index: int) -> tuple[np.ndarray, bool]:
    """Return the (categories, outputs) matrix that groups infrequent categories, and whether unknown ones join them."""
    count = len(step.categories_[index])
    mapping = step._default_to_infrequent_mappings[index] if getattr(step, "_infrequent_enabled", False) else None
    if mapping is None:
        return np.eye(count), False
    joins = step.handle_unknown in ("infrequent_if_exist", "warn")
    return np.eye(int(mapping.max()) + 1)[mapping], joins


def _one_hot(graph: Graph, step: preprocessing.OneHotEncoder, x: Columns) -> str:
    parts = []
    for index in range(len(step.categories_)):
        found, unknown = _hits(graph, step, x, index)
        groups, joins = _grouping(step, index)
        result = graph.add("MatMul", found, groups)
        if joins:
            infrequent = np.zeros((1, groups.shape[1]))
            infrequent[0, -1] = 1.0
            result = graph.add("Add", result, graph.add("MatMul", unknown, infrequent))
        dropped = getattr(step, "_drop_idx_after_grouping", step.drop_idx_)
        if dropped is not None and dropped[index] is not None:
            kept = [number for number in range(groups.shape[1]) if number != dropped[index]]
            result = graph.add("Gather", result, graph.integers(kept), axis=1)
        parts.append(result)
    return graph.add("Concat", *parts, axis=1)


def _ordinal(graph: Graph, step: preprocessing.OrdinalEncoder, x: Columns) -> str:
    parts = []
    for index, categories in enumerate(step.categories_):
        found, unknown = _hits(graph, step, x, index)
        groups, _ = _grouping(step, index)
        numbers = groups @ np.arange(float(groups.shape[1]))
        is_missing = np.array([_is_missing(category) for category in categories])
        result = graph.add("MatMul", found, np.where(is_missing, 0.0, numbers)[:, None])
        if is_missing.any() and float(step.encoded_missing_value) == step.encoded_missing_value:
            result = graph.add("Add", result, graph.add("MatMul", found, step.encoded_missing_value * is_missing[:, None]))
        elif is_missing.any():
            cell = graph.add("Gather", x.tensor, graph.integers([index]), axis=1)
            result = graph.add("Where", graph.add("IsNaN", cell), float("nan"), result)
        other = float("nan") if step.unknown_value is None else float(step.unknown_value)
        parts.append(graph.add("Where", graph.add("Greater", unknown, 0.5), other, result))
    return graph.add("Concat", *parts, axis=1)


def _target_encoding(graph: Graph, step: preprocessing.TargetEncoder, x: Columns) -> str:
    means = np.atleast_1d(np.asarray(step.target_mean_, dtype=float))
    parts = []
    for index in range(len(step.categories_)):
        found, unknown = _hits(graph, step, x, index)
        encodings = step.encodings_[index * len(means) : (index + 1) * len(means)]
        known = graph.add("MatMul", found, np.column_stack(encodings))
        parts.append(graph.add("Add", known, graph.add("MatMul", unknown, means[None])))
    return graph.add("Concat", *parts, axis=1)


STEPS: dict[Any, Callable[[Graph, Any, Columns], str | Columns]] = {
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
    SimpleImputer: _impute,
    MissingIndicator: _missing_indicator,
    preprocessing.TargetEncoder: _target_encoding,
    preprocessing.OneHotEncoder: _one_hot,
    preprocessing.OrdinalEncoder: _ordinal,
}
"""Converters by class; the first match counts."""

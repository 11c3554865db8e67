"""Preprocessing that was saved beside a model: fitted transformers in files of their own, and dummy columns.

A dummy column is named after a column and one of its values, such as `x5_saturday`, as `pandas.get_dummies` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import ImportedModel
from podium.models.encoder import Encoder
from podium.models.features import Feature, MissingIndicator, OneHot, Passthrough, Standardized
from podium.models.scorers import LinearScorer, Scorer
from podium.project import ColumnOptions
from podium.schema.columns import Column
from podium.tables.fuzzy_categories import known_spellings, normalize_text
from podium.tables.schema_inference import infer_column

SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
MISSING_LEVELS = ("nan", "none", "na")
"""The values after which pandas names the dummy column of missing cells."""


@dataclass(frozen=True, slots=True)
class Step:
    """A fitted transformer with the names of its columns."""

    transformer: Any
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Affine:
    """(x - mean) / scale, where a missing x is replaced by `fill` first."""

    fill: float = float("nan")
    mean: float = 0.0
    scale: float = 1.0

    def then(self, step: Step, name: str) -> Affine:
        """Add the part of a transformer that changes this column."""
        if name not in step.names:
            return self
        index, transformer = step.names.index(name), step.transformer
        if isinstance(transformer, SimpleImputer):
            value = float(transformer.statistics_[index])
            return self if self.fill == self.fill else replace(self, fill=value * self.scale + self.mean)
        center, scale = _center_and_scale(transformer, index)
        return Affine(self.fill, self.mean + center * self.scale, self.scale * scale)


def _center_and_scale(scaler: Any, index: int) -> tuple[float, float]:
    if isinstance(scaler, MinMaxScaler):
        return float(-scaler.min_[index] / scaler.scale_[index]), float(1.0 / scaler.scale_[index])
    centers = {"with_mean": "mean_", "with_centering": "center_"}
    center = next((getattr(scaler, name)[index] for flag, name in centers.items() if getattr(scaler, flag, False)), 0.0)
    return float(center), 1.0 if scaler.scale_ is None else float(scaler.scale_[index])


@dataclass(frozen=True, slots=True)
class SeparatePreprocessing:
    """Fitted transformers in their order, and lists of column names for those that were fitted without names."""

    transformers: tuple[Any, ...] = ()
    lists: tuple[list[str], ...] = ()

    @classmethod
    def of(cls, contents: Sequence[Any]) -> SeparatePreprocessing:
        """Return what is in files, each of which may hold a list or a dictionary. Raises ImportRefused."""
        parts = [part for content in contents for part in _flat(content)]
        return cls(
            tuple(part for part in parts if not isinstance(part, list)), tuple(part for part in parts if isinstance(part, list))
        )

    def in_pipeline(self, estimator: Any) -> tuple[Any, SeparatePreprocessing]:
        """Return a pipeline with the estimator if each step takes as many columns as the one before it returns."""
        steps = [*self.transformers, estimator]
        outputs = [_output_count(step) for step in self.transformers]
        if not outputs or outputs != [getattr(step, "n_features_in_", None) for step in steps[1:]]:
            return estimator, self
        return make_pipeline(*steps), SeparatePreprocessing((), self.lists)


def _output_count(transformer: Any) -> int:
    try:
        return len(transformer.get_feature_names_out())
    except (AttributeError, ValueError):
        return -1


def _flat(content: Any) -> Iterator[Any]:
    values = list(content.values()) if isinstance(content, Mapping) else content
    if isinstance(values, list | tuple | np.ndarray | pd.Index):
        if len(values) and all(isinstance(value, str) for value in values):
            yield list(map(str, values))
        else:
            for value in values:
                yield from _flat(value)
    elif hasattr(values, "transform"):
        yield values
    elif not isinstance(values, str | int | float | None):
        raise ImportRefused(f"a {type(values).__name__} is no fitted transformer: pass those that were fitted before the model")


def read_column_list(data: bytes) -> list[str] | None:
    """Return the names in a JSON list; None for another file."""
    try:
        names = json.loads(data)
    except ValueError:
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def with_preprocessing(
    model: ImportedModel, separate: SeparatePreprocessing, table: pa.Table | None, options: Mapping[str, ColumnOptions]
) -> ImportedModel:
    """Return the model for the columns of the sample, from which its own inputs are computed. Raises ImportRefused.

    Without transformers, only dummy columns are computed, if the sample has the columns that they are named after.
    """
    names = model.encoder.names
    dummies = {} if table is None else _dummies([name for name in names if name not in table.column_names], table, options)
    if not separate.transformers and not dummies:
        return model
    if table is None:
        raise ImportRefused("preprocessing files need rows as they are before the preprocessing: pass --sample")
    if not _is_plain(model.encoder):
        raise ImportRefused("the model has preprocessing of its own: save the whole pipeline in one file")
    steps = [_step(transformer, separate.lists, names) for transformer in separate.transformers]
    columns = tuple({column.name: column for column in (_raw_column(name, dummies) for name in names)}.values())
    pairs = [_feature(name, columns, dummies, steps) for name in names]
    encoder = Encoder(columns, tuple(feature for feature, _ in pairs))
    remaining = [affine for _, affine in pairs]
    return replace(
        model,
        encoder=encoder,
        conversions=(
            replace(conversion, encoder=encoder, scorer=_with_scaled_inputs(conversion.scorer, remaining))
            for conversion in model.conversions
            if _is_plain(conversion.encoder)
        ),
        original=lambda frame: model.original(_prepared(frame, names, dummies, steps)),
        warnings=(*model.warnings, *_warnings(names, dummies, steps)),
        is_named=True,
    )


def _is_plain(encoder: Encoder) -> bool:
    return all(isinstance(feature, Passthrough) for feature in encoder.features)


# --- dummy columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dummy:
    """A column of the sample, and the category whose cells are 1; None for missing cells."""

    column: Column
    category: str | None

    def cells(self, frame: pd.DataFrame) -> pd.Series:
        cells = frame[self.column.name]
        return (cells.isna() if self.category is None else cells == self.category).astype(float)


def _dummies(names: Sequence[str], table: pa.Table, options: Mapping[str, ColumnOptions]) -> dict[str, Dummy]:
    """Return those names that consist of a column of the sample and a value; at least one value must occur in the sample."""
    levels: dict[str, dict[str, str]] = {}
    for name in names:
        base = max((column for column in table.column_names if name.startswith(column)), key=len, default=None)
        if base and (level := name[len(base) :].strip("_.=-: []")):
            levels.setdefault(base, {})[name] = level
    found: dict[str, Dummy] = {}
    for base, level_of in levels.items():
        found |= _dummies_of(base, level_of, table[base], options.get(base, ColumnOptions()))
    return found


def _dummies_of(base: str, level_of: Mapping[str, str], cells: pa.ChunkedArray, options: ColumnOptions) -> dict[str, Dummy]:
    column = infer_column(base, cells, options.model_copy(update={"kind": options.kind or "category"}))
    spellings = known_spellings(column)
    categories = {name: spellings.get(normalize_text(level)) for name, level in level_of.items()}
    if not any(categories.values()):
        return {}
    missing = {name for name, level in level_of.items() if categories[name] is None and level.lower() in MISSING_LEVELS}
    absent = {name: level for name, level in level_of.items() if categories[name] is None and name not in missing}
    column = Column(
        base,
        "category",
        na_values=column.na_values,
        categories=tuple(sorted({*column.categories, *absent.values()})),
        fuzzy=column.fuzzy,
        aliases=column.aliases,
    )
    return {name: Dummy(column, None if name in missing else categories[name] or absent[name]) for name in level_of}


# --- steps -------------------------------------------------------------------------------------------------------------


def _step(transformer: Any, lists: Sequence[list[str]], names: Sequence[str]) -> Step:
    """Return a transformer with its names: those of the fit, or else the only list of as many. Raises ImportRefused."""
    if not isinstance(transformer, (SimpleImputer, *SCALERS)) or getattr(transformer, "add_indicator", False):
        raise ImportRefused(
            f"{type(transformer).__name__} cannot be combined with a model of named columns: save both as one Pipeline"
        )
    fitted_names = getattr(transformer, "feature_names_in_", None)
    if fitted_names is not None:
        return Step(transformer, tuple(map(str, fitted_names)))
    fitting = [each for each in (*lists, list(names)) if len(each) == transformer.n_features_in_]
    if not fitting:
        raise ImportRefused(
            f"{type(transformer).__name__} was fitted without names on {transformer.n_features_in_} columns: pass their names "
            "as a JSON list with another --preprocessing"
        )
    return Step(transformer, tuple(fitting[0]))


def _prepared(frame: pd.DataFrame, names: Sequence[str], dummies: Mapping[str, Dummy], steps: Sequence[Step]) -> pd.DataFrame:
    """Compute the inputs of the model with the transformers themselves; columns that it does not use are missing."""
    inputs = pd.DataFrame({name: dummies[name].cells(frame) if name in dummies else frame[name] for name in names})
    for step in steps:
        complete = inputs.reindex(columns=list(step.names)).astype(float)
        rows = complete if hasattr(step.transformer, "feature_names_in_") else complete.to_numpy()
        result = np.asarray(step.transformer.transform(rows))
        if result.shape != rows.shape:
            raise ImportRefused(f"{type(step.transformer).__name__} leaves out columns that had no values: fit it without them")
        inputs = inputs.assign(**{name: result[:, index] for index, name in enumerate(step.names) if name in inputs})
    return inputs


# --- the converted model -----------------------------------------------------------------------------------------------


def _raw_column(name: str, dummies: Mapping[str, Dummy]) -> Column:
    return dummies[name].column if name in dummies else Column(name, "number")


def _feature(
    name: str, columns: Sequence[Column], dummies: Mapping[str, Dummy], steps: Sequence[Step]
) -> tuple[Feature, Affine]:
    """Return the feature of an input of the model, and what remains to be computed from it."""
    affine = Affine()
    for step in steps:
        affine = affine.then(step, name)
    if name in dummies:
        dummy = dummies[name]
        index = next(i for i, column in enumerate(columns) if column.name == dummy.column.name)
        feature: Feature = MissingIndicator(index, name) if dummy.category is None else OneHot(index, name, (dummy.category,))
        return feature, affine
    index = next(i for i, column in enumerate(columns) if column.name == name)
    if affine == Affine():
        return Passthrough(index, name), Affine()
    return Standardized(index, name, "", affine.fill, affine.mean, affine.scale), Affine()


def _with_scaled_inputs(scorer: Scorer, affines: Sequence[Affine]) -> Scorer:
    """Return the scorer with scaled inputs, which only a linear model takes up. Raises ImportRefused."""
    means, scales = (np.array([getattr(affine, part) for affine in affines]) for part in ("mean", "scale"))
    if not means.any() and (scales == 1.0).all():
        return scorer
    if not isinstance(scorer, LinearScorer):
        raise ImportRefused("scaled dummy columns need a linear model: save the preprocessing and the model as one Pipeline")
    weights = np.array(scorer.weights) / scales
    intercepts = np.array(scorer.intercepts) - weights @ means
    return replace(scorer, weights=tuple(map(tuple, weights.tolist())), intercepts=tuple(intercepts.tolist()))


def _warnings(names: Sequence[str], dummies: Mapping[str, Dummy], steps: Sequence[Step]) -> list[str]:
    """Say what is computed before the model."""
    by_column: dict[str, list[str]] = {}
    for name, dummy in dummies.items():
        by_column.setdefault(dummy.column.name, []).append(name)
    computed = [f"{', '.join(dummies)} are computed from the column {column}" for column, dummies in by_column.items()]
    for step in steps:
        used = [name for name in names if name in step.names]
        computed.append(f"{type(step.transformer).__name__} is applied to {len(used)} of the model's {len(names)} inputs")
    return computed

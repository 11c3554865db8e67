"""Rows for comparing a model with its conversion: a sample, or synthetic rows within the ranges in the model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.importers.errors import ImportRefused
from podium.models.onnx_scorer import UNKNOWN_TEXT
from podium.project import ColumnOptions
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_frame
from podium.tables.schema_inference import infer_column, with_statistics

SYNTHETIC_ROWS = 600


def with_sample_formats(
    columns: tuple[Column, ...], table: pa.Table | None, options: Mapping[str, ColumnOptions]
) -> tuple[Column, ...]:
    """Return the columns with the number formats, spellings and missing values from the project and the sample."""
    return tuple(_with_sample_format(column, table, options.get(column.name, ColumnOptions())) for column in columns)


def _with_sample_format(column: Column, table: pa.Table | None, options: ColumnOptions) -> Column:
    column = replace(
        column, na_values=options.na_values, unit=options.unit, number_format=options.number_format or column.number_format
    )
    if table is None or column.name not in table.column_names:
        return column
    try:
        inferred = infer_column(column.name, table[column.name], options)
    except BadData:
        return column  # errors are reported when the sample is read
    if inferred.kind == column.kind == "category":
        aliases = tuple((text, category) for text, category in inferred.aliases if category in column.categories)
        return replace(column, fuzzy=inferred.fuzzy, aliases=aliases)
    if inferred.kind == "boolean" and column.kind == "number" and _holds_true(table[column.name]):
        return replace(column, kind="boolean")
    return replace(column, number_format=inferred.number_format) if column.kind == "number" else column


def _holds_true(cells: pa.ChunkedArray) -> bool:
    """Return whether a column of yes and no is written in words such as True, not as 1."""
    return any(str(cell).lower() == "true" for cell in cells.unique().to_pylist())


def sample_rows(table: pa.Table, columns: tuple[Column, ...]) -> pd.DataFrame:
    """Return the sample as typed cells; missing cells and extra columns are accepted. Raises ImportRefused."""
    lenient = [replace(column, nullable=True, handle_unknown="warn") for column in columns]
    message = f"the sample does not fit the model, which takes {', '.join(column.name for column in columns[:12])}"
    if missing := [column.name for column in columns if column.name not in table.column_names]:
        raise ImportRefused(f"{message}: add {', '.join(missing[:12])}")
    try:
        return coerce_frame(table, lenient, table.column_names)
    except BadData as error:
        raise ImportRefused(f"{message}: {error}") from None


def synthetic_rows(columns: tuple[Column, ...], seed: int) -> pd.DataFrame:
    """Draw uniformly from known ranges and categories; numbers without a range span several magnitudes."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({column.name: _synthetic_cells(column, random) for column in columns})


def _synthetic_cells(column: Column, random: np.random.Generator) -> pd.Series:
    if column.is_text:
        return pd.Series(random.choice(np.array(column.categories, dtype=object), SYNTHETIC_ROWS), dtype=object)
    if column.low is not None and column.high is not None:
        numbers = random.uniform(column.low, column.high, SYNTHETIC_ROWS)
    else:
        numbers = random.normal(size=SYNTHETIC_ROWS) * 10.0 ** random.integers(-1, 3, SYNTHETIC_ROWS)
    if column.kind == "integer":
        return pd.Series(np.round(numbers))
    half = SYNTHETIC_ROWS // 2
    numbers[:half] = numbers[:half].round(1)  # real data is rounded, which produces ties and hits thresholds
    return pd.Series(numbers)


def with_sample_ranges(columns: tuple[Column, ...], rows: pd.DataFrame) -> tuple[Column, ...]:
    """Return the columns with the ranges of a sample where the file has none."""
    observed = [with_statistics(column, rows[column.name], ColumnOptions(nullable=False)) for column in columns]
    return tuple(
        replace(
            column,
            low=column.low if column.low is not None else sample.low,
            high=column.high if column.high is not None else sample.high,
        )
        for column, sample in zip(columns, observed, strict=True)
    )


def with_observed_nullability(
    columns: tuple[Column, ...], rows: pd.DataFrame, original: Callable[[pd.DataFrame], FloatMatrix]
) -> tuple[Column, ...]:
    """Make columns nullable if the original accepts missing values, and make them reject unknown categories if it does."""
    result = []
    for column in columns:
        nullable = accepts(_with_cell(rows.head(3), column, _missing(column)), original)
        strict = column.is_text and not accepts(_with_cell(rows.head(3), column, UNKNOWN_TEXT), original)
        result.append(replace(column, nullable=nullable, handle_unknown="reject" if strict else column.handle_unknown))
    return tuple(result)


def add_edge_cases(columns: tuple[Column, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """Add one row per column with a missing value, and one with an unknown category, where these are accepted."""
    first = rows.head(1)
    added = [_with_cell(first, column, _missing(column)) for column in columns if column.nullable]
    added += [
        _with_cell(first, column, UNKNOWN_TEXT) for column in columns if column.is_text and column.handle_unknown == "warn"
    ]
    return pd.concat([rows, *added], ignore_index=True) if added else rows


def _missing(column: Column) -> object:
    return None if column.is_text else np.nan


def _with_cell(rows: pd.DataFrame, column: Column, cell: object) -> pd.DataFrame:
    dtype = object if column.is_text else float
    return rows.assign(**{column.name: pd.Series([cell] * len(rows), dtype=dtype, index=rows.index)})


def accepts(rows: pd.DataFrame, original: Callable[[pd.DataFrame], FloatMatrix]) -> bool:
    """True if every row gets finite scores."""
    try:
        return bool(np.isfinite(original(rows)).all())
    except Exception:  # libraries may raise any exception for rows they do not accept
        return False

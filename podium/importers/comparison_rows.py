"""Rows to compare a foreign model and its translation on: a sample's, or made up within the ranges that the file tells of."""

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
    """The columns as the project says and the sample shows that people write them: amounts, spellings, missing marks."""
    return tuple(_with_sample_format(column, table, options.get(column.name, ColumnOptions())) for column in columns)


def _with_sample_format(column: Column, table: pa.Table | None, options: ColumnOptions) -> Column:
    column = replace(
        column, na_values=options.na_values, unit=options.unit, number_format=options.number_format or column.number_format
    )
    if table is None or column.name not in table.column_names:
        return column
    try:
        found = infer_column(column.name, table[column.name], options)
    except BadData:
        return column  # what is wrong is told when the sample is read
    if found.kind == column.kind == "category":
        known = tuple((text, meaning) for text, meaning in found.aliases if meaning in column.categories)
        return replace(column, fuzzy=found.fuzzy, aliases=known)
    return replace(column, number_format=found.number_format) if column.kind == "number" else column


def sample_rows(table: pa.Table, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The sample's inputs as typed cells; every one may be missing here, and others may come along. Raises Refusal."""
    lenient = [replace(column, nullable=True, handle_unknown="warn") for column in columns]
    takes = f"the sample does not fit the model, which takes {', '.join(column.name for column in columns[:12])}"
    if gone := [column.name for column in columns if column.name not in table.column_names]:
        raise ImportRefused(f"{takes}: it has no column {', '.join(gone[:12])}")
    try:
        return coerce_frame(table, lenient, table.column_names)
    except BadData as error:
        raise ImportRefused(f"{takes}: {error}") from None


def synthetic_rows(columns: tuple[Column, ...], seed: int) -> pd.DataFrame:
    """Even draws from the known range, else numbers of several magnitudes; even draws of the categories."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({column.name: _cells(column, random) for column in columns})


def _cells(column: Column, random: np.random.Generator) -> pd.Series:
    if column.is_text:
        return pd.Series(random.choice(np.array(column.categories, dtype=object), SYNTHETIC_ROWS), dtype=object)
    if column.low is not None and column.high is not None:
        numbers = random.uniform(column.low, column.high, SYNTHETIC_ROWS)
    else:
        numbers = random.normal(size=SYNTHETIC_ROWS) * 10.0 ** random.integers(-1, 3, SYNTHETIC_ROWS)
    if column.kind == "integer":
        return pd.Series(np.round(numbers))
    numbers[: SYNTHETIC_ROWS // 2] = numbers[: SYNTHETIC_ROWS // 2].round(
        1
    )  # as people write them, where ties and thresholds lie
    return pd.Series(numbers)


def with_sample_ranges(columns: tuple[Column, ...], rows: pd.DataFrame) -> tuple[Column, ...]:
    """The columns with the ranges of a sample, as far as the file does not tell them."""
    options = ColumnOptions(nullable=False)
    found = [with_statistics(column, rows[column.name], options) for column in columns]
    return tuple(
        replace(
            column,
            low=column.low if column.low is not None else own.low,
            high=column.high if column.high is not None else own.high,
        )
        for column, own in zip(columns, found, strict=True)
    )


def with_observed_nullability(
    columns: tuple[Column, ...], rows: pd.DataFrame, original: Callable[[pd.DataFrame], FloatMatrix]
) -> tuple[Column, ...]:
    """The columns as the original treats them: optional if it answers without, unknown categories refused if it does."""
    found = []
    for column in columns:
        nullable = accepts(_with(rows.head(3), column, _missing(column)), original)
        strict = column.is_text and not accepts(_with(rows.head(3), column, UNKNOWN_TEXT), original)
        found.append(replace(column, nullable=nullable, handle_unknown="reject" if strict else column.handle_unknown))
    return tuple(found)


def add_edge_cases(columns: tuple[Column, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, and one more for each optional column, which lacks it, and for each that takes an unknown category."""
    first = rows.head(1)
    odd = [_with(first, column, _missing(column)) for column in columns if column.nullable]
    odd += [_with(first, column, UNKNOWN_TEXT) for column in columns if column.is_text and column.handle_unknown == "warn"]
    return pd.concat([rows, *odd], ignore_index=True) if odd else rows


def _missing(column: Column) -> object:
    return None if column.is_text else np.nan


def _with(rows: pd.DataFrame, column: Column, cell: object) -> pd.DataFrame:
    kind = object if column.is_text else float
    return rows.assign(**{column.name: pd.Series([cell] * len(rows), dtype=kind, index=rows.index)})


def accepts(rows: pd.DataFrame, original: Callable[[pd.DataFrame], FloatMatrix]) -> bool:
    """Whether every row gets finite scores."""
    try:
        return bool(np.isfinite(original(rows)).all())
    except Exception:  # whatever a library raises for what it does not take
        return False

"""Rows to compare a foreign model and its translation on: a sample's, or made up within the ranges that the file tells of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.data.columns import Column
from podium.data.infer import described
from podium.data.problems import BadData
from podium.data.typed import typed_frame
from podium.foreign.refusal import Refusal
from podium.model.encode import Matrix
from podium.model.graph import UNSEEN
from podium.project import ColumnOptions

MADE_UP = 600


def sample_rows(table: pa.Table, columns: tuple[Column, ...], target: str) -> pd.DataFrame:
    """The sample's inputs as typed cells; every one may be missing here. Raises Refusal."""
    try:
        return typed_frame(table, [replace(column, nullable=True, unknown="warn") for column in columns], [target])
    except BadData as error:
        names = ", ".join(column.name for column in columns[:12])
        raise Refusal(f"the sample does not fit the model, which takes {names}: {error}") from None


def made_up_rows(columns: tuple[Column, ...], seed: int) -> pd.DataFrame:
    """Even draws from the known range, else numbers of several magnitudes; even draws of the categories."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({column.name: _cells(column, random) for column in columns})


def _cells(column: Column, random: np.random.Generator) -> pd.Series:
    if column.is_text:
        return pd.Series(random.choice(np.array(column.categories, dtype=object), MADE_UP), dtype=object)
    if column.low is not None and column.high is not None:
        numbers = random.uniform(column.low, column.high, MADE_UP)
    else:
        numbers = random.normal(size=MADE_UP) * 10.0 ** random.integers(-1, 3, MADE_UP)
    if column.kind == "integer":
        return pd.Series(np.round(numbers))
    numbers[: MADE_UP // 2] = numbers[: MADE_UP // 2].round(1)  # as people write them, where ties and thresholds lie
    return pd.Series(numbers)


def seen(columns: tuple[Column, ...], rows: pd.DataFrame) -> tuple[Column, ...]:
    """The columns with the ranges of a sample, as far as the file does not tell them."""
    options = ColumnOptions(nullable=False)
    found = [described(column, rows[column.name], options) for column in columns]
    return tuple(
        replace(
            column,
            low=column.low if column.low is not None else own.low,
            high=column.high if column.high is not None else own.high,
        )
        for column, own in zip(columns, found, strict=True)
    )


def tolerant(columns: tuple[Column, ...], rows: pd.DataFrame, original: Callable[[pd.DataFrame], Matrix]) -> tuple[Column, ...]:
    """The columns as the original treats them: optional if it answers without, unknown categories refused if it does."""
    found = []
    for column in columns:
        nullable = _answers(_with(rows.head(3), column, _missing(column)), original)
        strict = column.is_text and not _answers(_with(rows.head(3), column, UNSEEN), original)
        found.append(replace(column, nullable=nullable, unknown="reject" if strict else column.unknown))
    return tuple(found)


def with_odd(columns: tuple[Column, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, and one more for each optional column, which lacks it, and for each that takes an unknown category."""
    first = rows.head(1)
    odd = [_with(first, column, _missing(column)) for column in columns if column.nullable]
    odd += [_with(first, column, UNSEEN) for column in columns if column.is_text and column.unknown == "warn"]
    return pd.concat([rows, *odd], ignore_index=True) if odd else rows


def _missing(column: Column) -> object:
    return None if column.is_text else np.nan


def _with(rows: pd.DataFrame, column: Column, cell: object) -> pd.DataFrame:
    kind = object if column.is_text else float
    return rows.assign(**{column.name: pd.Series([cell] * len(rows), dtype=kind, index=rows.index)})


def _answers(rows: pd.DataFrame, original: Callable[[pd.DataFrame], Matrix]) -> bool:
    try:
        return bool(np.isfinite(original(rows)).all())
    except Exception:  # whatever a library raises for what it does not take
        return False

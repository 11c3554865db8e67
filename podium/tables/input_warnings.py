"""Warnings about valid inputs that differ from the training data: unseen categories and out-of-range numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from podium.schema.arrays import Columns, IndexArray
from podium.schema.columns import Column, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem

UNKNOWN_CATEGORY, OUT_OF_RANGE = "unknown-category", "out-of-training-range"
NOT_WHOLE = "not-whole"
UNKNOWN_CATEGORY_MESSAGE, OUT_OF_RANGE_MESSAGE = "was not in the training data", "is outside the training range"


def row_warnings(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> list[Problem]:
    """Return warnings for a few rows. Raises BadData for unknown categories and codes in columns that reject them."""
    warnings: list[Problem] = []
    rejected: list[Problem] = []
    known = [frozenset(column.categories) if len(rows) > 1 else column.categories for column in columns]
    for number, row in enumerate(rows, 1):
        for cell, column, categories in zip(row, columns, known, strict=True):
            if isinstance(cell, str):
                if cell not in categories and column.kind != "text":
                    (rejected if column.handle_unknown == "reject" else warnings).append(unknown_category(number, column))
            elif cell is not None and not (column.low is None or column.high is None or column.low <= cell <= column.high):
                (rejected if column.rejects_outside_range else warnings).append(out_of_range(number, column))
            elif column.kind == "integer" and cell is not None and cell % 1:
                warnings.append(not_whole(number, column))
        if len(warnings) > MAX_REPORTED:
            del warnings[MAX_REPORTED:]
        if len(rejected) >= MAX_REPORTED:
            break
    if rejected:
        raise BadData(rejected)
    return warnings


def frame_warnings(frame: pd.DataFrame | Columns, columns: Sequence[Column]) -> list[Problem]:
    """Return warnings for typed columns, up to a limit. Raises BadData like `row_warnings`."""
    warnings = []
    for column in columns:
        cells = np.asarray(frame[column.name])
        if column.kind == "category":
            rows = _unknown_rows(cells, column)[:MAX_REPORTED]
            warnings += [unknown_category(int(row) + 1, column) for row in rows]
        elif not column.is_text and column.low is not None and column.high is not None:
            rows = np.flatnonzero((cells < column.low) | (cells > column.high))[:MAX_REPORTED]
            warnings += [out_of_range(int(row) + 1, column) for row in rows]
            if column.kind == "integer":
                rows = np.flatnonzero((cells % 1 > 0) & (cells >= column.low) & (cells <= column.high))[:MAX_REPORTED]
                warnings += [not_whole(int(row) + 1, column) for row in rows]
    warnings.sort(key=lambda problem: problem.row or 0)
    _reject_unknown(warnings, columns)
    return warnings[:MAX_REPORTED]


def _unknown_rows(cells: np.ndarray, column: Column) -> IndexArray:
    """Return the rows with a category that is not in the training data."""
    codes, names = pd.factorize(cells)
    known = set(column.categories)
    return np.flatnonzero(np.array([name not in known for name in names] + [False])[codes])  # -1: missing


def _reject_unknown(warnings: Sequence[Problem], columns: Sequence[Column]) -> None:
    """Raise BadData for unknown categories and codes in columns that reject them."""
    strict = {(UNKNOWN_CATEGORY, column.name) for column in columns if column.handle_unknown == "reject"}
    strict |= {(OUT_OF_RANGE, column.name) for column in columns if column.rejects_outside_range}
    rejected = [problem for problem in warnings if (problem.code, problem.column) in strict]
    if rejected:
        raise BadData(rejected)


def unknown_category(row: int, column: Column) -> Problem:
    """Return the warning about a category that was not in the training data."""
    return Problem(UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE, row, column.name)


def out_of_range(row: int, column: Column) -> Problem:
    """Return the warning about a number outside the training range."""
    assert column.low is not None and column.high is not None
    training_range = f"{column.format_value(column.low)} to {column.format_value(column.high)}"
    return Problem(OUT_OF_RANGE, OUT_OF_RANGE_MESSAGE, row, column.name, training_range)


def not_whole(row: int, column: Column) -> Problem:
    """Return the warning about a decimal in a column whose training values were whole numbers."""
    return Problem(NOT_WHOLE, "is not a whole number, as all training values were", row, column.name)

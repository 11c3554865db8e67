"""Valid input that a model was not trained for: unknown categories and numbers out of the training range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from podium.schema.columns import Column, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem

NEVER_SEEN = "was not among the training rows"
UNKNOWN, OUTSIDE = "unknown-category", "out-of-training-range"


def row_warnings(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> list[Problem]:
    """Warnings for a few rows; raises BadData where a column rejects unknown categories."""
    found: list[Problem] = []
    refused: list[Problem] = []
    known = [frozenset(column.categories) if len(rows) > 1 else column.categories for column in columns]
    for number, row in enumerate(rows, 1):
        for cell, column, categories in zip(row, columns, known, strict=True):
            if isinstance(cell, str):
                if cell not in categories:
                    (refused if column.handle_unknown == "reject" else found).append(_unknown(number, column))
            elif cell is not None and not (column.low is None or column.high is None or column.low <= cell <= column.high):
                found.append(_outside(number, column))
        if len(found) > MAX_REPORTED:
            del found[MAX_REPORTED:]
        if len(refused) >= MAX_REPORTED:
            break
    if refused:
        raise BadData(refused)
    return found


def frame_warnings(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Problem]:
    """The same for a typed frame, up to a bound."""
    found = []
    for column in columns:
        cells = frame[column.name]
        if column.is_text:
            rows = np.flatnonzero(cells.notna() & ~cells.isin(column.categories))[:MAX_REPORTED]
            found += [_unknown(int(row) + 1, column) for row in rows]
        elif column.low is not None and column.high is not None:
            rows = np.flatnonzero((cells < column.low) | (cells > column.high))[:MAX_REPORTED]
            found += [_outside(int(row) + 1, column) for row in rows]
    return _judged(sorted(found, key=lambda problem: problem.row or 0), columns)


def _judged(found: list[Problem], columns: Sequence[Column]) -> list[Problem]:
    strict = {column.name for column in columns if column.handle_unknown == "reject"}
    refused = [problem for problem in found if problem.code == UNKNOWN and problem.column in strict]
    if refused:
        raise BadData(refused)
    return found[:MAX_REPORTED]


def _unknown(row: int, column: Column) -> Problem:
    return Problem(UNKNOWN, NEVER_SEEN, row, column.name)


def _outside(row: int, column: Column) -> Problem:
    assert column.low is not None and column.high is not None
    usual = f"{column.format_value(column.low)} to {column.format_value(column.high)}"
    return Problem(OUTSIDE, "is outside the range of the training rows", row, column.name, usual)

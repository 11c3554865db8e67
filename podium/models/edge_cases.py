"""Rows with extreme values, to check that a loaded model does not fail on any of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date

import numpy as np

from podium.models.golden_rows import GoldenMismatch
from podium.models.model import Model
from podium.schema.columns import EPOCH, Column, Value
from podium.tables.frames import rows_to_frame

MAX_ROWS, RANDOM_ROWS, ROWS_AT_ONCE, MAX_SECONDS = 500, 64, 50, 4.0
UNKNOWN_TEXTS = ("\N{SNOWMAN}", "", "x" * 1000)
TEXTS = ("", "The quick brown fox", "ÄRGER über 3 x2 naïve_word")
EXTREME_NUMBERS = (0.0, 1.0, -1.0, 0.5, 5e-324, 1e9, 1e30, 1e300, 2.0**31, 2.0**53)


def edge_case_rows(columns: Sequence[Column], seed: int) -> list[tuple[Value, ...]]:
    """Return rows in which every column takes each of its edge values, up to MAX_ROWS, followed by random combinations."""
    edges = [_edge_values(column) for column in columns]
    count = min(max(map(len, edges)), MAX_ROWS)
    rows = [tuple(values[(row + column) % len(values)] for column, values in enumerate(edges)) for row in range(count)]
    random = np.random.default_rng(seed)
    return rows + [tuple(values[random.integers(len(values))] for values in edges) for _ in range(RANDOM_ROWS)]


def _edge_values(column: Column) -> list[Value]:
    return [*_present_edge_values(column), *([None] if column.nullable else [])]


def _present_edge_values(column: Column) -> Sequence[Value]:
    if column.kind == "category" and column.handle_unknown == "reject" and column.categories:
        return column.categories  # no request with another one reaches the model
    if column.is_text:
        return [*column.categories, *UNKNOWN_TEXTS, *TEXTS] if column.kind == "text" else [*column.categories, *UNKNOWN_TEXTS]
    if column.kind == "boolean":
        return [0.0, 1.0]
    if column.kind == "date":
        return [float(day.toordinal() - EPOCH) for day in (date.min, date.max, date(1970, 1, 1), date(2024, 2, 29))] + [
            19782.75
        ]
    training_range = [end for end in (column.low, column.high) if end is not None]
    extreme = [number for number in EXTREME_NUMBERS if column.kind == "number" or number == int(number)]
    return [*training_range, *extreme, *(-number for number in extreme)]


def check_edge_cases(model: Model, seed: int = 0) -> bool:
    """Score extreme rows and return whether the one-row path gives identical results. Raises GoldenMismatch.

    Runs in a child process, so that a model that crashes here never serves. Slow models are checked for MAX_SECONDS at most.
    """
    rows, same_bits = edge_case_rows(model.signature.inputs, seed), True
    score_row, started = model.compiled(), time.process_time()
    for low in range(0, len(rows), ROWS_AT_ONCE):
        if time.process_time() - started > MAX_SECONDS:
            break
        chunk = rows[low : low + ROWS_AT_ONCE]
        try:
            with np.errstate(all="ignore"):
                by_frame = np.asarray(model.scores(rows_to_frame(chunk, model.signature.inputs)))
                by_row = np.array([list(score_row(row)) for row in chunk])
        except Exception as error:  # libraries may raise any exception
            raise GoldenMismatch(f"{model.family} fails on a row with extreme values ({type(error).__name__})") from error
        if by_frame.shape != (len(chunk), len(model.signature.target.classes) or 1):
            raise GoldenMismatch(f"{model.family} returns the wrong number of scores for its target")
        same_bits &= by_frame.shape == by_row.shape and np.array_equal(by_frame, by_row, equal_nan=True)
    return same_bits

"""Records at the edges of what a model may be asked, by which a loaded model must do no harm."""

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
UNKNOWN = ("\N{SNOWMAN}", "", "x" * 1000)
FAR_NUMBERS = (0.0, 1.0, -1.0, 0.5, 5e-324, 1e9, 1e30, 1e300, 2.0**31, 2.0**53)


def edge_case_rows(columns: Sequence[Column], seed: int) -> list[tuple[Value, ...]]:
    """Rows in which every column takes each of its edge values and categories, as far as MAX_ROWS allows, then random ones."""
    edges = [_edges(column) for column in columns]
    count = min(max(map(len, edges)), MAX_ROWS)
    rows = [tuple(own[(turn + place) % len(own)] for place, own in enumerate(edges)) for turn in range(count)]
    dice = np.random.default_rng(seed)
    return rows + [tuple(own[dice.integers(len(own))] for own in edges) for _ in range(RANDOM_ROWS)]


def _edges(column: Column) -> list[Value]:
    return [*_values(column), *([None] if column.nullable else [])]


def _values(column: Column) -> Sequence[Value]:
    if column.is_text:
        return [*column.categories, *UNKNOWN]
    if column.kind == "boolean":
        return [0.0, 1.0]
    if column.kind == "date":
        return [float(day.toordinal() - EPOCH) for day in (date.min, date.max, date(1970, 1, 1), date(2024, 2, 29))]
    known = [end for end in (column.low, column.high) if end is not None]
    far = [number for number in FAR_NUMBERS if column.kind == "number" or number == int(number)]
    return [*known, *far, *(-number for number in far)]


def check_edge_cases(model: Model, seed: int = 0) -> bool:
    """Score extreme rows in both ways; whether the fast way gives the same bits. Raises ProofFailed.

    A model that ends its process here never reaches one that serves. Slow models are tried on as many rows as fit the time.
    """
    rows, same = edge_case_rows(model.signature.inputs, seed), True
    fast, started = model.compiled(), time.process_time()
    for low in range(0, len(rows), ROWS_AT_ONCE):
        if time.process_time() - started > MAX_SECONDS:
            break
        some = rows[low : low + ROWS_AT_ONCE]
        try:
            with np.errstate(all="ignore"):
                slow = np.asarray(model.scores(rows_to_frame(some, model.signature.inputs)))
                quick = np.array([list(fast(row)) for row in some])
        except Exception as error:  # whatever a library raises
            raise GoldenMismatch(f"{model.family} fails on a record with extreme values ({type(error).__name__})") from error
        if slow.shape != (len(some), len(model.signature.target.classes) or 1):
            raise GoldenMismatch(f"{model.family} gives another number of scores than its target needs")
        same &= slow.shape == quick.shape and np.array_equal(slow, quick, equal_nan=True)
    return same

"""Golden rows: inputs with the scores recorded at training time, to verify a model wherever it is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from podium.models.model import Model, RowScorer
from podium.models.runner_scorer import RunnerScorer
from podium.schema.columns import Column, Value
from podium.tables.frames import frame_to_rows, rows_to_frame

MAX_ROWS = 32
TOLERANCE = 1e-9
"""Allowed absolute and relative difference from scores recorded on another processor."""

MAX_SECONDS_ON_LOOP = 1e-3
"""Maximum CPU time per row for running a model on the event loop; slower models run in a thread."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Typed rows in input order, the scores of each model family, and the tolerance of the comparison.

    For imported models, the scores are those of the original model.
    """

    rows: list[tuple[Value, ...]]
    scores: dict[str, list[list[float]]]
    tolerance: float = TOLERANCE


GOLDEN = TypeAdapter(Golden)


class GoldenMismatch(Exception):
    """A loaded model does not reproduce its recorded scores."""


def record_golden(models: list[Model], inputs: pd.DataFrame, seed: int) -> Golden:
    """Record the scores of sampled rows, and of variants with missing cells, unseen categories and extreme numbers."""
    rows = frame_to_rows(inputs.sample(min(MAX_ROWS, len(inputs)), random_state=seed).sort_index())
    rows += _edge_case_rows(rows[0], models[0].signature.inputs)
    frame = rows_to_frame(rows, models[0].signature.inputs)
    return Golden(rows, {model.family: model.scores(frame).tolist() for model in models})


def _edge_case_rows(row: tuple[Value, ...], columns: tuple[Column, ...]) -> list[tuple[Value, ...]]:
    empty = tuple(None if column.nullable else cell for cell, column in zip(row, columns, strict=True))
    unseen = tuple("\N{SNOWMAN}" if column.is_text else cell for cell, column in zip(row, columns, strict=True))
    extreme = tuple(
        cell if isinstance(cell, str) or cell is None else cell * 1e6 + 1e6 if c.kind in ("number", "integer") else cell
        for cell, c in zip(row, columns, strict=True)
    )
    return [empty, unseen, extreme]


def verify_golden_rows(model: Model, golden: Golden) -> float:
    """Return the largest difference from the recorded scores. Raises GoldenMismatch if it exceeds the tolerance."""
    scores = model.scores(rows_to_frame(golden.rows, model.signature.inputs))
    recorded = np.array(golden.scores[model.family])
    if scores.shape != recorded.shape or not np.allclose(scores, recorded, rtol=golden.tolerance, atol=golden.tolerance):
        raise GoldenMismatch(f"{model.family} does not reproduce its golden rows")
    return float(np.abs(scores - recorded).max())


def verified_fast_path(model: Model, golden: Golden) -> RowScorer | None:
    """Return the one-row scorer if it is fast and matches the frame path exactly on every golden row, else None.

    The event loop never waits for another process.
    """
    if isinstance(model.scorer, RunnerScorer):
        return None
    score_row = model.compiled()
    expected = model.scores(rows_to_frame(golden.rows, model.signature.inputs)).tolist()
    started = time.process_time()
    same_bits = all(list(score_row(row)) == scores for row, scores in zip(golden.rows, expected, strict=True))
    is_fast = time.process_time() - started < MAX_SECONDS_ON_LOOP * len(expected)
    return score_row if same_bits and is_fast else None

"""Golden rows: inputs with the scores that a model gave when it was made, by which it is proved wherever it is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from podium.models.model import Model, RowScorer
from podium.schema.columns import Column, Value
from podium.tables.frames import frame_to_rows, rows_to_frame

MAX_ROWS = 32
TOLERANCE = 1e-9
"""Allowed difference, absolute and relative, to scores that another processor recorded."""


MAX_SECONDS_ON_LOOP = 1e-3
"""Seconds of the processor that a record may take on the event loop; a slower model answers in a thread."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Typed rows in the order of the inputs, for each family its scores, and how close a loaded model must come.

    Of an imported model the scores are those of the original.
    """

    rows: list[tuple[Value, ...]]
    scores: dict[str, list[list[float]]]
    close: float = TOLERANCE


GOLDEN = TypeAdapter(Golden)


class GoldenMismatch(Exception):
    """A loaded model does not answer as it did when it was made."""


def record_golden(models: list[Model], inputs: pd.DataFrame, seed: int) -> Golden:
    """Scores of some rows, and of rows with each optional cell missing and with an unseen category."""
    rows = frame_to_rows(inputs.sample(min(MAX_ROWS, len(inputs)), random_state=seed).sort_index())
    rows += _add_edge_cases(rows[0], models[0].signature.inputs)
    frame = rows_to_frame(rows, models[0].signature.inputs)
    return Golden(rows, {model.family: model.scores(frame).tolist() for model in models})


def _add_edge_cases(row: tuple[Value, ...], columns: tuple[Column, ...]) -> list[tuple[Value, ...]]:
    empty = tuple(None if column.nullable else cell for cell, column in zip(row, columns, strict=True))
    unseen = tuple("\N{SNOWMAN}" if column.is_text else cell for cell, column in zip(row, columns, strict=True))
    far = tuple(
        cell if isinstance(cell, str) or cell is None else cell * 1e6 + 1e6 if c.kind in ("number", "integer") else cell
        for cell, c in zip(row, columns, strict=True)
    )
    return [empty, unseen, far]


def verify_golden_rows(model: Model, golden: Golden) -> float:
    """The largest difference to the recorded scores; raises ProofFailed when it is more than rounding."""
    got = model.scores(rows_to_frame(golden.rows, model.signature.inputs))
    recorded = np.array(golden.scores[model.family])
    if got.shape != recorded.shape or not np.allclose(got, recorded, rtol=golden.close, atol=golden.close):
        raise GoldenMismatch(f"{model.family} does not reproduce its golden rows")
    return float(np.abs(got - recorded).max())


def verified_fast_path(model: Model, golden: Golden) -> RowScorer | None:
    """The compiled one-record path, if it gives the very bits of the frame path on every golden row, and soon; else None."""
    fast = model.compiled()
    slow = model.scores(rows_to_frame(golden.rows, model.signature.inputs)).tolist()
    started = time.process_time()
    same = all(list(fast(row)) == scores for row, scores in zip(golden.rows, slow, strict=True))
    return fast if same and time.process_time() - started < MAX_SECONDS_ON_LOOP * len(slow) else None

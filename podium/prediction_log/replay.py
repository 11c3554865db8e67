"""Replay: what another version answers to the last logged rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.prediction_log.prediction_table import available_inputs, logged_keys, logged_scores, recomputed_predictions
from podium.prediction_log.reading import read_last
from podium.registry.audit_entry import GateResult
from podium.registry.loading import LoadedVersion
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature
from podium.storage.object_store import Store

ROWS = 1_000
LARGE_CHANGE = 0.05
"""A number has changed if it differs by more than this fraction of the logged one."""
MIN_SLICE_ROWS, MAX_SLICES = 20, 10
PLURALS = {"prediction": "predictions", "probability": "probabilities"}


@dataclass(frozen=True, slots=True)
class Replay:
    """How the predictions of the replayed rows differ.

    `changed` is the fraction that get another class, or a number that differs by more than LARGE_CHANGE. `typical` (the
    median) and `largest` are the differences of the numbers, or of the probabilities (of the class that differs most; None
    if another set of classes answered).
    """

    rows: int
    changed: float
    difference_in: str
    typical: float | None
    largest: float | None
    slices: Sequence[dict[str, Any]]

    def __str__(self) -> str:
        text = f"{self.changed:.1%} of the last {self.rows:,} logged predictions change"
        if self.difference_in == "prediction":
            text += f" by more than {LARGE_CHANGE:.0%}"
        if self.largest is None:
            return text
        return f"{text}; {PLURALS[self.difference_in]} differ by {self.typical:.3g} (median) and at most {self.largest:.3g}"


class NothingToReplay(ValueError):
    """There are no logged rows that the version can predict; the message says why."""


def replay(store: Store, loaded: LoadedVersion, rows: int = ROWS) -> Replay:
    """Predict the last logged rows with the best model of a version. Raises NothingToReplay, StoreError."""
    signature, model = loaded.manifest.signature, loaded.models[loaded.manifest.champion]
    frames, olds, news, differences = list[pd.DataFrame](), list[Any](), list[Any](), list[np.ndarray]()
    for table in read_last(store, loaded.manifest.project, rows):
        frame = available_inputs(table, signature)
        missing = [column.name for column in signature.inputs if column.name not in frame]
        if missing:
            raise NothingToReplay(f"the log has no values of {', '.join(missing[:5])} that the version accepts")
        scores = model.scores(frame)
        predicted = np.isfinite(scores).all(axis=1)
        answers = recomputed_predictions(signature, scores, logged_keys(table, signature)).filter(pa.array(predicted))
        frames.append(frame[predicted])
        olds += table["prediction"].filter(pa.array(predicted)).to_pylist()
        news += answers.to_pylist()
        differences.append(_score_differences(signature, table, scores)[predicted])
    if not olds:
        raise NothingToReplay("no predictions are logged")
    return _compared(signature, pd.concat(frames, ignore_index=True), olds, news, np.concatenate(differences))


def _score_differences(signature: Signature, table: pa.Table, scores: FloatMatrix) -> np.ndarray:
    """Return for each row by how much the probability of a class differs from the logged one, NaN if it is not known."""
    logged = logged_scores(table).get(table["model"][0].as_py()) if signature.target.classes else None
    if logged is None or logged.shape != scores.shape or len(pc.unique(table["model"])) > 1:
        return np.full(len(scores), np.nan)
    has_same_classes = recomputed_predictions(signature, logged, None).equals(table["prediction"].combine_chunks())
    return np.abs(scores - logged).max(axis=1) if has_same_classes else np.full(len(scores), np.nan)


def _compared(
    signature: Signature, inputs: pd.DataFrame, olds: Sequence[Any], news: Sequence[Any], score_differences: np.ndarray
) -> Replay:
    if signature.target.classes:
        unit, changed = "probability", np.array([str(old) != str(new) for old, new in zip(olds, news, strict=True)])
        differences = score_differences[np.isfinite(score_differences)]
    else:
        unit, logged = "prediction", np.array(olds, dtype=float)
        differences = np.abs(np.array(news, dtype=float) - logged)
        changed = differences > LARGE_CHANGE * np.abs(logged)
    typical, largest = (float(np.median(differences)), float(differences.max())) if len(differences) else (None, None)
    slices = by_slice(inputs, changed, MIN_SLICE_ROWS, MAX_SLICES, "changed")
    return Replay(len(changed), float(changed.mean()), unit, typical, largest, slices)


def by_slice(inputs: pd.DataFrame, values: np.ndarray, least: int, most: int, name: str) -> list[dict[str, Any]]:
    """Return the mean of `values` in each group of a category column that has at least `least` rows, the largest first."""
    slices = []
    for column in inputs.columns:
        if not pd.api.types.is_numeric_dtype(inputs[column]):
            groups = pd.Series(values, dtype=float).groupby(inputs[column].to_numpy()).agg(["size", "mean"])
            groups = groups[(groups["size"] >= least) & (groups["size"] < len(values))]
            slices += [
                {"column": column, "value": str(value), "rows": int(row["size"]), name: float(row["mean"])}
                for value, row in groups.iterrows()
            ]
    return sorted(slices, key=lambda each: -each[name])[:most]


def replay_gate(store: Store, loaded: LoadedVersion, max_changed: float) -> GateResult:
    """Return whether few enough predictions change."""
    try:
        result = replay(store, loaded)
    except NothingToReplay as error:
        return GateResult(name="replay", passed=True, detail=f"not compared: {error}")
    return GateResult(name="replay", passed=result.changed <= max_changed, detail=f"{result} (limit {max_changed:.1%})")

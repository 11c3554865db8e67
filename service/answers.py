"""Scores to answers: one form for every way in."""

from __future__ import annotations

import itertools
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from podium.data.columns import Label, Target
from podium.data.problems import Problem
from podium.model.encode import Matrix
from podium.model.model import answer
from service.live import Snapshot

_START, _numbers = secrets.token_hex(6), itertools.count(1)


def prediction_id() -> str:
    """Unique over processes and restarts."""
    return f"{_START}-{next(_numbers):x}"


def finite(number: Label | float) -> Label | float | None:
    """JSON has no NaN and no infinity."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def one_prediction(scores: Sequence[float], target: Target) -> dict[str, Any]:
    """`prediction`, and for classes `probabilities` by class."""
    fields: dict[str, Any] = {"prediction": finite(answer(scores, target))}
    if target.classes:
        fields["probabilities"] = {str(label): finite(score) for label, score in zip(target.classes, scores, strict=True)}
    return fields


def json_answer(
    snapshot: Snapshot, identity: str, scores: Mapping[str, Matrix | Sequence[Sequence[float]]], warnings: Sequence[Problem]
) -> bytes:
    """The answer to any number of records; with several models, each under its name and the first one's on top."""
    target, (first, *others) = snapshot.signature.target, scores
    predictions = []
    for row in range(len(scores[first])):
        fields = one_prediction(list(map(float, scores[first][row])), target)
        if others:
            fields["models"] = {name: one_prediction(list(map(float, rows[row])), target) for name, rows in scores.items()}
        predictions.append(fields)
    return json.dumps(
        {
            "project": snapshot.project,
            "version": snapshot.version,
            "model": first,
            "prediction_id": identity,
            "predictions": predictions,
            "warnings": [warning.as_json() for warning in warnings],
        },
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def answer_headers(snapshot: Snapshot, identity: str) -> dict[str, str]:
    return {"X-Model-Version": snapshot.version, "X-Prediction-Id": identity}

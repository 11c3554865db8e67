"""Scores to answers: one form for every way in."""

from __future__ import annotations

import itertools
import json
import math
import secrets
from collections.abc import Sequence
from datetime import date
from typing import Any

from podium.inference.panel import Scores, forecast_rows
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.models.model import predicted_label
from podium.schema.columns import EPOCH, Column, Label, Signature, Target, Value

_START, _numbers = secrets.token_hex(6), itertools.count(1)


def prediction_id() -> str:
    """Unique over processes and restarts."""
    return f"{_START}-{next(_numbers):x}"


def json_number(number: Label | float) -> Label | float | None:
    """JSON has no NaN and no infinity."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def one_prediction(scores: Sequence[float], target: Target, half_width: float | None = None) -> dict[str, Any]:
    """`prediction`, and for classes `probabilities` by class, else the `interval` that holds 90 % of the targets."""
    fields: dict[str, Any] = {"prediction": json_number(predicted_label(scores, target))}
    if target.classes:
        fields["probabilities"] = {str(label): json_number(score) for label, score in zip(target.classes, scores, strict=True)}
    elif half_width is not None:
        fields["interval"] = [json_number(scores[0] - half_width), json_number(scores[0] + half_width)]
    return fields


def predictions(snapshot: ServedModel, scores: Scores, inputs: ParsedRows, with_inputs: bool) -> list[dict[str, Any]]:
    """One answer a row, or a day of a panel; with several models, each under its name and the first one's on top; of a wrong
    row its errors."""
    if snapshot.signature.panel:
        return forecast_rows(snapshot.signature.panel, inputs, scores)
    target, (first, *others) = snapshot.signature.target, scores
    widths = {family: snapshot.half_width(family) for family in scores}
    rows = iter(inputs.as_rows()) if with_inputs else None
    good = iter(range(inputs.count))
    found: list[dict[str, Any]] = []
    for place in range(inputs.total):
        if place in inputs.invalid_rows:
            found.append({"errors": [problem.as_json() for problem in inputs.invalid_rows[place]]})
            continue
        row = next(good)
        fields = one_prediction(list(map(float, scores[first][row])), target, widths[first])
        if others:
            fields["models"] = {
                name: one_prediction(list(map(float, table[row])), target, widths[name]) for name, table in scores.items()
            }
        if rows:
            fields["inputs"] = sorted_inputs(next(rows), snapshot.signature)
        found.append(fields)
    return found


def sorted_inputs(row: Sequence[Value], signature: Signature) -> dict[str, Any]:
    """What the model took, by name in alphabetical order."""
    cells = {column.name: _plain(cell, column) for cell, column in zip(row, signature.inputs, strict=True)}
    return dict(sorted(cells.items()))


def _plain(cell: Value, column: Column) -> Any:
    if cell is None or isinstance(cell, str):
        return cell
    if column.kind == "date":
        return date.fromordinal(int(cell) + EPOCH).strftime(column.date_format)
    return bool(cell) if column.kind == "boolean" else int(cell) if column.kind == "integer" else cell


def json_answer(snapshot: ServedModel, identity: str, scores: Scores, inputs: ParsedRows, with_inputs: bool = False) -> bytes:
    """The answer to any number of records."""
    return json.dumps(
        {
            "project": snapshot.project,
            "version": snapshot.version,
            "model": next(iter(scores)),
            "prediction_id": identity,
            "predictions": predictions(snapshot, scores, inputs, with_inputs),
            "warnings": [warning.as_json() for warning in inputs.warnings],
        },
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def answer_headers(snapshot: ServedModel, identity: str) -> dict[str, str]:
    return {"X-Model-Version": snapshot.version, "X-Prediction-Id": identity}

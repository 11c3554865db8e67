"""Render scores as JSON, in the same form for every kind of request."""

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

_PROCESS_ID, _counter = secrets.token_hex(6), itertools.count(1)


def new_prediction_id() -> str:
    """Return an id that is unique across processes and restarts."""
    return f"{_PROCESS_ID}-{next(_counter):x}"


def json_number(number: Label | float) -> Label | float | None:
    """Return None for NaN and infinity, which JSON cannot represent."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def one_prediction(scores: Sequence[float], target: Target, half_width: float | None = None) -> dict[str, Any]:
    """Return `prediction` with `probabilities` by class or, for a regression, with the 90% prediction `interval`."""
    fields: dict[str, Any] = {"prediction": json_number(predicted_label(scores, target))}
    if target.classes:
        fields["probabilities"] = {str(label): json_number(score) for label, score in zip(target.classes, scores, strict=True)}
    elif half_width is not None:
        fields["interval"] = [json_number(scores[0] - half_width), json_number(scores[0] + half_width)]
    return fields


def render_predictions(served: ServedModel, scores: Scores, rows: ParsedRows, with_inputs: bool) -> list[dict[str, Any]]:
    """Return one object per row, or per forecast of a panel; an invalid row gets its errors.

    With several models, the first model's prediction is at the top level, and `models` maps every model name to a prediction.
    """
    if served.signature.panel:
        return forecast_rows(served.signature.panel, rows, scores)
    target, (first, *others) = served.signature.target, scores
    widths = {family: served.half_width(family) for family in scores}
    cells = iter(rows.as_rows()) if with_inputs else None
    valid = iter(range(rows.count))
    rendered: list[dict[str, Any]] = []
    for index in range(rows.total):
        if index in rows.invalid_rows:
            rendered.append({"errors": [problem.as_json() for problem in rows.invalid_rows[index]]})
            continue
        row = next(valid)
        fields = one_prediction(list(map(float, scores[first][row])), target, widths[first])
        if others:
            fields["models"] = {
                name: one_prediction(list(map(float, table[row])), target, widths[name]) for name, table in scores.items()
            }
        if cells:
            fields["inputs"] = sorted_inputs(next(cells), served.signature)
        rendered.append(fields)
    return rendered


def sorted_inputs(row: Sequence[Value], signature: Signature) -> dict[str, Any]:
    """Return the parsed inputs of a row by name, in alphabetical order."""
    cells = {column.name: _json_cell(cell, column) for cell, column in zip(row, signature.inputs, strict=True)}
    return dict(sorted(cells.items()))


def _json_cell(cell: Value, column: Column) -> Any:
    if cell is None or isinstance(cell, str):
        return cell
    if column.kind == "date":
        return date.fromordinal(int(cell) + EPOCH).strftime(column.date_format)
    return bool(cell) if column.kind == "boolean" else int(cell) if column.kind == "integer" else cell


def json_predictions(
    served: ServedModel, prediction_id: str, scores: Scores, rows: ParsedRows, with_inputs: bool = False
) -> bytes:
    """Return the body of a JSON response."""
    return json.dumps(
        {
            "project": served.project,
            "version": served.version,
            "model": next(iter(scores)),
            "prediction_id": prediction_id,
            "predictions": render_predictions(served, scores, rows, with_inputs),
            "warnings": [warning.as_json() for warning in rows.warnings],
        },
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def prediction_headers(served: ServedModel, prediction_id: str) -> dict[str, str]:
    return {"X-Model-Version": served.version, "X-Prediction-Id": prediction_id}

"""Prediction ids, headers and cells of responses."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Sequence
from typing import Any

from podium.inference.served_model import ServedModel
from podium.schema.columns import Column, Label, Value, format_date

_PROCESS_ID, _counter = secrets.token_hex(6), itertools.count(1)


def new_prediction_id() -> str:
    """Return an id that is unique across processes and restarts."""
    return f"{_PROCESS_ID}-{next(_counter):x}"


def json_number(number: Label | float) -> Label | float | None:
    """Return None for NaN and infinity, which JSON cannot represent."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def sorted_inputs(row: Sequence[Value], columns: Sequence[tuple[int, Column]]) -> dict[str, Any]:
    """Return the parsed inputs of a row by name; `columns` are the columns with their positions, sorted by name."""
    return {column.name: _json_cell(row[index], column) for index, column in columns}


def _json_cell(cell: Value, column: Column) -> Any:
    if column.kind == "number" or cell is None or isinstance(cell, str):
        return cell
    if column.kind == "date":
        return format_date(cell, column.strptime_format)
    return bool(cell) if column.kind == "boolean" else int(cell) if column.kind == "integer" and cell.is_integer() else cell


def prediction_headers(served: ServedModel, prediction_id: str) -> dict[str, str]:
    return {"X-Model-Version": served.version, "X-Prediction-Id": prediction_id}

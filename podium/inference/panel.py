"""Forecasts of a panel: predicted changes beside what came, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from podium.inference.request_rows import ParsedRows
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Panel
from podium.tables.panel import ACTUAL, Forecast, forecast

Scores = Mapping[str, FloatMatrix | Sequence[Sequence[float]]]
"""Of each model (n, scores)."""


def forecasts(panel: Panel, inputs: ParsedRows, scores: Scores) -> dict[str, Forecast]:
    """Of each model, for all windows of the inputs; NaN for those that are not predicted."""
    assert inputs.keys is not None
    good = np.ones(inputs.total, dtype=bool)
    good[list(inputs.bad)] = False
    found = {}
    for family, rows in scores.items():
        changes = np.full(inputs.total, np.nan)
        changes[good] = np.asarray(rows, dtype=float).reshape(-1)
        made = forecast(inputs.keys, changes, panel.forecast_base)
        found[family] = Forecast(np.where(good, made.step, np.nan), np.where(good, made.value, np.nan))
    return found


def forecast_table(panel: Panel, inputs: ParsedRows, scores: Scores) -> pa.Table:
    """Entity, index and day; `pred_<target>` and `val_<target>`, which is null on the day to come; with several models
    `pred_<target>_<family>` of each."""
    assert inputs.keys is not None
    found = forecasts(panel, inputs, scores)
    table, target = inputs.as_table(), panel.target
    first = next(iter(found))
    table = table.append_column(f"pred_{target}", _numbers(found[first].value))
    table = table.append_column(f"val_{target}", _numbers(inputs.keys[ACTUAL].to_numpy()))
    for family, made in found.items() if len(found) > 1 else ():
        table = table.append_column(f"pred_{target}_{family}", _numbers(made.value))
    return table


def forecast_rows(panel: Panel, inputs: ParsedRows, scores: Scores) -> list[dict[str, Any]]:
    """One answer a window: its keys, `prediction` as in the table, `step` from the day before alone, and `actual`."""
    assert inputs.keys is not None
    found = forecasts(panel, inputs, scores)
    first, *others = found
    rows: list[dict[str, Any]] = inputs.as_table().to_pylist()
    actual = _numbers(inputs.keys[ACTUAL].to_numpy()).to_pylist()
    values = {family: (_numbers(made.value).to_pylist(), _numbers(made.step).to_pylist()) for family, made in found.items()}
    for place, row in enumerate(rows):
        if place in inputs.bad:
            row["errors"] = [problem.as_json() for problem in inputs.bad[place]]
            continue
        value, step = (column[place] for column in values[first])
        row |= {"prediction": value, "step": step, "actual": actual[place]}
        if others:
            row["models"] = {
                family: {"prediction": value[place], "step": step[place]} for family, (value, step) in values.items()
            }
    return rows


def _numbers(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers, mask=~np.isfinite(numbers))

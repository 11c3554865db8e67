"""Compute the forecasts of a panel from predicted changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from podium.inference.parsed_rows import ParsedRows
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Panel
from podium.tables.panel import ACTUAL, Forecast, forecast

Scores = Mapping[str, FloatMatrix | Sequence[Sequence[float]]]
"""(n, outputs) scores by model family."""


def forecasts(panel: Panel, inputs: ParsedRows, scores: Scores) -> dict[str, Forecast]:
    """Return each model's forecast for all windows; NaN for invalid ones."""
    assert inputs.keys is not None
    valid = np.ones(inputs.total, dtype=bool)
    valid[list(inputs.invalid_rows)] = False
    by_family = {}
    for family, rows in scores.items():
        changes = np.full(inputs.total, np.nan)
        changes[valid] = np.asarray(rows, dtype=float).reshape(-1)
        values = forecast(inputs.keys, changes, panel.forecast_base)
        by_family[family] = Forecast(np.where(valid, values.step, np.nan), np.where(valid, values.value, np.nan))
    return by_family


def forecast_table(panel: Panel, inputs: ParsedRows, scores: Scores) -> pa.Table:
    """Return the keys of each window, `pred_<target>`, and `val_<target>`, which is null for the next day.

    With several models, a column `pred_<target>_<family>` is added for each.
    """
    assert inputs.keys is not None
    by_family = forecasts(panel, inputs, scores)
    table, target = inputs.as_table(), panel.target
    first = next(iter(by_family))
    table = table.append_column(f"pred_{target}", _nullable(by_family[first].value))
    table = table.append_column(f"val_{target}", _nullable(inputs.keys[ACTUAL]))
    for family, values in by_family.items() if len(by_family) > 1 else ():
        table = table.append_column(f"pred_{target}_{family}", _nullable(values.value))
    return table


def forecast_rows(panel: Panel, inputs: ParsedRows, scores: Scores) -> list[dict[str, Any]]:
    """Return for each window its keys, `prediction` as in the table, `step` (from the previous day alone) and `actual`."""
    assert inputs.keys is not None
    by_family = forecasts(panel, inputs, scores)
    first, *others = by_family
    rows: list[dict[str, Any]] = inputs.as_table().to_pylist()
    actual = _nullable(inputs.keys[ACTUAL]).to_pylist()
    values = {family: (_nullable(one.value).to_pylist(), _nullable(one.step).to_pylist()) for family, one in by_family.items()}
    for index, row in enumerate(rows):
        if index in inputs.invalid_rows:
            row["errors"] = [problem.as_json() for problem in inputs.invalid_rows[index]]
            continue
        value, step = (column[index] for column in values[first])
        row |= {"prediction": value, "step": step, "actual": actual[index]}
        if others:
            row["models"] = {
                family: {"prediction": value[index], "step": step[index]} for family, (value, step) in values.items()
            }
    return rows


def _nullable(numbers: np.ndarray) -> pa.Array:
    """Return the numbers, with null for non-finite ones."""
    return pa.array(numbers, mask=~np.isfinite(numbers))

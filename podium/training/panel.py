"""A raw table of a panel to windows that can be learned from, and the features of windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.models.encoder import Encoder
from podium.models.features import ColumnCache, Feature, Standardized
from podium.models.panel_features import RelativeChange
from podium.project import ColumnOptions, Project
from podium.schema.columns import Column, Derived, Panel, Signature, Target
from podium.schema.data_errors import BadData, Problem
from podium.tables.frames import coerce_frame
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST, Windows, change_scale, lag_name, window_columns, windows
from podium.tables.schema_inference import infer_column
from podium.training.daily_files import panel_options, row_days

ROUNDING = 1e-9
"""A smaller spread of shares is none."""


def infer_panel(table: pa.Table, project: Project) -> tuple[Panel, dict[str, str]]:
    """The panel as its rows show it, and why the other columns are left out. Raises BadData."""
    asked = panel_options(project)
    wanted = {project.target: "target", asked.entity: "panel.entity", asked.time: "panel.time"}
    wanted |= {
        name: "panel.derived_columns"
        for column in asked.derived_columns.values()
        for name in column.of
        if name not in asked.derived_columns
    }
    missing = [
        Problem("unknown-column", f"{place} names a column that the data does not have", column=name)
        for name, place in wanted.items()
        if name not in table.column_names
    ]
    if missing:
        raise BadData(missing)
    columns, ignored = [], {}
    for name in table.column_names:
        options = project.columns.get(name, ColumnOptions())
        if options.ignore or name in asked.derived_columns:
            ignored[name] = "left out by the project" if options.ignore else "computed from other columns"
            continue
        if name == asked.entity:
            options = options.model_copy(update={"kind": "category", "fuzzy": options.fuzzy or "exact"})
        column = infer_column(name, table[name], options)
        if name in wanted or column.kind in ("number", "integer"):
            columns.append(column)
        else:
            ignored[name] = "is no number"
    derived = tuple(Derived(name, column.rule, column.of) for name, column in asked.derived_columns.items())
    panel = Panel(asked.entity, asked.time, project.target, asked.lags, tuple(columns), derived, asked.forecast_base)
    _check_kinds(panel)
    return panel, ignored


def _check_kinds(panel: Panel) -> None:
    kinds = {column.name: column for column in panel.columns}
    problems = []
    if kinds[panel.time].kind not in ("date", "integer"):
        message = "is neither a date nor a whole number (give its `format` if it is another than %Y-%m-%d)"
        problems.append(Problem("invalid-type", message, column=panel.time))
    numbers = {panel.target, *(name for column in panel.derived_columns for name in column.of if name in kinds)}
    problems += [
        Problem("invalid-type", "is no number", column=name)
        for name in sorted(numbers)
        if kinds[name].kind not in ("number", "integer")
    ]
    problems += [
        Problem("missing-field", "has no value in some rows", column=name)
        for name in (panel.entity, panel.time, panel.target)
        if kinds[name].nullable
    ]
    if problems:
        raise BadData(problems)


def with_known_entities(panel: Panel, inputs: pd.DataFrame, days: pd.Series) -> Panel:
    """The panel with the entities, ranges and days of these windows."""
    columns = []
    for column in panel.columns:
        if column.name == panel.entity:
            columns.append(replace(column, categories=tuple(sorted(inputs[panel.entity].unique()))))
        else:
            steps = range(1, panel.lags + 2)
            seen = [days] if column.name == panel.time else [inputs[lag_name(column.name, step)] for step in steps]
            numbers = pd.concat(seen).dropna()
            low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
            columns.append(replace(column, low=low, high=high))
    return replace(panel, columns=tuple(columns))


def prepare_windows(table: pa.Table, project: Project, until: float | None) -> tuple[Windows, Signature, tuple[str, ...]]:
    """Windows with a known change, of days up to `until`, the last `max_rows` of them, the signature and the notes.

    Raises BadData.
    """
    if until is not None:
        table = table.filter(pa.array((row_days(table, project) <= until).to_numpy()))
    panel, ignored = infer_panel(table, project)
    frame = coerce_frame(table, panel.columns, ignored)
    made = windows(frame, panel, ahead=False)
    notes = [f"column {name} was left out: {reason}" for name, reason in ignored.items()]
    if len(made.keys) < len(frame):
        notes.append(f"{len(frame) - len(made.keys)} rows were of a day that came again: the last one counts")
    made = made.take(np.flatnonzero(made.keys[INDEX] > 0))
    most = panel_options(project).max_rows
    if len(made.keys) > most:
        recent = np.sort(np.argsort(made.keys[DAY].to_numpy(), kind="stable")[-most:])
        notes.append(f"the last {most} of {len(made.keys)} rows are learned from (panel.max_rows)")
        made = made.take(recent)
    return made, Signature(window_columns(panel), Target(project.target, "forecast"), ignored, panel), tuple(notes)


def target_change(keys: pd.DataFrame) -> pd.Series:
    """What is predicted: the change since the day before, in units of the value then."""
    last = keys[LAST].to_numpy()
    return pd.Series((keys[ACTUAL].to_numpy() - last) / change_scale(last))


def unscaled_columns(panel: Panel, inputs: pd.DataFrame) -> set[str]:
    """The numbers whose changes say little: derived ones, and those of two values, such as whether there is a promotion."""
    flags = {name for name in panel.numeric_columns if name != panel.target and inputs[lag_name(name, 1)].nunique() <= 2}
    return flags | {column.name for column in panel.derived_columns}


def window_encoder(frame: pd.DataFrame, signature: Signature) -> Encoder:
    """Relative changes of each number from day to day, and its last value beside the target's where both have one unit."""
    panel = signature.panel
    assert panel is not None
    columns, places = signature.inputs, {column.name: place for place, column in enumerate(signature.inputs)}
    cells, features = ColumnCache(frame, columns), list[Feature]()
    plain = unscaled_columns(panel, frame)
    for name in panel.numeric_columns:
        for step in range(1, panel.lags + 1):
            own, other = places[lag_name(name, step)], places[lag_name(name, step + 1)]
            if name in plain:
                features.append(_number(own, columns[own], frame))
            else:
                features.append(_relative(own, other, f"{name}, change {step} before", cells))
        if name != panel.target and _unit(panel, name) and _unit(panel, name) == _unit(panel, panel.target):
            own, other = places[lag_name(name, 1)], places[lag_name(panel.target, 1)]
            features.append(_relative(own, other, f"{name} beside {panel.target}", cells))
    return Encoder(columns, tuple(features))


def _unit(panel: Panel, name: str) -> str:
    return next((column.unit for column in panel.columns if column.name == name), "")


def _number(place: int, column: Column, frame: pd.DataFrame) -> Standardized:
    present = frame[column.name].dropna().to_numpy(dtype=float)
    middle, mean, scale = (np.median(present), present.mean(), present.std()) if len(present) else (0.0, 0.0, 1.0)
    return Standardized(place, column.name, "", float(middle), float(mean), float(scale) or 1.0)


def _relative(column: int, base: int, name: str, cells: ColumnCache) -> RelativeChange:
    plain = RelativeChange(column, name, base, 0.0, 1.0)
    shares = plain.transform(cells)
    spread = float(shares.std())
    return replace(plain, mean=float(shares.mean()), scale=spread if spread > ROUNDING else 1.0)

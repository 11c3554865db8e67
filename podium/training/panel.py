"""Convert a raw panel table to windows with a known target change, and fit their features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.models.encoder import Encoder
from podium.models.features import ColumnCache, Feature, Standardized
from podium.models.panel_features import RelativeChange
from podium.project import ColumnOptions, Project
from podium.schema.arrays import Columns
from podium.schema.columns import Column, Derived, Panel, Signature, Target
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import DEFAULT_READING, Finding, Reading, counted
from podium.tables.cell_rules import expected
from podium.tables.frames import coerce_frame, columns_of, frame_of
from podium.tables.frequency import infer_frequency, step_name
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST, Windows, change_scale, lag_name, window_columns, windows
from podium.tables.readers import SourceTable
from podium.tables.schema_inference import infer_column, table_decimal
from podium.training.daily_files import base_columns, panel_options, row_days
from podium.training.findings import column_findings
from podium.training.preparation import check_row_count

MIN_SPREAD = 1e-9
"""Standard deviations below this are rounding errors and count as zero."""


def infer_panel(table: pa.Table, project: Project, reading: Reading = DEFAULT_READING) -> tuple[Panel, dict[str, str]]:
    """Infer the panel from its rows; also return why other columns are dropped. Raises BadData."""
    options = panel_options(project)
    required = {project.target: "target", options.entity: "panel.entity", options.time: "panel.time"}
    required |= dict.fromkeys(base_columns(options), "panel.derived_columns")
    _check_columns(table, required)
    columns, ignored = [], {}
    decimal = table_decimal(table, project, reading)
    for name in table.column_names:
        column_options = project.columns.get(name, ColumnOptions())
        if column_options.ignore or name in options.derived_columns:
            ignored[name] = "ignored by the project" if column_options.ignore else "computed from other columns"
            continue
        if name == options.entity:
            fuzzy = column_options.fuzzy or "exact"  # similar names are different entities
            update = {"kind": "category", "fuzzy": fuzzy, "na_values": column_options.na_values}  # NA is a name, if not set
            column_options = column_options.model_copy(update=update)
        column = infer_column(name, table[name], column_options, decimal)
        if name in required or column.kind in ("number", "integer"):
            columns.append(column)
        else:
            ignored[name] = "not a number"
    derived = tuple(Derived(name, column.rule, column.of) for name, column in options.derived_columns.items())
    panel = Panel(
        options.entity,
        options.time,
        project.target,
        options.lags,
        tuple(columns),
        derived,
        options.forecast_base,
        duplicates=options.duplicates or ("last" if str(project.data).endswith("/") else "error"),
    )
    _check_kinds(panel)
    return panel, ignored


def _check_columns(table: pa.Table, required: dict[str, str]) -> None:
    problems = [
        Problem("unknown-column", f"{key} names a column that the data does not have", column=name)
        for name, key in required.items()
        if name not in table.column_names
    ]
    if problems:
        raise BadData(problems)


def _check_kinds(panel: Panel) -> None:
    columns = {column.name: column for column in panel.columns}
    problems = []
    if columns[panel.time].kind not in ("date", "integer"):
        message = "is neither a date nor a whole number (set its `date_format` if it is not %Y-%m-%d)"
        problems.append(Problem("invalid-type", message, column=panel.time))
    numbers = {panel.target, *(name for column in panel.derived_columns for name in column.of if name in columns)}
    problems += [
        Problem("invalid-type", "is not a number", column=name)
        for name in sorted(numbers)
        if columns[name].kind not in ("number", "integer")
    ]
    problems += [
        Problem("missing-field", f"has missing values{_marks(columns[name])}", column=name)
        for name in (panel.entity, panel.time, panel.target)
        if columns[name].nullable
    ]
    if problems:
        raise BadData(problems)


def with_frequency(panel: Panel, frame: pd.DataFrame, project: Project) -> tuple[Panel, list[Finding]]:
    """Return the panel with the frequency of its times, and findings about the frequency and the gaps."""
    options, times = panel_options(project), frame[panel.time].to_numpy(dtype=float)
    if panel.time_column.kind != "date":
        return replace(panel, frequency=""), []
    codes = pd.factorize(frame[panel.entity])[0]
    frequency, regular = infer_frequency(codes, times)
    findings = []
    if options.frequency:
        frequency = options.frequency
    elif frequency != "D":
        findings.append(Finding(panel.time, f"one step is a {step_name(frequency)}", f'panel.frequency = "{frequency}"'))
    if regular < 1:
        findings.append(Finding(panel.time, f"{1 - regular:.1%} of the steps are longer or shorter; lags count rows"))
    return replace(panel, frequency=frequency), findings


def _repeated(count: int, panel: Panel) -> list[Finding]:
    """Return a finding about rows with the same entity and time. Raises BadData if they are an error."""
    if not count:
        return []
    message = f"{counted(count, 'row')} with the same {panel.entity} and {panel.time} as another"
    if panel.duplicates == "error":
        way_out = 'set panel.duplicates = "last", "mean" or "sum"'
        raise BadData([Problem("duplicate-rows", f"has {message}; {way_out}", column=panel.time)])
    done = "left out" if panel.duplicates == "last" else f"combined by their {panel.duplicates}"
    return [Finding("", f"{message} {done}", 'panel.duplicates = "error"')]


def _marks(column: Column) -> str:
    """Return the strings that count as missing in this column."""
    return f" (cells with {', '.join(column.na_values[:3])} are not {expected(column)})" if column.na_values else ""


def with_known_entities(panel: Panel, inputs: pd.DataFrame, days: pd.Series) -> Panel:
    """Return the panel with the entities, ranges and days of these windows."""
    columns = []
    for column in panel.columns:
        if column.name == panel.entity:
            columns.append(replace(column, categories=tuple(sorted(inputs[panel.entity].unique()))))
            continue
        lags = range(1, panel.lags + 2)
        values = [days] if column.name == panel.time else [inputs[lag_name(column.name, lag)] for lag in lags]
        numbers = pd.concat(values).dropna()
        low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
        columns.append(replace(column, low=low, high=high))
    return replace(panel, columns=tuple(columns))


def prepare_panel(source: SourceTable, project: Project, until: float | None) -> LabeledRows:
    """Return the last `panel.max_rows` windows with a known target change, for days up to `until`. Raises BadData."""
    table = source.table
    if until is not None:
        table = table.filter(pa.array((np.floor(row_days(table, project)) <= until).to_numpy()))
    panel, ignored = infer_panel(table, project, source.reading)
    frame = coerce_frame(table, panel.columns, ignored)
    panel, steps = with_frequency(panel, frame, project)
    result = windows(columns_of(frame), panel, ahead=False)
    signature = Signature(window_columns(panel), Target(project.target, "forecast"), ignored, panel, source.reading)
    findings = [*source.findings, *column_findings(table, signature, project)]
    findings += [*steps, *_repeated(len(frame) - len(result), panel)]
    result = result.take(np.flatnonzero(result.keys[INDEX] > 0))
    max_rows = panel_options(project).max_rows
    if len(result) > max_rows:
        recent = np.sort(np.argsort(result.keys[DAY], kind="stable")[-max_rows:])
        findings.append(
            Finding("", f"the most recent {max_rows} of {len(result)} rows are used", f"panel.max_rows = {len(result)}")
        )
        result = result.take(recent)
    check_row_count(len(result), "days with a previous day")
    return labeled_windows(result, signature, tuple(findings))


def labeled_windows(result: Windows, signature: Signature, findings: tuple[Finding, ...] = ()) -> LabeledRows:
    """Return windows with their target change, by day."""
    inputs, days = frame_of(result.inputs), pd.Series(result.keys[DAY])
    return LabeledRows(inputs, target_change(result.keys), days, signature, findings)


def target_change(keys: Columns) -> pd.Series:
    """Return the training target: the change since the previous day, relative to the previous value."""
    last = keys[LAST]
    return pd.Series((keys[ACTUAL] - last) / change_scale(last))


def unscaled_columns(panel: Panel, inputs: pd.DataFrame) -> set[str]:
    """Return the columns used as levels rather than changes: derived columns and binary flags."""
    flags = {name for name in panel.numeric_columns if name != panel.target and inputs[lag_name(name, 1)].nunique() <= 2}
    return flags | {column.name for column in panel.derived_columns}


def window_encoder(frame: pd.DataFrame, signature: Signature) -> Encoder:
    """Fit window features: day-over-day relative changes, and ratios to the target for columns in the same unit."""
    panel = signature.panel
    assert panel is not None
    columns, index = signature.inputs, {column.name: number for number, column in enumerate(signature.inputs)}
    cache, features = ColumnCache(frame, columns), list[Feature]()
    unscaled = unscaled_columns(panel, frame)
    for name in panel.numeric_columns:
        for lag in range(1, panel.lags + 1):
            current, previous = index[lag_name(name, lag)], index[lag_name(name, lag + 1)]
            if name in unscaled:
                features.append(_standardized(current, columns[current], frame))
            else:
                features.append(_relative_change(current, previous, f"{name}, change {lag} before", cache))
        unit = _unit(panel.columns, name)
        if name != panel.target and unit and unit == _unit(panel.columns, panel.target):
            current, target = index[lag_name(name, 1)], index[lag_name(panel.target, 1)]
            features.append(_relative_change(current, target, f"{name} relative to {panel.target}", cache))
    return Encoder(columns, tuple(features))


def _unit(columns: Iterable[Column], name: str) -> str:
    return next((column.unit for column in columns if column.name == name), "")


def _standardized(index: int, column: Column, frame: pd.DataFrame) -> Standardized:
    present = frame[column.name].dropna().to_numpy(dtype=float)
    median, mean, scale = (np.median(present), present.mean(), present.std()) if len(present) else (0.0, 0.0, 1.0)
    return Standardized(index, column.name, "", float(median), float(mean), float(scale) or 1.0)


def _relative_change(column: int, base: int, name: str, cache: ColumnCache) -> RelativeChange:
    feature = RelativeChange(column, name, base, 0.0, 1.0)
    values = feature.transform(cache)
    spread = float(values.std())
    return replace(feature, mean=float(values.mean()), scale=spread if spread > MIN_SPREAD else 1.0)

"""Days and daily files: what a project says of them, and how they are read."""

from __future__ import annotations

import json
from datetime import date

import pandas as pd
import pyarrow as pa

from podium.project import ColumnOptions, PanelOptions, Project
from podium.schema.columns import EPOCH, Column, Panel
from podium.schema.data_errors import BadData, Problem
from podium.storage.object_store import digest
from podium.tables.frames import coerce_frame
from podium.tables.readers import read_table
from podium.tables.text_columns import coerce_column


def panel_options(project: Project) -> PanelOptions:
    assert project.panel is not None, "the project's validation asks for it"
    return project.panel


def daily_rows(data: bytes, key: str, project: Project) -> tuple[pa.Table, pa.Array]:
    """A daily file's rows and the month of each, if a panel can be made of them. Raises BadData."""
    table, asked = read_table(data, gzipped=key.endswith(".gz")), panel_options(project)
    needed = {asked.time: time_column(project), asked.entity: Column(asked.entity, "category")}
    numbers = {project.target, *(name for column in asked.derived_columns.values() for name in column.of)} - set(
        asked.derived_columns
    )
    for name in sorted(numbers):
        options = project.columns.get(name, ColumnOptions())
        needed[name] = Column(
            name, "number", name != project.target, options.na_values, number_format=options.number_format or "plain"
        )
    frame = coerce_frame(table, tuple(needed.values()), table.column_names)
    days = frame[asked.time].map({day: month_of(day, needed[asked.time]) for day in frame[asked.time].unique()})
    return table, pa.array(days.tolist(), pa.string())


def time_column(project: Project) -> Column:
    """The column of the days, as the project describes it."""
    name = panel_options(project).time
    options = project.columns.get(name, ColumnOptions())
    whole = options.kind in ("integer", "number")
    return Column(name, "integer" if whole else "date", date_format=options.date_format)


def row_days(table: pa.Table, project: Project) -> pd.Series:
    """The day of each row. Raises BadData."""
    time = time_column(project)
    if time.name not in table.column_names:
        raise BadData([Problem("unknown-column", "panel.time names a column that the data does not have", column=time.name)])
    days, problems = coerce_column(table[time.name], time)
    if problems:
        raise BadData(problems)
    return days


def parse_fingerprint(project: Project) -> str:
    """One word for what decides how a daily file is read."""
    asked = panel_options(project)
    needed = sorted(
        {asked.time, asked.entity, project.target, *(name for column in asked.derived_columns.values() for name in column.of)}
    )
    options = {name: project.columns[name].model_dump(mode="json") for name in needed if name in project.columns}
    return digest(json.dumps([needed, asked.time, asked.entity, options], sort_keys=True).encode())[:16]


def day_name(day: float, panel: Panel) -> str:
    """A day as ISO 8601, or as a number that sorts, where days are numbers."""
    return panel.time_column.format_value(day) if panel.time_column.kind == "date" else f"{int(day):012d}"


def day_number(text: str, project: Project) -> float:
    """The day of an ISO date, or of a number. Raises ValueError."""
    if time_column(project).kind != "date":
        return float(text)
    return float(date.fromisoformat(text).toordinal() - EPOCH)


def month_of(day: float, time: Column) -> str:
    """2018-11, or the number of thirty days where days are numbers."""
    if time.kind != "date":
        return f"{int(day) // 30:08d}"
    return date.fromordinal(int(day) + EPOCH).isoformat()[:7]

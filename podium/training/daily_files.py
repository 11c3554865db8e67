"""Days of a panel and the parsing of its daily files."""

from __future__ import annotations

import json
from datetime import date

import pandas as pd
import pyarrow as pa

from podium.project import ColumnOptions, PanelOptions, Project
from podium.schema.columns import EPOCH, LAST_YEAR, Column, Kind, Panel
from podium.schema.data_errors import BadData, Problem
from podium.storage.object_store import digest
from podium.tables.frames import coerce_frame
from podium.tables.typed_columns import coerce_column
from podium.training.reading import read_training_table


def panel_options(project: Project) -> PanelOptions:
    """Return the [panel] section, which the project must have."""
    assert project.panel is not None
    return project.panel


def base_columns(options: PanelOptions) -> set[str]:
    """Return the table columns from which derived columns are computed."""
    return {name for column in options.derived_columns.values() for name in column.of} - options.derived_columns.keys()


def daily_rows(data: bytes, key: str, project: Project) -> tuple[pa.Table, pa.Array]:
    """Return the rows of a daily file and the month of each. Raises BadData if they do not fit the panel."""
    table, options = read_training_table(data, project, key).table, panel_options(project)
    time = time_column(project)
    columns = [time, Column(options.entity, "category")]
    columns += [_number_column(name, project) for name in sorted({project.target, *base_columns(options)})]
    frame = coerce_frame(table, tuple(columns), table.column_names)
    months = frame[options.time].map({day: month_of(day, time) for day in frame[options.time].unique()})
    return table, pa.array(months.tolist(), pa.string())


def _number_column(name: str, project: Project) -> Column:
    options = project.columns.get(name, ColumnOptions())
    number_format = options.number_format or "plain"
    return Column(name, "number", name != project.target, options.na_values, number_format=number_format)


def time_column(project: Project) -> Column:
    """Return the column that holds the days, with the project's options."""
    name = panel_options(project).time
    options = project.columns.get(name, ColumnOptions())
    is_number = options.kind in ("integer", "number")
    kind: Kind = "integer" if is_number else "date"
    return Column(name, kind, date_format=options.date_format, last_year=options.last_year or LAST_YEAR)


def row_days(table: pa.Table, project: Project) -> pd.Series:
    """Return the day of each row. Raises BadData."""
    time = time_column(project)
    if time.name not in table.column_names:
        raise BadData([Problem("unknown-column", "panel.time names a column that the data does not have", column=time.name)])
    days, problems = coerce_column(table[time.name], time)
    if problems:
        raise BadData(problems)
    return days


def parse_fingerprint(project: Project) -> str:
    """Return a fingerprint of the options that affect the parsing of daily files."""
    panel = panel_options(project)
    names = sorted(
        {panel.time, panel.entity, project.target, *(n for column in panel.derived_columns.values() for n in column.of)}
    )
    options = {name: project.columns[name].model_dump(mode="json") for name in names if name in project.columns}
    return digest(json.dumps([names, panel.time, panel.entity, options], sort_keys=True).encode())[:16]


def day_name(day: float, panel: Panel) -> str:
    """Return a day as ISO 8601, or zero-padded if days are numbers."""
    return panel.time_column.format_value(day) if panel.time_column.kind == "date" else f"{int(day):012d}"


def day_number(text: str, project: Project) -> float:
    """Parse a day, given as an ISO date or a number. Raises ValueError."""
    if time_column(project).kind != "date":
        return float(text)
    return float(date.fromisoformat(text).toordinal() - EPOCH)


def month_of(day: float, time: Column) -> str:
    """Return the partition key: `YYYY-MM`, or the 30-day bucket if days are numbers."""
    if time.kind != "date":
        return f"{int(day) // 30:08d}"
    return date.fromordinal(int(day) + EPOCH).isoformat()[:7]

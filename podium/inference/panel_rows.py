"""Convert rows of a panel to the windows that a model forecasts from."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa

from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.schema.arrays import Columns
from podium.schema.columns import EPOCH, Panel, Signature
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, TooLarge
from podium.tables.frames import coerce_frame, columns_of, frame_of, frame_to_rows
from podium.tables.input_warnings import UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE, frame_warnings
from podium.tables.panel import DAY, INDEX, INDEX_NAME, mask_entities, take, windows
from podium.tables.size_limits import REQUEST

MAX_STEP_DAYS = 1_000
"""Longest step of a frequency."""


def typed_panel(table: pa.Table, signature: Signature, options: ParseOptions) -> Columns:
    """Return the panel's rows, typed. Raises BadData."""
    ignored = table.column_names if options.keep_extra else signature.ignored
    return columns_of(coerce_frame(table, signature.request_columns, ignored))


def rows_from_panel(rows: Columns, signature: Signature, *, by_row: bool) -> ParsedRows:
    """Return the windows of a panel's typed rows; `by_row` marks entities unknown to the model as invalid.

    Raises BadData.
    """
    panel = signature.panel
    assert panel is not None
    _check_days(rows, panel)
    all_windows = windows(rows, panel)
    columns = [column for column in panel.columns if column.name != panel.time]  # forecasts are always after the training range
    lenient = [replace(column, handle_unknown="warn") for column in columns]
    warnings = frame_warnings(rows, lenient if by_row else columns)
    is_known, valid = mask_entities(all_windows.keys, panel, panel.entity_column.categories), all_windows.inputs
    indices = np.flatnonzero(~is_known).tolist() if by_row and panel.entity_column.handle_unknown == "reject" else []
    invalid = {index: [Problem(UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE, index + 1, panel.entity)] for index in indices}
    if indices:
        valid = take(valid, np.flatnonzero(is_known))
    table = functools.partial(key_table, all_windows.keys, panel)
    frame = functools.cache(lambda: frame_of(valid))
    return ParsedRows(len(all_windows), warnings, lambda: frame_to_rows(valid), frame, table, invalid, all_windows.keys)


def check_window_size(rows: Columns, signature: Signature) -> None:
    """Raise TooLarge if the windows, each of many numbers, would take too much memory."""
    max_rows, count = REQUEST.decoded_bytes // (8 * len(signature.inputs)), len(next(iter(rows.values())))
    if count > max_rows:
        message = f"the table has {count} rows"
        raise TooLarge([Problem("too-many-rows", message, expected=f"at most {max_rows}; send more to /batch as a file")])


def _check_days(rows: Columns, panel: Panel) -> None:
    """Raise BadData if a date is the last one that can be represented: the forecast is for the next day."""
    if panel.time_column.kind == "date":
        latest = date.max.toordinal() - EPOCH - (0 if panel.frequency == "D" else MAX_STEP_DAYS)
        last = np.flatnonzero(rows[panel.time] >= latest)[:MAX_REPORTED]
        if len(last):
            raise BadData([Problem("out-of-range", "has no next day", row + 1, panel.time) for row in last.tolist()])


def key_table(keys: Columns, panel: Panel) -> pa.Table:
    """Return the entity, the index of the day within it, and the day of each window."""
    days = {day: day_text(day, panel) for day in set(keys[DAY].tolist())}
    times = pa.array([days[day] for day in keys[DAY].tolist()])
    return pa.table({panel.entity: pa.array(keys[panel.entity]), INDEX_NAME: pa.array(keys[INDEX]), panel.time: times})


def day_text(day: float, panel: Panel) -> str | int:
    """Return a date in ISO 8601, or an integer if the panel's time is an integer."""
    if panel.time_column.kind != "date":
        return int(day)
    return panel.time_column.format_value(day)

"""A request's body to typed rows, whatever form it came in."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.data.columns import EPOCH, Panel, Signature, Value
from podium.data.doubts import NEVER_SEEN, UNKNOWN, doubts_of_frame, doubts_of_rows
from podium.data.limits import MAX_EXTRA, REQUEST, Limits
from podium.data.panel import DAY, INDEX, INDEX_NAME, windows
from podium.data.parquet import as_text
from podium.data.problems import MOST_REPORTED, BadData, Problem, TooLarge, check_names, reported_each
from podium.data.read import read_typed
from podium.data.strict_json import decode_json, too_deep
from podium.data.typed import column_problems, frame_rows, rows_frame, typed_by_row, typed_frame, typed_rows

MAX_CELLS = 10_000_000
"""Of the table that is made of records, with a column for every field of any."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a table is read and what becomes of wrong rows and of columns that the model does not know."""

    by_row: bool = False
    keep_extra: bool = False
    gzipped: bool = False
    delimiter: str = ","


PLAIN = Asked()


@dataclass(frozen=True, slots=True)
class Inputs:
    """The good rows, typed, as tuples and as a frame; all rows as the table of texts that came; warnings and wrong rows.

    `bad` has the problems of each wrong row by its place among all `total` ones; it is empty unless asked for by row.
    """

    total: int
    warnings: list[Problem]
    as_rows: Callable[[], list[tuple[Value, ...]]]
    as_frame: Callable[[], pd.DataFrame]
    as_table: Callable[[], pa.Table]
    bad: Mapping[int, list[Problem]]
    keys: pd.DataFrame | None = None
    """Of a panel: the entity and day of each of its windows, which are the rows then."""

    @property
    def count(self) -> int:
        return self.total - len(self.bad)


def from_table(data: bytes, signature: Signature, most: int, asked: Asked = PLAIN) -> Inputs:
    """CSV or Parquet bytes; raises BadData."""
    limits = limits_of(signature, replace(REQUEST, rows=most))
    check = functools.partial(check_columns, signature, asked)
    table = read_typed(data, gzipped=asked.gzipped, delimiter=asked.delimiter, limits=limits, check=check)
    return from_text(table, signature, most, asked)


def limits_of(signature: Signature, limits: Limits) -> Limits:
    """The limits with as many columns as a model knows, and some more."""
    return replace(limits, columns=len(signature.names) + len(signature.ignored) + MAX_EXTRA)


def check_columns(signature: Signature, asked: Asked, names: Sequence[str]) -> None:
    """Raises BadData for columns that are not wanted; that one is missing is found with what is wrong in the others."""
    problems = column_problems(names, signature.asked, set(names) if asked.keep_extra else set(signature.ignored))
    if any(problem.code != "missing-field" for problem in problems):
        raise BadData(problems)


def from_form(fields: Mapping[str, str], signature: Signature) -> Inputs:
    """The fields of a form, each a text; of a panel one field that holds its rows as CSV. Raises BadData."""
    if signature.panel:
        return _from_text_field(fields, signature)
    unknown = [
        Problem("unknown-field", "is no input of this model", column=name) for name in fields if name not in signature.names
    ]
    if unknown:
        raise BadData(unknown)
    cells = {name: fields.get(name, "").encode(errors="replace").decode() for name in signature.names}
    row = pa.table({name: pa.array([text], pa.string()) for name, text in cells.items()})
    return from_text(row, signature, 1)


ROWS = "rows"
"""The field of a form that holds a panel's rows."""
MAX_FORM_ROWS = 1_000_000


def _from_text_field(fields: Mapping[str, str], signature: Signature) -> Inputs:
    if unknown := [Problem("unknown-field", "is no input of this model", column=name) for name in fields if name != ROWS]:
        raise BadData(unknown)
    if not fields.get(ROWS, "").strip():
        raise BadData([Problem("empty-input", "there is no row", column=ROWS, expected="CSV with a header line")])
    return from_table(fields[ROWS].replace("\r\n", "\n").encode(errors="replace"), signature, MAX_FORM_ROWS)


def typed_panel(table: pa.Table, signature: Signature, asked: Asked) -> pd.DataFrame:
    """The rows of a panel as they came. Raises BadData."""
    return typed_frame(table, signature.asked, table.column_names if asked.keep_extra else signature.ignored)


def _check_size(frame: pd.DataFrame, signature: Signature) -> None:
    """Each row becomes a window of many numbers. Raises TooLarge."""
    most = REQUEST.decoded_bytes // (8 * len(signature.inputs))
    if len(frame) > most:
        said = f"has {len(frame)} rows"
        raise TooLarge([Problem("too-many-rows", said, expected=f"at most {most}; send more to /batch as a file")])


def from_panel(frame: pd.DataFrame, signature: Signature, *, by_row: bool) -> Inputs:
    """The windows of a panel's rows; `by_row` leaves out entities that the model does not know. Raises BadData."""
    panel = signature.panel
    assert panel is not None
    _check_days(frame, panel)
    made = windows(frame, panel)
    columns = [column for column in panel.columns if column.name != panel.time]  # what is asked for comes after the training
    lenient = [replace(column, unknown="warn") for column in columns]
    doubts = doubts_of_frame(frame, lenient if by_row else columns)
    strange = ~made.keys[panel.entity].isin(panel.entities.categories).to_numpy()
    places = np.flatnonzero(strange).tolist() if by_row and panel.entities.unknown == "reject" else []
    bad = {place: [Problem(UNKNOWN, NEVER_SEEN, place + 1, panel.entity)] for place in places}
    good = made.inputs.drop(index=places).reset_index(drop=True) if places else made.inputs
    table = functools.partial(key_table, made.keys, panel)
    return Inputs(len(made.keys), doubts, lambda: frame_rows(good), lambda: good, table, bad, made.keys)


def _check_days(frame: pd.DataFrame, panel: Panel) -> None:
    """The day after the last must be one. Raises BadData."""
    if panel.days.kind == "date":
        late = np.flatnonzero(frame[panel.time].to_numpy() >= date.max.toordinal() - EPOCH)[:MOST_REPORTED]
        if len(late):
            raise BadData([Problem("out-of-range", "has no day after it", row + 1, panel.time) for row in late.tolist()])


def key_table(keys: pd.DataFrame, panel: Panel) -> pa.Table:
    """Entity, number of the day within it, and the day."""
    days = {day: day_text(day, panel) for day in keys[DAY].unique().tolist()}
    cells = {panel.entity: keys[panel.entity], INDEX_NAME: keys[INDEX], panel.time: keys[DAY].map(days)}
    return pa.table({name: pa.array(list(column)) for name, column in cells.items()})


def day_text(day: float, panel: Panel) -> str | int:
    """A day as ISO 8601, or its number where days are numbers."""
    if panel.days.kind != "date":
        return int(day)
    return panel.days.shown(day)


def from_text(table: pa.Table, signature: Signature, most: int, asked: Asked = PLAIN) -> Inputs:
    """A table of texts; raises BadData."""
    if table.num_rows > most:
        raise TooLarge([Problem("too-many-rows", f"has {table.num_rows} rows", expected=f"at most {most}")])
    if signature.panel:
        frame = typed_panel(table, signature, asked)
        _check_size(frame, signature)
        return from_panel(frame, signature, by_row=asked.by_row)
    ignored = set(table.column_names) if asked.keep_extra else set(signature.ignored)
    if not asked.by_row:
        bad: Mapping[int, list[Problem]] = {}
        frame = typed_frame(table, signature.inputs, ignored)
        doubts = doubts_of_frame(frame, signature.inputs)
    else:
        frame, bad = typed_by_row(table, signature.inputs, ignored)
        good = np.delete(np.arange(table.num_rows), list(bad))
        frame = frame.iloc[good].reset_index(drop=True)
        doubts = [
            replace(doubt, row=int(good[doubt.row - 1]) + 1) for doubt in doubts_of_frame(frame, signature.inputs) if doubt.row
        ]
    text = functools.cache(lambda: as_text(table))
    return Inputs(table.num_rows, doubts, lambda: frame_rows(frame), lambda: frame, text, bad)


def from_json(data: bytes, signature: Signature, most: int, asked: Asked = PLAIN) -> Inputs:
    """A record, a list of records, `{"records": […]}`, a bare array or a list of bare arrays; raises BadData."""
    return from_records(decode_json(data), signature, most, asked)


def from_records(decoded: Any, signature: Signature, most: int, asked: Asked = PLAIN) -> Inputs:
    """The same, decoded; raises BadData."""
    records = _listed(decoded, signature)
    if len(records) > most:
        raise TooLarge([Problem("too-many-rows", f"has {len(records)} records", expected=f"at most {most}")])
    known = set(signature.names).union(signature.ignored)
    extra = _extra_names(records, known)
    ignored = extra.union(signature.ignored) if asked.keep_extra else set(signature.ignored)
    if signature.panel:
        rows = typed_rows(_named(records, signature), signature.panel.columns, ignored)
        typed = rows_frame(rows, signature.panel.columns)
        _check_size(typed, signature)
        return from_panel(typed, signature, by_row=asked.by_row)
    if asked.by_row:
        named, rows, doubts, bad = _by_row(records, signature, ignored)
    else:
        named, bad = _named(records, signature), {}
        rows = typed_rows(named, signature.inputs, ignored)
        doubts = doubts_of_rows(rows, signature.inputs)
    frame = functools.partial(rows_frame, rows, signature.inputs)
    table = functools.cache(functools.partial(_text_table, named, signature.names))
    return Inputs(len(records), doubts, lambda: rows, frame, table, bad)


def _extra_names(records: Sequence[Any], known: set[str]) -> set[str]:
    """The fields that the model does not know, of all records. Raises BadData for too many, or for odd names."""
    extra: set[str] = set()
    for record in records:
        if isinstance(record, dict) and not record.keys() <= known:
            extra |= record.keys() - known
            if len(extra) > MAX_EXTRA:
                said = f"the records have more than {MAX_EXTRA} fields that the model does not know"
                raise TooLarge([Problem("too-many-fields", said, expected="fields of the model")])
    check_names(extra)
    return extra


def _listed(decoded: Any, signature: Signature) -> list[Any]:
    """A list of records or arrays, whatever came. Raises BadData."""
    wrapped = isinstance(decoded, dict) and list(decoded) == ["records"] and "records" not in signature.names
    records = decoded["records"] if wrapped else decoded
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise BadData([Problem("invalid-type", "is neither a record nor a list of records")])
    if records and not any(isinstance(each, dict | list) for each in records):
        records = [records]
    if not records:
        raise BadData([Problem("empty-input", "there is no record")])
    return records


Rows = tuple[list[dict[str, Any]], list[tuple[Value, ...]], list[Problem], dict[int, list[Problem]]]


def _by_row(records: Sequence[Any], signature: Signature, ignored: set[str]) -> Rows:
    """Every record by itself: all of them named, the good ones typed, their warnings, and what is wrong with the others."""
    named: list[dict[str, Any]] = []
    good: list[tuple[Value, ...]] = []
    doubts: list[Problem] = []
    bad: dict[int, list[Problem]] = {}
    each = reported_each(len(records))
    for place, record in enumerate(records):
        named.append(record if isinstance(record, dict) else {})
        try:
            named[-1:] = _named([record], signature)
            (row,) = typed_rows(named[-1:], signature.inputs, ignored)
            found = doubts_of_rows([row], signature.inputs)
            doubts += [replace(doubt, row=place + 1) for doubt in found[: MOST_REPORTED - len(doubts)]]
            good.append(row)
        except BadData as error:
            bad[place] = [replace(problem, row=place + 1) for problem in error.problems[:each]]
    return named, good, doubts, bad


def _named(records: Sequence[Any], signature: Signature) -> list[dict[str, Any]]:
    """Bare arrays as records; raises BadData."""
    problems, named = [], []
    names = signature.names
    width = len(names)
    for number, record in enumerate(records, 1):
        if isinstance(record, dict):
            named.append(record)
        elif not isinstance(record, list):
            problems.append(Problem("invalid-type", "is neither a record nor an array", number))
        elif len(record) != width:
            problems.append(
                Problem("wrong-length", f"has {len(record)} values", number, None, f"{width} values in training order")
            )
        else:
            named.append(dict(zip(names, record, strict=True)))
        if len(problems) >= MOST_REPORTED:
            break
    if problems:
        raise BadData(problems)
    return named


def _text_table(records: Sequence[Mapping[str, Any]], inputs: Sequence[str]) -> pa.Table:
    names = list(dict.fromkeys([*(name for record in records for name in record), *inputs]))
    if len(names) * len(records) > MAX_CELLS:
        said = f"{len(records)} records of {len(names)} different fields make too large a table"
        raise TooLarge([Problem("too-many-fields", said, expected=f"at most {MAX_CELLS} cells; send less at a time")])
    return pa.table({name: pa.array([_text(record.get(name)) for record in records], pa.string()) for name in names})


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    try:
        return "" if value is None else json.dumps(value)
    except RecursionError:
        raise too_deep() from None

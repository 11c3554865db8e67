"""Text columns and JSON values to typed cells: the one place that decides what a cell means."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.data.columns import Column, Value
from podium.data.problems import MOST_REPORTED, BadData, Problem

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
INTEGER = r"[+-]?[0-9]+(\.0*)?"
BOOLEANS = {"true": 1.0, "false": 0.0}
LARGEST = 1e30
"""Larger numbers are refused: no measured quantity needs them and 32-bit trees cannot hold their squares."""
EXACT = 2.0**53
"""Integers up to here are exact in a float."""
LONGEST_TEXT = 10_000
EPOCH = date(1970, 1, 1).toordinal()

EXPECTED = {
    "number": "a number with a decimal point",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "text",
}


def expected(column: Column) -> str:
    return EXPECTED.get(column.kind) or f"a date of the form {column.format}"


def tidy(text: str) -> str:
    """A category as it is compared: composed Unicode without blanks around it."""
    return unicodedata.normalize("NFC", text).strip()


# --- one value ---------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def _number(value: object, column: Column) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong("invalid-type", "is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Wrong("out-of-range", "is not finite")
    if abs(value) > LARGEST:
        raise _Wrong("out-of-range", "is too large")
    return float(value)


def _integer(value: object, column: Column) -> float:
    number = _number(value, column)
    if abs(number) > EXACT:
        raise _Wrong("out-of-range", "is too large for a whole number")
    if not number.is_integer():
        raise _Wrong("invalid-type", "is not a whole number")
    return number


def _boolean(value: object, column: Column) -> float:
    if not isinstance(value, bool):
        raise _Wrong("invalid-type", "is not true or false")
    return float(value)


def _category(value: object, column: Column) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Wrong("invalid-type", "is not text")
    text = tidy(value) if isinstance(value, str) else str(value)
    if len(text) > LONGEST_TEXT:
        raise _Wrong("out-of-range", "is too long")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _Wrong("invalid-encoding", "holds NUL or half a surrogate pair")
    return text


def _date(value: object, column: Column) -> float:
    days = _days(value, column.format) if isinstance(value, str) else None
    if days is None:
        raise _Wrong("invalid-type", f"is not {expected(column)}")
    return days


VALUES: dict[str, Callable[[object, Column], Value]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "date": _date,
    "category": _category,
}


def _is_missing(value: object, column: Column) -> bool:
    if value is None:
        return True
    if not column.missing or isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return value in marked_numbers(column)
    return isinstance(value, str) and value.strip() in column.missing


def marked_numbers(column: Column) -> set[float]:
    """The numbers among a column's marks for a missing value."""
    return {float(mark) for mark in column.missing if re.fullmatch(NUMBER, mark)}


def typed_rows(
    rows: Sequence[Mapping[str, object]], columns: Sequence[Column], ignored: Iterable[str] = ()
) -> list[tuple[Value, ...]]:
    """Decoded JSON objects to tuples of typed cells in the order of `columns`.

    Columns of `ignored` may be there and are left out. Raises BadData with every wrong cell.
    """
    names = {column.name for column in columns} | set(ignored)
    problems: list[Problem] = []
    typed = []
    for number, row in enumerate(rows, 1):
        problems += [Problem("unknown-field", "is no input of this model", number, name) for name in row if name not in names]
        typed.append(tuple(_cell(row.get(column.name), column, number, problems) for column in columns))
    if problems:
        raise BadData(problems)
    return typed


def _cell(value: object, column: Column, row: int, problems: list[Problem]) -> Value:
    if _is_missing(value, column):
        if not column.nullable:
            problems.append(Problem("missing-field", "has no value", row, column.name, expected(column)))
        return None
    try:
        return VALUES[column.kind](value, column)
    except _Wrong as wrong:
        problems.append(Problem(wrong.code, wrong.message, row, column.name, expected(column)))
        return None


# --- whole columns -----------------------------------------------------------------------------------------------------


def typed_frame(table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()) -> pd.DataFrame:
    """Text columns to a frame with one typed column an input: float64 with NaN, or text with None.

    Columns of `ignored` may be there and are left out. Raises BadData with every wrong cell, up to a bound.
    """
    _check_columns(table, columns, set(ignored))
    frame, problems = {}, []
    for column in columns:
        frame[column.name], wrong = typed_column(_cells(table, column), column)
        problems += wrong
    if problems:
        raise BadData(sorted(problems, key=lambda problem: problem.row or 0))
    return pd.DataFrame(frame)


def typed_by_row(
    table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()
) -> tuple[pd.DataFrame, dict[int, list[Problem]]]:
    """The same, with the problems of each wrong row by its place (from 0), whose cells mean nothing then.

    Raises BadData only for what is wrong with the columns themselves.
    """
    _check_columns(table, columns, set(ignored))
    frame: dict[str, pd.Series] = {}
    problems: dict[int, list[Problem]] = {}
    for column in columns:
        values, faults = _typed_column(_cells(table, column), column)
        if column.unknown == "reject" and column.is_text:
            strange = (values.notna() & ~values.isin(column.categories)).to_numpy()
            faults.append((strange, "unknown-category", "was not among the training rows"))
        for wrong, code, message in faults:
            for row in np.flatnonzero(wrong).tolist():
                problems.setdefault(row, []).append(Problem(code, message, row + 1, column.name, expected(column)))
        frame[column.name] = values
    return pd.DataFrame(frame), problems


def _check_columns(table: pa.Table, columns: Sequence[Column], ignored: set[str]) -> None:
    known, present = {column.name for column in columns}, set(table.column_names)
    problems = [
        Problem("unknown-field", "is no input of this model", column=name)
        for name in table.column_names
        if name not in known and name not in ignored
    ]
    problems += [
        Problem("missing-field", "the column is not there", column=column.name, expected=expected(column))
        for column in columns
        if column.name not in present and not column.nullable
    ]
    if problems:
        raise BadData(problems)


def _cells(table: pa.Table, column: Column) -> pa.ChunkedArray:
    """A column of the table, or as many missing cells."""
    if column.name in table.column_names:
        return table[column.name]
    return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])


def blank(cells: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Cells without the blanks around them, null where empty or marked as missing."""
    text = pc.utf8_trim_whitespace(cells)
    gone = pc.is_in(text, value_set=pa.array(["", *column.missing]))
    return pc.if_else(gone, pa.scalar(None, pa.string()), text)


def typed_column(cells: pa.ChunkedArray, column: Column) -> tuple[pd.Series, list[Problem]]:
    """One column of text to typed cells, with its wrong cells; a wrong cell is missing in the result."""
    values, faults = _typed_column(cells, column)
    return values, [problem for fault in faults for problem in _problems(*fault, column)]


Fault = tuple[Mask, str, str]
"""Where cells are wrong, the code and the message."""


def _typed_column(cells: pa.ChunkedArray, column: Column) -> tuple[pd.Series, list[Fault]]:
    values, wrong = _FRAMES[column.kind](blank(cells, column), column)
    faults: list[Fault] = [(wrong, "invalid-type", f"is not {expected(column)}")]
    if not column.nullable:
        faults.append((values.isna().to_numpy() & ~wrong, "missing-field", "has no value"))
    if column.kind in ("number", "integer"):
        large = np.abs(values.to_numpy()) > (LARGEST if column.kind == "number" else EXACT)
        faults.append((large, "out-of-range", "is too large"))
    return values, faults


def _problems(wrong: Mask, code: str, message: str, column: Column) -> list[Problem]:
    rows = np.flatnonzero(wrong)[:MOST_REPORTED].tolist()
    return [Problem(code, message, row + 1, column.name, expected(column)) for row in rows]


Typed = tuple[pd.Series, Mask]
"""The typed cells and where they are wrong."""


def _number_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    bad = _not_matching(text, INTEGER if column.kind == "integer" else NUMBER)
    clean = pc.if_else(bad, pa.scalar(None, pa.string()), pc.utf8_ltrim(text, "+"))
    values = pc.cast(clean, pa.float64()).to_pandas().astype(float)
    marks = marked_numbers(column)
    return values.mask(values.isin(marks)) if marks else values, bad.to_numpy()


def _boolean_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    lower = pc.utf8_lower(text)
    values = lower.to_pandas().map(BOOLEANS).astype(float)
    return values, (values.isna() & lower.is_valid().to_pandas()).to_numpy()


def _date_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    series = text.to_pandas()
    days = series.map({date: _days(date, column.format) for date in series.dropna().unique()}).astype(float)
    return days, (days.isna() & series.notna()).to_numpy()


def _days(text: str, form: str) -> float | None:
    try:
        return float(datetime.strptime(text.strip(), form).toordinal() - EPOCH)
    except ValueError:
        return None


def _category_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    values = pc.utf8_normalize(text, "NFC").to_pandas().astype(object)
    too_long = pc.greater(pc.fill_null(pc.utf8_length(text), 0), LONGEST_TEXT)
    bad = pc.or_(too_long, pc.fill_null(pc.match_substring(text, "\0"), False))
    return values.where(values.notna(), None), bad.to_numpy()


def _not_matching(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(text), pc.invert(pc.fill_null(pc.match_substring_regex(text, f"^({pattern})$"), True)))


_FRAMES: dict[str, Callable[[pa.ChunkedArray, Column], Typed]] = {
    "number": _number_frame,
    "integer": _number_frame,
    "boolean": _boolean_frame,
    "date": _date_frame,
    "category": _category_frame,
}


def frame_rows(frame: pd.DataFrame) -> list[tuple[Value, ...]]:
    """A typed frame as tuples of cells, NaN as None."""
    columns = [[None if cell != cell else cell for cell in frame[name].tolist()] for name in frame.columns]
    return list(zip(*columns, strict=True))


def rows_frame(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> pd.DataFrame:
    """Tuples of typed cells as a typed frame; the inverse of `frame_rows`."""
    cells = {column.name: [row[place] for row in rows] for place, column in enumerate(columns)}
    return pd.DataFrame({c.name: pd.Series(cells[c.name], dtype=object if c.is_text else float) for c in columns})

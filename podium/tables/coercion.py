"""Text columns and JSON values to typed cells: the one place that decides what a cell means."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.arrays import BoolMask
from podium.schema.columns import EPOCH, Column, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, limit_by_row
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.number_formats import plain_text, plain_texts
from podium.tables.parquet import column_as_text

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
INTEGER = r"[+-]?[0-9]+(\.0*)?"
INFINITE = r"(?i)[+-]?inf(inity)?"
DECIMAL_COMMA = r"[+-]?[0-9.]*,[0-9]+"
BOOLEANS = {"true": 1.0, "false": 0.0}
MAX_MAGNITUDE = 1e30
"""Larger numbers are refused: no measured quantity needs them and 32-bit trees cannot hold their squares."""
MAX_EXACT_INTEGER = 2.0**53
"""Integers up to here are exact in a float."""
MAX_TEXT_LENGTH = 10_000
LETTER_BYTES = 4
"""Bytes of a letter in UTF-8 at most."""

EXPECTED = {
    "number": "a number, such as 3 or 2.5",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "text",
    "money": "an amount, such as 1234.5, $1,234.5 or ($8.2)",
    "percent": "a percentage, such as 12 or 12%",
}


def expected(column: Column) -> str:
    return EXPECTED.get(column.number_format) or EXPECTED.get(column.kind) or f"a date of the form {column.date_format}"


def normalize_category(text: str) -> str:
    """A category as it is compared: composed Unicode without blanks around it."""
    return unicodedata.normalize("NFC", text).strip()


# --- one value ---------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def _number(value: object, column: Column) -> float:
    if isinstance(value, str) and column.number_format != "plain":
        digits = plain_text(value.strip(), column.number_format)
        value = float(digits) if digits else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong("invalid-type", "is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Wrong("out-of-range", "is not finite")
    if abs(value) > MAX_MAGNITUDE:
        raise _Wrong("out-of-range", "is too large")
    return float(value)


def _integer(value: object, column: Column) -> float:
    number = _number(value, column)
    if abs(number) > MAX_EXACT_INTEGER:
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
    text = normalize_category(value) if isinstance(value, str) else str(value)
    if len(text) > MAX_TEXT_LENGTH:
        raise _Wrong("out-of-range", "is too long")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _Wrong("invalid-encoding", "holds NUL or half a surrogate pair")
    return resolve_category(text, column)


def _date(value: object, column: Column) -> float:
    days = _days(value, column.date_format) if isinstance(value, str) else None
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
    if value is None or (column.needs_parsing and isinstance(value, str) and not value.strip()):
        return True
    if not column.na_values or isinstance(value, bool):
        return False
    if (
        isinstance(value, str)
        and column.number_format != "plain"
        and (digits := plain_text(value.strip(), column.number_format))
    ):
        return float(digits) in missing_sentinels(column) or value.strip() in column.na_values
    if isinstance(value, int | float):
        return value in missing_sentinels(column)
    return isinstance(value, str) and value.strip() in column.na_values


def missing_sentinels(column: Column) -> set[float]:
    """The numbers among a column's marks for a missing value."""
    return {float(mark) for mark in column.na_values if re.fullmatch(NUMBER, mark)}


def coerce_rows(
    rows: Sequence[Mapping[str, object]], columns: Sequence[Column], ignored: Iterable[str] = ()
) -> list[tuple[Value, ...]]:
    """Decoded JSON objects to tuples of typed cells in the order of `columns`.

    Columns of `ignored` may be there and are left out. Raises BadData with every wrong cell.
    """
    names = {column.name for column in columns} | set(ignored)
    problems: list[Problem] = []
    typed = []
    for number, row in enumerate(rows, 1):
        unknown = itertools.islice((name for name in row if name not in names), MAX_REPORTED)
        problems += [Problem("unknown-field", "is no input of this model", number, name) for name in unknown]
        typed.append(tuple(_cell(row.get(column.name), column, number, problems) for column in columns))
        if len(problems) >= MAX_REPORTED:
            break
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


def coerce_frame(table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()) -> pd.DataFrame:
    """Text columns to a frame with one typed column an input: float64 with NaN, or text with None.

    Columns of `ignored` may be there and are left out. Raises BadData with every wrong cell, up to a bound.
    """
    frame, problems = {}, column_problems(table.column_names, columns, set(ignored))
    gone = {problem.column for problem in problems}
    for column in columns:
        if column.name not in gone:
            frame[column.name], wrong = coerce_column(_cells(table, column), column)
            problems += wrong
    if problems:
        raise BadData(sorted(problems, key=lambda problem: problem.row or 0))
    return pd.DataFrame(frame)


def coerce_by_row(table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()) -> tuple[pd.DataFrame, BadRows]:
    """The same, with the problems of each wrong row by its place (from 0), whose cells mean nothing then.

    Raises BadData only for what is wrong with the columns themselves.
    """
    if wrong_columns := column_problems(table.column_names, columns, set(ignored)):
        raise BadData(wrong_columns)
    frame: dict[str, pd.Series] = {}
    found: list[tuple[Fault, Column]] = []
    for column in columns:
        values, faults = _typed_column(_cells(table, column), column)
        if column.handle_unknown == "reject" and column.is_text:
            strange = (values.notna() & ~values.isin(column.categories)).to_numpy()
            faults.append((strange, "unknown-category", "was not among the training rows"))
        found += [(fault, column) for fault in faults if fault[0].any()]
        frame[column.name] = values
    return pd.DataFrame(frame), BadRows(table.num_rows, found)


class BadRows(Mapping[int, list[Problem]]):
    """The problems of each wrong row by its place, made when they are asked for: all rows may be wrong in every cell.

    A row lists fewer of its problems the more rows are wrong, but never none.
    """

    def __init__(self, rows: int, faults: Sequence[tuple[Fault, Column]]) -> None:
        self._faults = faults
        self._wrong = np.logical_or.reduce([mask for (mask, *_), _ in faults]) if faults else np.zeros(rows, dtype=bool)
        self._count = int(self._wrong.sum())
        self._each = limit_by_row(self._count)

    def __getitem__(self, row: int) -> list[Problem]:
        if row not in self:
            raise KeyError(row)
        wrong = ((code, message, column) for (mask, code, message), column in self._faults if mask[row])
        return [
            Problem(code, message, row + 1, column.name, expected(column))
            for code, message, column in itertools.islice(wrong, self._each)
        ]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self._wrong) and bool(self._wrong[row])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._wrong).tolist())

    def __len__(self) -> int:
        return self._count


def column_problems(names: Sequence[str], columns: Sequence[Column], ignored: set[str]) -> list[Problem]:
    """What is wrong with the names of a table's columns, up to a bound."""
    known, present = {column.name for column in columns}, set(names)
    if not known & present and any(re.fullmatch(NUMBER, name) for name in present):
        return [Problem("csv-header", "the first line is data, not the names of the columns")]
    unknown = itertools.islice((name for name in names if name not in known and name not in ignored), MAX_REPORTED)
    return [Problem("unknown-field", "is no input of this model", column=name) for name in unknown] + [
        Problem("missing-field", "the column is not there", column=column.name, expected=expected(column))
        for column in columns
        if column.name not in present and not column.nullable
    ]


def _cells(table: pa.Table, column: Column) -> pa.ChunkedArray:
    """A column of the table as text, or as many missing cells."""
    if column.name in table.column_names:
        return column_as_text(table[column.name])
    return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])


def mask_missing(cells: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Cells without the blanks around them, null where empty or marked as missing."""
    text = pc.utf8_trim_whitespace(cells)
    gone = pc.is_in(text, value_set=pa.array(["", *column.na_values]))
    return pc.if_else(gone, pa.scalar(None, pa.string()), text)


def coerce_column(cells: pa.ChunkedArray, column: Column) -> tuple[pd.Series, list[Problem]]:
    """One column of text to typed cells, with its wrong cells; a wrong cell is missing in the result."""
    values, faults = _typed_column(cells, column)
    return values, [problem for fault in faults for problem in _problems(*fault, column)]


Fault = tuple[BoolMask, str, str]
"""Where cells are wrong, the code and the message."""


def _typed_column(cells: pa.ChunkedArray, column: Column) -> tuple[pd.Series, list[Fault]]:
    long = pc.fill_null(pc.greater(pc.binary_length(cells), MAX_TEXT_LENGTH * LETTER_BYTES), False)
    if pc.any(long).as_py():  # not to be copied on and on
        cells = pc.if_else(long, pa.scalar(None, pa.string()), cells)
    values, faults = _FRAMES[column.kind](mask_missing(cells, column), column)
    faults.append((long.to_numpy(), "out-of-range", "is too long"))
    if not column.nullable:
        wrong = np.logical_or.reduce([mask for mask, *_ in faults])
        faults.append((values.isna().to_numpy() & ~wrong, "missing-field", "has no value"))
    return values, faults


def _problems(wrong: BoolMask, code: str, message: str, column: Column) -> list[Problem]:
    rows = np.flatnonzero(wrong)[:MAX_REPORTED].tolist()
    return [Problem(code, message, row + 1, column.name, expected(column)) for row in rows]


Typed = tuple[pd.Series, list[Fault]]
"""The typed cells and what is wrong with them."""


def _number_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    if column.number_format != "plain":
        text = plain_texts(text, column.number_format)
    wrong = text.is_valid().to_numpy() & ~_matching(text, INTEGER if column.kind == "integer" else NUMBER)
    clean = pc.if_else(pa.array(wrong), pa.scalar(None, pa.string()), pc.utf8_ltrim(text, "+"))
    values = pc.cast(clean, pa.float64()).to_pandas().astype(float)
    size = np.abs(values.to_numpy())
    finite, largest = ~np.isinf(size), MAX_MAGNITUDE if column.kind == "number" else MAX_EXACT_INTEGER
    faults = [*_wrong_numbers(text, wrong, column), (~finite, "not-finite", "is not finite")]
    faults.append((finite & (size > largest), "out-of-range", "is too large"))
    marks = missing_sentinels(column)
    return values.mask(values.isin(marks)) if marks else values, faults


def _wrong_numbers(text: pa.ChunkedArray, wrong: BoolMask, column: Column) -> list[Fault]:
    """What the texts are that are no numbers, as far as it can be told."""
    if not wrong.any():
        return [(wrong, "invalid-type", "")]
    infinite, comma = (_matching(text, pattern) & wrong for pattern in (INFINITE, DECIMAL_COMMA))
    said = f"is not {expected(column)}"
    return [
        (wrong & ~infinite & ~comma, "invalid-type", said),
        (comma, "invalid-type", f"has a decimal comma: {said}"),
        (infinite, "not-finite", "is not finite"),
    ]


def _boolean_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    lower = pc.utf8_lower(text)
    values = lower.to_pandas().map(BOOLEANS).astype(float)
    wrong = (values.isna() & lower.is_valid().to_pandas()).to_numpy()
    return values, [(wrong, "invalid-type", f"is not {expected(column)}")]


def _date_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    series = text.to_pandas()
    days = series.map({date: _days(date, column.date_format) for date in series.dropna().unique()}).astype(float)
    return days, [((days.isna() & series.notna()).to_numpy(), "invalid-type", f"is not {expected(column)}")]


def _days(text: str, form: str) -> float | None:
    try:
        return float(datetime.strptime(text.strip(), form).toordinal() - EPOCH)
    except ValueError:
        return None


def _category_frame(text: pa.ChunkedArray, column: Column) -> Typed:
    values = pc.utf8_normalize(text, "NFC").to_pandas().astype(object)
    if column.fuzzy != "exact":
        values = values.map({text: resolve_category(text, column) for text in values.dropna().unique()})
    too_long = pc.greater(pc.fill_null(pc.utf8_length(text), 0), MAX_TEXT_LENGTH).to_numpy()
    nul = pc.fill_null(pc.match_substring(text, "\0"), False).to_numpy()
    return values.where(values.notna(), None), [
        (too_long, "out-of-range", "is too long"),
        (nul & ~too_long, "invalid-encoding", "holds NUL"),
    ]


def _matching(text: pa.ChunkedArray, pattern: str) -> BoolMask:
    """Where a text is there and is all of the pattern."""
    found: BoolMask = pc.fill_null(pc.match_substring_regex(text, f"^(?:{pattern})$"), False).to_numpy()
    return found


_FRAMES: dict[str, Callable[[pa.ChunkedArray, Column], Typed]] = {
    "number": _number_frame,
    "integer": _number_frame,
    "boolean": _boolean_frame,
    "date": _date_frame,
    "category": _category_frame,
}


def frame_to_rows(frame: pd.DataFrame) -> list[tuple[Value, ...]]:
    """A typed frame as tuples of cells, NaN as None."""
    columns = [[None if cell != cell else cell for cell in frame[name].tolist()] for name in frame.columns]
    return list(zip(*columns, strict=True))


def rows_to_frame(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> pd.DataFrame:
    """Tuples of typed cells as a typed frame; the inverse of `frame_to_rows`."""
    cells = {column.name: [row[place] for row in rows] for place, column in enumerate(columns)}
    return pd.DataFrame({c.name: pd.Series(cells[c.name], dtype=object if c.is_text else float) for c in columns})

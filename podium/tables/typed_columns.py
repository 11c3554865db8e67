"""Convert text columns to typed columns: float64 with NaN, or text with None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.arrays import BoolMask
from podium.schema.columns import Column
from podium.schema.data_errors import MAX_REPORTED, Problem
from podium.tables.cell_rules import (
    BOOLEANS,
    MAX_TEXT_LENGTH,
    NUMBER,
    are_valid_numbers,
    expected,
    largest_number,
    missing_sentinels,
    parse_date,
)
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.number_formats import plain_texts, with_hyphens

INFINITE = r"(?i)[+-]?inf(inity)?"
DECIMAL_COMMA = r"[+-]?[0-9.]*,[0-9]+"
MAX_UTF8_BYTES = 4
"""Maximum bytes per character in UTF-8."""


@dataclass(frozen=True, slots=True)
class InvalidCells:
    """The cells of a column that share an error; `mask` is True at their rows."""

    mask: BoolMask
    code: str
    message: str


TypedColumn = tuple[pd.Series, list[InvalidCells]]
"""Typed cells, with invalid cells set to missing, and the invalid cells."""


def coerce_column(cells: pa.ChunkedArray, column: Column) -> tuple[pd.Series, list[Problem]]:
    """Return the typed cells, with invalid cells set to missing, and the problems of the invalid cells."""
    values, invalid = coerce_cells(cells, column)
    return values, [problem for cells in invalid for problem in _problems(cells, column)]


def _problems(cells: InvalidCells, column: Column) -> list[Problem]:
    rows = np.flatnonzero(cells.mask)[:MAX_REPORTED].tolist()
    return [Problem(cells.code, cells.message, row + 1, column.name, expected(column)) for row in rows]


def coerce_cells(cells: pa.ChunkedArray, column: Column) -> TypedColumn:
    """Return the typed cells, and the invalid ones as masks rather than one problem per cell."""
    plain = column.kind in ("number", "integer") and not column.has_number_format
    if plain and (numbers := _plain_numbers(cells, column)) is not None:
        return _without_sentinels(numbers, [], column)
    too_long = pc.fill_null(pc.greater(pc.binary_length(cells), MAX_TEXT_LENGTH * MAX_UTF8_BYTES), False)
    if pc.any(too_long).as_py():  # so that no later step copies them
        cells = pc.if_else(too_long, pa.scalar(None, pa.string()), cells)
    values, invalid = COLUMN_CONVERTERS[column.kind](mask_missing(cells, column), column)
    invalid.append(InvalidCells(too_long.to_numpy(), "out-of-range", "is too long"))
    return _without_sentinels(values, invalid, column)


def _without_sentinels(values: pd.Series, invalid: list[InvalidCells], column: Column) -> TypedColumn:
    """Make NA values that are numbers missing, and add the missing cells of a required column to the invalid ones."""
    if sentinels := missing_sentinels(column):
        values = values.mask(values.isin(sentinels))
    if not column.nullable:
        missing = values.isna().to_numpy(copy=True)
        for cells in invalid:
            missing &= ~cells.mask
        invalid.append(InvalidCells(missing, "missing-field", "is required"))
    return values, invalid


def mask_missing(cells: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Return the cells without surrounding whitespace; empty cells and NA values become null."""
    text = pc.utf8_trim_whitespace(cells)
    is_missing = pc.is_in(text, value_set=pa.array(["", *column.na_values]))
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), text)


def _plain_numbers(cells: pa.ChunkedArray, column: Column) -> pd.Series | None:
    """Return the numbers if all cells are plain valid numbers or missing, or None if a cell needs a closer look."""
    is_missing = pc.is_in(cells, value_set=pa.array(["", *column.na_values]))
    if pc.any(is_missing).as_py():
        cells = pc.if_else(is_missing, pa.scalar(None, pa.string()), cells)
    try:
        numbers = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        return None
    values = numbers.to_numpy()
    if np.isnan(values).sum() != numbers.null_count or not are_valid_numbers(values, column):
        return None  # the text "nan", or an invalid number
    return pd.Series(values, copy=False)


def _numbers(text: pa.ChunkedArray, column: Column) -> TypedColumn:
    text = plain_texts(text, column) if column.has_number_format else with_hyphens(text)
    invalid = text.is_valid().to_numpy() & ~_matches(text, NUMBER)
    valid_text = pc.if_else(pa.array(invalid), pa.scalar(None, pa.string()), pc.utf8_ltrim(text, "+"))
    values = pc.cast(valid_text, pa.float64()).to_pandas().astype(float)
    size = np.abs(values.to_numpy())
    finite, max_size = ~np.isinf(size), largest_number(column)
    faults = [*_invalid_numbers(text, invalid, column), InvalidCells(~finite, "not-finite", "is not finite")]
    faults.append(InvalidCells(finite & (size > max_size), "out-of-range", "is too large"))
    if column.require_whole:
        fractional = finite & (size <= max_size) & (np.floor(size) != size)
        faults.append(InvalidCells(fractional, "invalid-type", f"is not {expected(column)}"))
    return values, faults


def _invalid_numbers(text: pa.ChunkedArray, invalid: BoolMask, column: Column) -> list[InvalidCells]:
    """Group invalid cells by the likely mistake."""
    if not invalid.any():
        return [InvalidCells(invalid, "invalid-type", "")]
    infinite, comma = (_matches(text, pattern) & invalid for pattern in (INFINITE, DECIMAL_COMMA))
    message = f"is not {expected(column)}"
    return [
        InvalidCells(invalid & ~infinite & ~comma, "invalid-type", message),
        InvalidCells(comma, "invalid-type", f"has a decimal comma and {message}"),
        InvalidCells(infinite, "not-finite", "is not finite"),
    ]


def _booleans(text: pa.ChunkedArray, column: Column) -> TypedColumn:
    lower = pc.utf8_lower(text)
    values = lower.to_pandas().map(BOOLEANS).astype(float)
    invalid = (values.isna() & lower.is_valid().to_pandas()).to_numpy()
    return values, [InvalidCells(invalid, "invalid-type", f"is not {expected(column)}")]


def _dates(text: pa.ChunkedArray, column: Column) -> TypedColumn:
    series = text.to_pandas()
    dates = {text: parse_date(text, column.date_format, column.last_year) for text in series.dropna().unique()}
    days = series.map(dates).astype(float)
    invalid = (days.isna() & series.notna()).to_numpy()
    return days, [InvalidCells(invalid, "invalid-type", f"is not {expected(column)}")]


def _categories(text: pa.ChunkedArray, column: Column) -> TypedColumn:
    values = pc.utf8_normalize(text, "NFC").to_pandas().astype(object)
    if column.fuzzy != "exact":
        values = values.map({text: resolve_category(text, column) for text in values.dropna().unique()})
    too_long = pc.greater(pc.fill_null(pc.utf8_length(text), 0), MAX_TEXT_LENGTH).to_numpy()
    has_nul = pc.fill_null(pc.match_substring(text, "\0"), False).to_numpy()
    return values.where(values.notna(), None), [
        InvalidCells(too_long, "out-of-range", "is too long"),
        InvalidCells(has_nul & ~too_long, "invalid-encoding", "contains NUL"),
    ]


def _matches(text: pa.ChunkedArray, pattern: str) -> BoolMask:
    """Return a mask of the cells that are not null and match the whole pattern."""
    matches: BoolMask = pc.fill_null(pc.match_substring_regex(text, f"^(?:{pattern})$"), False).to_numpy()
    return matches


COLUMN_CONVERTERS: dict[str, Callable[[pa.ChunkedArray, Column], TypedColumn]] = {
    "number": _numbers,
    "integer": _numbers,
    "boolean": _booleans,
    "date": _dates,
    "category": _categories,
    "text": _categories,
}

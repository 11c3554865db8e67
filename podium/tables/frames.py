"""Convert text tables to typed frames, and typed frames to rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.schema.arrays import Columns
from podium.schema.columns import Column, Value
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem, max_problems_per_row, unknown_column
from podium.tables.cell_rules import NUMBER, expected
from podium.tables.csv_header import UNNAMED
from podium.tables.input_warnings import OUT_OF_RANGE, OUT_OF_RANGE_MESSAGE, UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE
from podium.tables.parquet import column_as_text
from podium.tables.typed_columns import InvalidCells, coerce_cells, coerce_column


def coerce_frame(table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()) -> pd.DataFrame:
    """Return a frame with one typed column per input.

    Table columns in `ignored` are allowed and dropped. Raises BadData with every invalid cell, up to a limit.
    """
    frame, problems = {}, column_problems(table.column_names, columns, set(ignored))
    missing = {problem.column for problem in problems}
    for column in columns:
        if column.name not in missing:
            frame[column.name], cell_problems = coerce_column(_cells(table, column), column)
            problems += cell_problems
    if problems:
        raise BadData(sorted(problems, key=lambda problem: problem.row or 0))
    return pd.DataFrame(frame)


def coerce_by_row(table: pa.Table, columns: Sequence[Column], ignored: Iterable[str] = ()) -> tuple[pd.DataFrame, RowProblems]:
    """Return a typed frame and the problems of each invalid row. The cells of invalid rows in the frame are meaningless.

    Raises BadData only for problems with the columns themselves.
    """
    if problems := column_problems(table.column_names, columns, set(ignored)):
        raise BadData(problems)
    frame: dict[str, pd.Series] = {}
    all_invalid: list[tuple[InvalidCells, Column]] = []
    for column in columns:
        values, invalid = coerce_cells(_cells(table, column), column)
        if column.handle_unknown == "reject" and column.kind == "category":
            unknown = (values.notna() & ~values.isin(column.categories)).to_numpy()
            invalid.append(InvalidCells(unknown, UNKNOWN_CATEGORY, UNKNOWN_CATEGORY_MESSAGE))
        if column.rejects_outside_range:
            outside = ((values < column.low) | (values > column.high)).to_numpy()
            invalid.append(InvalidCells(outside, OUT_OF_RANGE, OUT_OF_RANGE_MESSAGE))
        all_invalid += [(cells, column) for cells in invalid if cells.mask.any()]
        frame[column.name] = values
    return pd.DataFrame(frame), RowProblems(table.num_rows, all_invalid)


class RowProblems(Mapping[int, list[Problem]]):
    """The problems of each invalid row, by row index. Created on access, since every cell of a large table may be invalid.

    The more rows are invalid, the fewer problems are listed per row, but always at least one.
    """

    def __init__(self, rows: int, invalid: Sequence[tuple[InvalidCells, Column]]) -> None:
        self._invalid = invalid
        self._is_invalid = np.logical_or.reduce([cells.mask for cells, _ in invalid]) if invalid else np.zeros(rows, dtype=bool)
        self._count = int(self._is_invalid.sum())
        self._max_per_row = max_problems_per_row(self._count)

    def __getitem__(self, row: int) -> list[Problem]:
        if row not in self:
            raise KeyError(row)
        invalid = ((cells, column) for cells, column in self._invalid if cells.mask[row])
        return [
            Problem(cells.code, cells.message, row + 1, column.name, expected(column))
            for cells, column in itertools.islice(invalid, self._max_per_row)
        ]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self._is_invalid) and bool(self._is_invalid[row])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._is_invalid).tolist())

    def __len__(self) -> int:
        return self._count


LOOKS_LIKE_DATA = rf"{NUMBER}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}"


def column_problems(names: Sequence[str], columns: Sequence[Column], ignored: set[str]) -> list[Problem]:
    """Return the problems with a table's column names, up to a limit."""
    known, present = {column.name for column in columns}, set(names)
    ignored = ignored | {name for name in names if UNNAMED.fullmatch(name)}
    lacks_columns = not known & present or any(not column.nullable and column.name not in present for column in columns)
    if lacks_columns and any(re.fullmatch(LOOKS_LIKE_DATA, name) for name in present - known):
        return [Problem("csv-header", "the first row looks like data; add a header row")]  # naming the columns may reveal cells
    unknown = itertools.islice((name for name in names if name not in known and name not in ignored), MAX_REPORTED)
    return [unknown_column(name) for name in unknown] + [
        Problem("missing-field", "is missing from the table", column=column.name, expected=expected(column))
        for column in columns
        if column.name not in present and not column.nullable
    ]


def _cells(table: pa.Table, column: Column) -> pa.ChunkedArray:
    """Return the column as text, or nulls if the table lacks it."""
    if column.name in table.column_names:
        return column_as_text(table[column.name])
    return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])


def frame_to_rows(frame: pd.DataFrame | Columns) -> list[tuple[Value, ...]]:
    """Return a typed frame as tuples of cells, with None for NaN."""
    columns = [[None if cell != cell else cell for cell in frame[name].tolist()] for name in frame]
    return list(zip(*columns, strict=True))


def rows_to_columns(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> Columns:
    """Return tuples of typed cells as arrays."""
    cells = [[row[index] for row in rows] for index in range(len(columns))]
    return {c.name: np.array(each, object if c.is_text else float) for c, each in zip(columns, cells, strict=True)}


def rows_to_frame(rows: Sequence[Sequence[Value]], columns: Sequence[Column]) -> pd.DataFrame:
    """Return tuples of typed cells as a typed frame; the inverse of `frame_to_rows`."""
    return frame_of(rows_to_columns(rows, columns))


def frame_of(columns: Columns) -> pd.DataFrame:
    """Return arrays as a typed frame, whose text stays objects."""
    return pd.DataFrame({name: pd.Series(cells, dtype=cells.dtype, copy=False) for name, cells in columns.items()})


def columns_of(frame: pd.DataFrame) -> Columns:
    """Return the columns of a typed frame as arrays."""
    return {name: frame[name].to_numpy() for name in frame}

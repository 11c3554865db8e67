"""A whole file to its predictions, piece by piece from disk to disk, so that memory does not grow with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.inference.request_rows import (
    ParsedRows,
    ParseOptions,
    check_columns,
    rows_from_panel,
    rows_from_text,
    size_limits,
    typed_panel,
)
from podium.inference.result_tables import result_table, table_to_csv
from podium.inference.served_model import ServedModel
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData
from podium.tables.input_warnings import frame_warnings
from podium.tables.readers import read_in_pieces
from podium.tables.size_limits import FILE, Limits

PANEL_ROWS = 100_000
"""Rows of a panel whose windows are in memory at a time, and those of one entity more."""
Score = Callable[[ServedModel, str, pd.DataFrame], FloatMatrix]
"""From a version, a family and typed rows to (n, scores)."""


@dataclass(frozen=True, slots=True)
class ResultChunk:
    """The result of some rows as CSV, the first piece with the header."""

    csv: bytes
    rows: int
    wrong_rows: int
    warnings: int


def predict_file(
    upload: Path,
    snapshot: ServedModel,
    families: Sequence[str],
    score: Score,
    asked: ParseOptions,
    *,
    raw: bool = False,
    problems: bool = True,
    limits: Limits = FILE,
) -> Iterator[ResultChunk]:
    """Predictions beside the columns that came, and why wrong rows have none. Raises BadData, rows counted over all pieces."""
    rows = 0
    if snapshot.signature.panel:
        for inputs in _inputs_of_panel(upload, snapshot.signature, asked, limits):
            yield _piece(snapshot, families, score, inputs, asked.by_row and problems, raw=raw, first=rows == 0)
            rows += inputs.total
        return
    for table in _read(upload, snapshot.signature, asked, limits):
        try:
            inputs = rows_from_text(table, snapshot.signature, table.num_rows, asked)
        except BadData as error:
            raise _offset_rows(error, rows) from None
        yield _piece(snapshot, families, score, inputs, asked.by_row and problems, raw=raw, first=rows == 0)
        rows += table.num_rows


def _piece(
    snapshot: ServedModel, families: Sequence[str], score: Score, inputs: ParsedRows, problems: bool, *, raw: bool, first: bool
) -> ResultChunk:
    scores: dict[str, FloatMatrix | Sequence[Sequence[float]]] = {
        family: score(snapshot, family, inputs.as_frame()) if inputs.count else [] for family in families
    }
    result = result_table(snapshot, inputs, scores, problems=problems)
    return ResultChunk(table_to_csv(result, raw=raw, header=first), inputs.total, len(inputs.bad), len(inputs.warnings))


def _read(upload: Path, signature: Signature, asked: ParseOptions, limits: Limits) -> Iterator[pa.Table]:
    """Its pieces, unless the header shows columns that are not wanted. Raises BadData."""
    check = functools.partial(check_columns, signature, asked)
    return read_in_pieces(
        upload,
        gzipped=asked.gzipped,
        delimiter=asked.delimiter,
        limits=size_limits(signature, limits),
        check=check,
    )


def _inputs_of_panel(upload: Path, signature: Signature, asked: ParseOptions, limits: Limits) -> Iterator[ParsedRows]:
    """A panel is read whole, as a day needs those before it, and answered some entities at a time. Raises BadData."""
    table = pa.concat_tables(_read(upload, signature, asked, limits))
    frame = typed_panel(table, signature, asked)
    if not asked.by_row:
        frame_warnings(frame, signature.request_columns)  # so that rows are counted over the whole file
    assert signature.panel
    codes = pd.factorize(frame[signature.panel.entity])[0]
    counts = np.cumsum(np.bincount(codes))
    parts = counts // PANEL_ROWS
    for part in np.unique(parts):
        yield rows_from_panel(frame[parts[codes] == part], signature, by_row=asked.by_row)


def _offset_rows(error: BadData, rows: int) -> BadData:
    return BadData([replace(problem, row=problem.row + rows if problem.row else None) for problem in error.problems])

"""Predictions for a whole file, chunk by chunk, so that memory use does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.inference.panel import Scores
from podium.inference.panel_rows import rows_from_panel, typed_panel
from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.inference.result_tables import number_columns, result_table, table_to_csv
from podium.inference.served_model import ServedModel
from podium.inference.table_rows import read_options, rows_from_text
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData
from podium.tables.input_warnings import frame_warnings
from podium.tables.panel import take
from podium.tables.readers import read_in_pieces
from podium.tables.size_limits import FILE, Limits

PANEL_ROWS = 100_000
"""Approximate number of panel rows per chunk; entities are never split."""
Score = Callable[[ServedModel, str, pd.DataFrame], FloatMatrix]
"""Maps a version, a model family and n typed rows to (n, outputs) scores."""
Record = Callable[[Scores, ParsedRows, int], str]
"""Logs the scores of rows, the first of which has this number in the file, and returns their prediction id."""


LoggedRows = dict[str, str | int]
"""A prediction id, and the numbers of the first and the last row of a file that have it."""


def logged_rows(prediction_id: str, before: int, rows: int) -> LoggedRows:
    return {"prediction_id": prediction_id, "first_row": before + 1, "last_row": before + rows}


@dataclass(frozen=True, slots=True)
class ResultChunk:
    """The result for some rows as CSV; the first chunk starts with the header.

    `prediction_id` is empty if the rows are not logged.
    """

    csv: bytes
    rows: int
    wrong_rows: int
    warnings: int
    prediction_id: str


def predict_file(
    upload: Path,
    snapshot: ServedModel,
    families: Sequence[str],
    score: Score,
    options: ParseOptions,
    *,
    raw: bool = False,
    problems: bool = True,
    limits: Limits = FILE,
    record: Record | None = None,
) -> Iterator[ResultChunk]:
    """Yield the input columns with predictions; with `options.by_row`, also the problems of invalid rows.

    Raises BadData with row numbers counted over the whole file.
    """
    rows = 0
    problems = problems and options.by_row

    def predict(inputs: ParsedRows) -> ResultChunk:
        scores: Scores = {family: score(snapshot, family, inputs.as_frame()) if inputs.count else [] for family in families}
        result = result_table(snapshot, inputs, scores, problems=problems)
        csv = table_to_csv(result, raw=raw, header=rows == 0, numbers=number_columns(snapshot.signature, inputs))
        prediction_id = record(scores, inputs, rows + 1) if record else ""
        return ResultChunk(csv, inputs.total, len(inputs.invalid_rows), len(inputs.warnings), prediction_id)

    if snapshot.signature.panel:
        for inputs in _panel_chunks(upload, snapshot.signature, options, limits):
            yield predict(inputs)
            rows += inputs.total
        return
    for table in _read(upload, snapshot.signature, options, limits):
        try:
            inputs = rows_from_text(table, snapshot.signature, table.num_rows, options)
        except BadData as error:
            raise _offset_rows(error, rows) from None
        yield predict(inputs)
        rows += table.num_rows


def _read(upload: Path, signature: Signature, options: ParseOptions, limits: Limits) -> Iterator[pa.Table]:
    """Yield the table in pieces. Raises BadData; unknown columns are reported before any row is read."""
    return read_in_pieces(upload, read_options(signature, options, limits))


def _panel_chunks(upload: Path, signature: Signature, options: ParseOptions, limits: Limits) -> Iterator[ParsedRows]:
    """Read the whole panel, since lags need earlier rows, and yield the windows of some entities at a time."""
    table = pa.concat_tables(_read(upload, signature, options, limits))
    rows = typed_panel(table, signature, options)
    if not options.by_row:
        frame_warnings(rows, signature.request_columns)  # rejects unknown entities, with row numbers in the whole file
    assert signature.panel
    codes = pd.factorize(rows[signature.panel.entity])[0]
    counts = np.cumsum(np.bincount(codes))
    chunk_of_entity = counts // PANEL_ROWS
    for chunk in np.unique(chunk_of_entity):
        yield rows_from_panel(take(rows, np.flatnonzero(chunk_of_entity[codes] == chunk)), signature, by_row=options.by_row)


def _offset_rows(error: BadData, rows: int) -> BadData:
    return BadData([replace(problem, row=problem.row + rows if problem.row else None) for problem in error.problems])

"""A whole file to its predictions, piece by piece from disk to disk, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from podium.data.problems import BadData
from podium.data.read import read_in_pieces
from podium.model.encode import Matrix
from podium.predict.inputs import Asked, from_text
from podium.predict.snapshot import Snapshot
from podium.predict.tables import result_table, to_csv

Score = Callable[[Snapshot, str, pd.DataFrame], Matrix]
"""From a version, a family and typed rows to (n, scores)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The result of some rows as CSV, the first piece with the header."""

    csv: bytes
    rows: int
    wrong_rows: int
    warnings: int


def predict_file(
    upload: Path, snapshot: Snapshot, families: Sequence[str], score: Score, asked: Asked, *, raw: bool = False
) -> Iterator[Piece]:
    """Predictions beside the columns that came. Raises BadData with the rows counted over the whole file."""
    rows = 0
    for table in read_in_pieces(upload, gzipped=asked.gzipped, delimiter=asked.delimiter):
        try:
            inputs = from_text(table, snapshot.signature, table.num_rows, asked)
        except BadData as error:
            raise _moved(error, rows) from None
        scores = {family: score(snapshot, family, inputs.as_frame()) for family in families}
        result = result_table(snapshot, inputs, scores, always_problem=asked.by_row)
        yield Piece(to_csv(result, raw=raw, header=rows == 0), table.num_rows, len(inputs.bad), len(inputs.warnings))
        rows += table.num_rows


def _moved(error: BadData, rows: int) -> BadData:
    return BadData([replace(problem, row=problem.row + rows if problem.row else None) for problem in error.problems])

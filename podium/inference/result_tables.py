"""Predictions beside their inputs, as a table to show or to download."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from podium.inference.panel import Scores, forecast_table
from podium.inference.request_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Target
from podium.schema.data_errors import Problem
from podium.tables.cell_rules import NUMBER

FORMULA = r"^[=+\-@\t\r]"


PROBLEM_COLUMN = "problem"


def result_table(snapshot: ServedModel, inputs: ParsedRows, scores: Scores, *, problems: bool | None = None) -> pa.Table:
    """Input columns untouched and in order, then `prediction` and each `probability_<class>` of the first model, or the ends
    of its interval, then the same of every model as `<family>.prediction` and so on when there are several; and a column
    `problem` that says why rows are wrong, when there are any, or always, or never."""
    if snapshot.signature.panel:
        return _with_problems(forecast_table(snapshot.signature.panel, inputs, scores), inputs, problems)
    first, target = next(iter(scores)), snapshot.signature.target
    table = inputs.as_table()
    places = _places(inputs)
    matrices = {family: matrix_of(rows, target) for family, rows in scores.items()}
    added = _columns(matrices[first], target, snapshot.half_width(first))
    for family, matrix in matrices.items() if len(scores) > 1 else ():
        columns = _columns(matrix, target, snapshot.half_width(family))
        added |= {f"{family}.{name}": cells for name, cells in columns.items()}
    for name, cells in added.items():
        table = table.append_column(_unique_name(name, table), cells if places is None else cells.take(places))
    return _with_problems(table, inputs, problems)


def matrix_of(rows: FloatMatrix | Sequence[Sequence[float]], target: Target) -> FloatMatrix:
    """(n, scores), also where no row is good."""
    return np.asarray(rows, dtype=float).reshape(len(rows), max(1, len(target.classes)))


def _with_problems(table: pa.Table, inputs: ParsedRows, asked: bool | None) -> pa.Table:
    if asked or (asked is None and inputs.bad):
        said = [_join_problems(inputs.bad[place]) if place in inputs.bad else None for place in range(inputs.total)]
        table = table.append_column(_unique_name(PROBLEM_COLUMN, table), pa.array(said, pa.string()))
    return table


def _places(inputs: ParsedRows) -> pa.Array | None:
    """Where each row finds its scores, null for a wrong one; None when all rows are good."""
    if not inputs.bad:
        return None
    good = itertools.count()
    return pa.array([None if place in inputs.bad else next(good) for place in range(inputs.total)], pa.int64())


def _join_problems(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.column or 'row'} {problem.message}" for problem in problems)


def table_to_parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def table_to_csv(table: pa.Table, *, raw: bool = False, header: bool = True) -> bytes:
    """CSV in UTF-8; texts that a spreadsheet would run as a formula are prefixed with an apostrophe unless `raw`."""
    file = io.BytesIO()
    pacsv.write_csv(
        table if raw else _escape_formulas(table), file, pacsv.WriteOptions(quoting_style="needed", include_header=header)
    )
    return file.getvalue()


def _columns(matrix: FloatMatrix, target: Target, half_width: float | None) -> dict[str, pa.Array]:
    columns = {"prediction": _predictions(matrix, target)}
    if half_width is not None:
        columns |= {
            "prediction_low": pa.array(matrix[:, 0] - half_width),
            "prediction_high": pa.array(matrix[:, 0] + half_width),
        }
    for place, label in enumerate(target.classes):
        columns[f"probability_{label}"] = pa.array(matrix[:, place])
    return columns


def _predictions(matrix: FloatMatrix, target: Target) -> pa.Array:
    if not target.classes:
        return pa.array(matrix[:, 0])
    return pa.array(list(target.classes)).take(pa.array(matrix.argmax(axis=1)))


def _unique_name(name: str, table: pa.Table) -> str:
    taken = set(table.column_names)
    while name in taken:
        name += "_"
    return name


def _escape_formulas(table: pa.Table) -> pa.Table:
    names = [f"'{name}" if re.match(FORMULA, name) else name for name in table.column_names]
    return pa.Table.from_arrays([_escape_cells(column) for column in table.columns], names)


def _escape_cells(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(cells.type):
        return cells
    risky = pc.fill_null(pc.match_substring_regex(cells, FORMULA), False)
    if not pc.any(risky).as_py():
        return cells
    risky = pc.and_(risky, pc.invert(pc.match_substring_regex(cells, f"^({NUMBER})$")))
    return pc.if_else(risky, pc.binary_join_element_wise(pa.scalar("'"), cells, ""), cells)

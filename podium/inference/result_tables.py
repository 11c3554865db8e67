"""Inputs with their predictions, as a table."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.inference.panel import Scores, forecast_table
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.schema.arrays import FloatMatrix, IndexArray
from podium.schema.columns import Signature, Target
from podium.schema.data_errors import Problem
from podium.tables.cell_rules import NUMBER

FORMULA = r"^[=+\-@\t\r]"
PROBLEM_COLUMN = "problem"
ROWS_AT_A_TIME = 50_000
"""Rows that are joined to lines at a time: an Arrow array of text holds at most 2 GB."""


def result_table(snapshot: ServedModel, inputs: ParsedRows, scores: Scores, *, problems: bool | None = None) -> pa.Table:
    """Return the input columns unchanged, followed by the predictions.

    Columns of the first model: `prediction`, then `probability_<class>` per class or the bounds of the prediction interval.
    With several models, each model adds the same columns, named `<family>.prediction` and so on. The column `problem` describes
    invalid rows; it is added if there are any, unless `problems` is True (always add it) or False (never add it).
    """
    if snapshot.signature.panel:
        return _with_problems(forecast_table(snapshot.signature.panel, inputs, scores), inputs, problems)
    first, target = next(iter(scores)), snapshot.signature.target
    table = inputs.as_table()
    indices = _score_indices(inputs)
    matrices = {family: score_matrix(rows, target) for family, rows in scores.items()}
    added = _columns(matrices[first], target, snapshot.half_width(first))
    for family, matrix in matrices.items() if len(scores) > 1 else ():
        columns = _columns(matrix, target, snapshot.half_width(family))
        added |= {f"{family}.{name}": cells for name, cells in columns.items()}
    for name, cells in added.items():
        table = table.append_column(_unique_name(name, table), cells if indices is None else cells.take(indices))
    return _with_problems(table, inputs, problems)


def score_matrix(rows: FloatMatrix | Sequence[Sequence[float]], target: Target) -> FloatMatrix:
    """Return (n, outputs) scores, with the right number of outputs even if n is 0."""
    return np.asarray(rows, dtype=float).reshape(len(rows), max(1, len(target.classes)))


def _with_problems(table: pa.Table, inputs: ParsedRows, problems: bool | None) -> pa.Table:
    invalid = inputs.invalid_rows
    if problems or (problems is None and invalid):
        texts = [_join_problems(invalid[index]) if index in invalid else None for index in range(inputs.total)]
        table = table.append_column(_unique_name(PROBLEM_COLUMN, table), pa.array(texts, pa.string()))
    return table


def _score_indices(inputs: ParsedRows) -> pa.Array | None:
    """Return the index of each row's scores, null for invalid rows; None if all rows are valid."""
    if not inputs.invalid_rows:
        return None
    valid = itertools.count()
    return pa.array([None if index in inputs.invalid_rows else next(valid) for index in range(inputs.total)], pa.int64())


def _join_problems(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.column or 'row'} {problem.message}" for problem in problems)


def table_to_parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def table_to_csv(table: pa.Table, *, raw: bool = False, header: bool = True, numbers: Collection[str] = ()) -> bytes:
    """Return UTF-8 CSV, with quotes only around cells that need them.

    Unless `raw`, an apostrophe precedes text that a spreadsheet would run as a formula. Columns in `numbers` must contain text
    that is empty or a valid number.
    """
    names = [name if raw or not re.match(FORMULA, name) else f"'{name}" for name in table.column_names]
    pieces = [_lines([_quoted(pa.chunked_array([[name]])) for name in names])] if header else []
    for start in range(0, table.num_rows, ROWS_AT_A_TIME):
        piece = table.slice(start, ROWS_AT_A_TIME)
        columns = dict(zip(piece.column_names, map(_as_text, piece.columns), strict=True))
        plain = {name for name in numbers if name in columns and _has_no_line_breaks(columns[name])}
        pieces.append(
            _lines(
                [
                    column if name in plain else _quoted(column if raw else _escape_cells(column))
                    for name, column in columns.items()
                ]
            )
        )
    return b"".join(pieces)


def _as_text(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers unchanged, and any kind of text as strings."""
    is_text = pa.types.is_large_string(cells.type) or pa.types.is_string_view(cells.type) or pa.types.is_dictionary(cells.type)
    return cells.cast(pa.string()) if is_text else cells


def number_columns(signature: Signature, inputs: ParsedRows) -> set[str]:
    """Return the inputs whose cells are valid numbers or empty, so that no cell is a formula."""
    if inputs.invalid_rows:
        return set()
    return {
        column.name
        for column in signature.request_columns
        if column.kind in ("number", "integer") and not column.has_number_format and not column.na_values
    }


def _has_no_line_breaks(cells: pa.ChunkedArray) -> bool:
    return not any(pc.any(pc.match_substring(cells, mark)).as_py() for mark in ("\n", "\r"))


def _quoted(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells as text, quoted where the text contains a delimiter, a quote or a line break."""
    if not pa.types.is_string(cells.type):
        return cells.cast(pa.string())
    needs_quotes = pc.match_substring_regex(cells, '[,"\r\n]')
    if not pc.any(needs_quotes).as_py():
        return cells
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(needs_quotes, pc.binary_join_element_wise(pa.scalar('"'), doubled, pa.scalar('"'), ""), cells)


def _lines(columns: Sequence[pa.ChunkedArray]) -> bytes:
    """Return one line per row, with empty text for null."""
    joined = pc.binary_join_element_wise(*columns, ",", null_handling="replace", null_replacement="")
    lines = pc.binary_join_element_wise(joined, "", "\n").combine_chunks()
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset :]
    return lines.buffers()[2].to_pybytes()[offsets[0] : offsets[len(lines)]] if len(lines) else b""


def _columns(matrix: FloatMatrix, target: Target, half_width: float | None) -> dict[str, pa.Array]:
    columns = {"prediction": _predictions(matrix, target)}
    if half_width is not None:
        columns |= {
            "prediction_low": pa.array(matrix[:, 0] - half_width),
            "prediction_high": pa.array(matrix[:, 0] + half_width),
        }
    for index, label in enumerate(target.classes):
        columns[f"probability_{label}"] = pa.array(matrix[:, index])
    return columns


def _predictions(matrix: FloatMatrix, target: Target) -> pa.Array:
    if not target.classes:
        return pa.array(matrix[:, 0])
    return pa.array(list(target.classes)).take(pa.array(_predicted_indices(matrix, target)))


def _unique_name(name: str, table: pa.Table) -> str:
    taken = set(table.column_names)
    while name in taken:
        name += "_"
    return name


def _escape_cells(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(cells.type):
        return cells
    is_formula = pc.fill_null(pc.match_substring_regex(cells, FORMULA), False)
    if not pc.any(is_formula).as_py():
        return cells
    is_formula = pc.and_(is_formula, pc.invert(pc.match_substring_regex(cells, f"^({NUMBER})$")))
    return pc.if_else(is_formula, pc.binary_join_element_wise(pa.scalar("'"), cells, ""), cells)


def _predicted_indices(matrix: FloatMatrix, target: Target) -> IndexArray:
    """Return the index of each row's predicted class, like `Target.predicted_index`."""
    decision = target.decision
    if decision is None:
        return matrix.argmax(axis=1)
    others = matrix.copy()
    others[:, decision.index] = -np.inf
    return np.where(matrix[:, decision.index] > decision.threshold, decision.index, others.argmax(axis=1))

"""Predictions beside their inputs, as a table to show or to download."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from podium.data.columns import Target
from podium.data.typed import NUMBER
from podium.model.encode import Matrix

FORMULA = r"^[=+\-@\t\r]"


def result_table(inputs: pa.Table, scores: Mapping[str, Matrix | Sequence[Sequence[float]]], target: Target) -> pa.Table:
    """Input columns untouched and in order, then `prediction` and each `probability_<class>` of the first model, then
    `prediction_<family>` (and the probability of what it predicts) of every model when there are several."""
    first = next(iter(scores))
    table = inputs
    for name, cells in _columns(np.asarray(scores[first], dtype=float), target).items():
        table = table.append_column(_free(name, table), cells)
    for family, rows in scores.items() if len(scores) > 1 else ():
        matrix = np.asarray(rows, dtype=float)
        table = table.append_column(_free(f"prediction_{family}", table), _predictions(matrix, target))
        if target.classes:
            table = table.append_column(_free(f"probability_{family}", table), pa.array(matrix.max(axis=1)))
    return table


def to_csv(table: pa.Table, *, raw: bool = False) -> bytes:
    """CSV in UTF-8; texts that a spreadsheet would run as a formula are prefixed with an apostrophe unless `raw`."""
    file = io.BytesIO()
    pacsv.write_csv(table if raw else _harmless(table), file, pacsv.WriteOptions(quoting_style="needed"))
    return file.getvalue()


def _columns(matrix: Matrix, target: Target) -> dict[str, pa.Array]:
    columns = {"prediction": _predictions(matrix, target)}
    for place, label in enumerate(target.classes):
        columns[f"probability_{label}"] = pa.array(matrix[:, place])
    return columns


def _predictions(matrix: Matrix, target: Target) -> pa.Array:
    if not target.classes:
        return pa.array(matrix[:, 0])
    return pa.array(list(target.classes)).take(pa.array(matrix.argmax(axis=1)))


def _free(name: str, table: pa.Table) -> str:
    while name in table.column_names:
        name += "_"
    return name


def _harmless(table: pa.Table) -> pa.Table:
    for place, name in enumerate(table.column_names):
        cells = table[name]
        if pa.types.is_string(cells.type):
            risky = pc.and_(
                pc.match_substring_regex(cells, FORMULA), pc.invert(pc.match_substring_regex(cells, f"^({NUMBER})$"))
            )
            marked = pc.binary_join_element_wise(pa.scalar("'"), cells, "")
            table = table.set_column(place, name, pc.if_else(pc.fill_null(risky, False), marked, cells))
    return table

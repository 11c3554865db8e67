"""What decides whether a row trains or tests: its own content, so that it stays on its side when the table grows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import ColumnOptions, Project
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.tables.schema_inference import infer_column
from podium.tables.text_columns import coerce_column

ALL = "all"


def split_keys(table: pa.Table, project: Project) -> pd.Series:
    """What a split goes by: a number of each row's texts, the texts of a group, or the numbers or dates of a time.

    The texts are those that came, so that no option of a column moves a row to the other side. Raises BadData.
    """
    name = project.split.column
    if name is None:
        texts = {name: pc.fill_null(table[name], "").to_pandas() for name in sorted(table.column_names)}
        return pd.util.hash_pandas_object(pd.DataFrame(texts), index=False)
    if project.split.kind != "time":
        return table[name].to_pandas().astype(str)
    column = infer_column(name, table[name], project.columns.get(name, ColumnOptions()))
    values, _ = coerce_column(table[name], column)
    if column.kind not in ("date", "number", "integer") or values.isna().any():
        message = "a split by time needs a number or a date in every row (give its `format` if it is another than %Y-%m-%d)"
        raise BadData([Problem("split", message, column=name)])
    return values


def row_hash(by: np.ndarray, seed: int) -> np.ndarray:
    """A number that only content and seed decide."""
    return pd.util.hash_array(pd.util.hash_array(by) ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def strata(data: LabeledRows, kind: str) -> np.ndarray:
    if kind == "stratified":
        return data.target.astype(int).astype(str).to_numpy()
    return np.full(len(data.target), ALL)

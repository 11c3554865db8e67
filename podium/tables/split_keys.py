"""Split keys: content, group or time of each row, so that rows stay on their side of the split as the table grows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import ColumnOptions, Project
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.tables.schema_inference import infer_column
from podium.tables.typed_columns import coerce_column

SINGLE_STRATUM = "all"


def split_keys(table: pa.Table, project: Project) -> pd.Series:
    """Return the key of each row: a hash of its cells, its group as text, or its time as a number.

    The raw text is hashed, so that no column option can move a row to the other side. Raises BadData.
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
        message = "needs a number or a date in every row to split by time (set its `date_format` if it is not %Y-%m-%d)"
        raise BadData([Problem("split", message, column=name)])
    return values


def row_hash(keys: np.ndarray, seed: int) -> np.ndarray:
    """Return a hash of each key combined with the seed."""
    return pd.util.hash_array(pd.util.hash_array(keys) ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def strata(data: LabeledRows, kind: str) -> np.ndarray:
    """Return the stratum of each row: its class for stratified splits, otherwise the same for all rows."""
    if kind == "stratified":
        return data.target.astype(int).astype(str).to_numpy()
    return np.full(len(data.target), SINGLE_STRATUM)

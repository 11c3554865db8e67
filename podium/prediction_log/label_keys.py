"""Find the predictions that labels belong to by the values of their inputs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.prediction_log.prediction_table import HASH
from podium.schema.columns import Column, Signature
from podium.schema.data_errors import BadData, Problem
from podium.storage.object_store import Store
from podium.storage.predictions import is_logged
from podium.tables.frames import coerce_frame
from podium.tables.readers import read_table


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """Labels with the predictions that they belong to, by the key columns.

    `labels` has a row for each prediction: `prediction_id`, `row` and `label`. `unused` names the other columns of the file.
    `unmatched` has the rows of the file, from 1, that belong to no prediction.
    """

    labels: pd.DataFrame
    keys: Sequence[str]
    unused: Sequence[str]
    rows: int
    unmatched: Sequence[int]
    unlabelled: int


def find_predictions(store: Store, project: str, signature: Signature, data: bytes, days: int) -> FoundLabels:
    """Return the predictions of the last logged days whose inputs have the values of the file's key columns.

    Key columns are the inputs in a CSV or Parquet file, or the entity and the time of a panel. If several predictions have the
    same values, all get the label. Raises BadData, StoreError.
    """
    table, target = read_table(data), signature.target.name
    label = next((name for name in (target, "label") if name in table.column_names), None)
    if label is None:
        raise BadData([Problem("missing-field", "is required", column=target)])
    keys = _key_columns(signature, table.column_names)
    labels = table[label].to_pandas().astype("string").str.strip().fillna("")
    names = [key.name for key in keys]
    wanted = coerce_frame(table.select(names), keys).assign(label=labels, line=np.arange(1, len(labels) + 1))
    is_labelled = wanted["label"] != ""
    wanted, unlabelled = wanted[is_labelled].dropna(subset=names), int((~is_labelled).sum())
    parts = [logged.merge(wanted, on=names) for logged in _logged_keys(store, project, keys, signature, days)]
    found = pd.concat(parts) if parts else wanted.iloc[:0].assign(prediction_id="", row=0)
    lines = np.flatnonzero(is_labelled) + 1
    unmatched = lines[~np.isin(lines, found["line"])].tolist()
    unused = [name for name in table.column_names if name not in {*names, label}]
    return FoundLabels(found[["prediction_id", "row", "label"]], names, unused, len(labels), unmatched, unlabelled)


def _key_columns(signature: Signature, names: Sequence[str]) -> list[Column]:
    """Return the columns that tell predictions apart. Raises BadData if the file has none, or only one of a panel's two."""
    panel = signature.panel
    known = [panel.entity_column, panel.time_column] if panel else signature.inputs
    keys = [column for column in known if column.name in names]
    if not keys or (panel and len(keys) < len(known)):
        expected = ", ".join(column.name for column in known)
        needed = "both of the key columns are" if panel else "at least one input is"
        raise BadData([Problem("missing-field", f"{needed} required to find the predictions", expected=expected)])
    return keys


def _logged_keys(store: Store, project: str, keys: Sequence[Column], signature: Signature, days: int) -> Iterator[pd.DataFrame]:
    """Yield ids, row numbers and keys of the logged rows, without reading their other columns."""
    fields = {key.name: f"inputs.{key.name}" for key in keys}
    if signature.panel and signature.panel.time in fields:
        fields[signature.panel.time] = "keys.day"
    for folder in sorted(store.folders(f"predictions/{project}/"), reverse=True)[:days]:
        for info in store.list_objects(f"predictions/{project}/{folder}/"):
            if is_logged(info.key):
                table = _read(store.read(info.key).data, fields)
                if table is not None:
                    yield table.to_pandas()


def _read(data: bytes, fields: dict[str, str]) -> pa.Table | None:
    """Return ids, row numbers and these fields; None if the file does not have them all. Raises BadData if one is hashed."""
    table = pq.ParquetFile(io.BytesIO(data)).read(columns=["prediction_id", "row", *fields.values()])
    cells = dict[str, pa.ChunkedArray]()
    for name, path in fields.items():
        column, _, field = path.partition(".")
        if column not in table.column_names or table[column].type.get_field_index(field) < 0:
            return None
        cells[name] = pc.struct_field(table[column], field)
        if cells[name].type == HASH:
            raise BadData([Problem("unknown-field", "only its hash is in the log", column=name)])
    return pa.table({"prediction_id": table["prediction_id"], "row": table["row"], **cells})

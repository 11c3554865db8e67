"""The rows of the prediction log as Arrow tables, in which every number keeps its bits."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.prediction_log.journal import Entry
from podium.schema.arrays import Columns, FloatMatrix
from podium.schema.columns import Column, Panel, Signature
from podium.tables.frames import frame_of
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST, forecast

Cells = np.ndarray | Sequence[float | bool | str | None]
Scores = Mapping[str, FloatMatrix | Sequence[Sequence[float]]]
KEYS = {"index": INDEX, "day": DAY, "actual": ACTUAL, "last": LAST}
"""The names of the keys of a panel's windows in the log; its entity is an input."""


PREDICTION_ID = re.compile(r"([0-9]{8}[0-9a-f]{12})-([0-9a-f]+)")
"""The name of the journal file, which starts with its day, and the number of the entry."""
HASH = pa.binary(hashlib.sha256().digest_size)
"""The type of hashed inputs."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """Inputs that are left out of the log, and those of which only a keyed hash is logged."""

    exclude: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    key: bytes = b""

    def apply(self, name: str, cells: pa.Array) -> pa.Array | None:
        """Return the cells to log; None for none."""
        if name in self.exclude:
            return None
        if name not in self.hash:
            return cells
        texts = [None if cell is None else str(cell).encode() for cell in cells.to_pylist()]
        return pa.array([text and hmac.new(self.key, text, hashlib.sha256).digest() for text in texts], HASH)


def rows_table(
    signature: Signature, families: Sequence[str], inputs: Mapping[str, Cells], scores: Scores, keys: Columns | None = None
) -> pa.Table:
    """Return typed rows with their scores by family (null for those that were not asked) and the answered prediction."""
    cells = [_cells(inputs[column.name], column) for column in signature.inputs]
    columns = {"inputs": pa.StructArray.from_arrays(cells, [column.name for column in signature.inputs])}
    rows = len(columns["inputs"])
    lists = [pa.array(_lists(scores[name]) if name in scores else [None] * rows, SCORES) for name in families]
    first = next(iter(scores))
    columns |= {"model": pa.array([first] * rows), "scores": pa.StructArray.from_arrays(lists, list(families))}
    if signature.panel and keys is not None:
        stored = [pa.array(np.asarray(keys[name], float), from_pandas=True) for name in KEYS.values()]
        columns["keys"] = pa.StructArray.from_arrays(stored, list(KEYS))
        columns["prediction"] = pa.array(_forecasts(signature.panel, keys, scores[first]), from_pandas=True)
    else:
        columns["prediction"] = _predictions(signature, _lists(scores[first]))
    return pa.table(columns)


SCORES = pa.list_(pa.float64())


def _cells(cells: Cells, column: Column) -> pa.Array:
    if column.kind == "boolean":
        cells = np.asarray(cells, dtype=float)
    return pa.array(cells, pa.string() if column.is_text else pa.float64(), from_pandas=True)


def _lists(scores: FloatMatrix | Sequence[Sequence[float]]) -> list[list[float]]:
    return scores if isinstance(scores, list) else np.asarray(scores, dtype=float).tolist()


def _predictions(signature: Signature, rows: Sequence[Sequence[float]]) -> pa.Array:
    target = signature.target
    if not target.classes:
        return pa.array([row[0] for row in rows], pa.float64())
    labels = pa.array([str(label) for label in target.classes])
    return labels.take(pa.array([target.predicted_index(row) for row in rows]))


def _forecasts(panel: Panel, keys: Columns, changes: FloatMatrix | Sequence[Sequence[float]]) -> np.ndarray:
    return forecast(keys, np.asarray(changes, dtype=float).reshape(-1), panel.forecast_base).value


def to_bytes(table: pa.Table) -> bytes:
    """Return the table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def entries_table(
    entries: Sequence[Entry], segment: str, signature: Signature, families: Sequence[str], privacy: Privacy
) -> pa.Table:
    """Return the rows of entries of one version, with their prediction ids."""
    groups: dict[str, list[Entry]] = {}
    tables = []
    for entry in entries:
        if entry.table:
            tables.append(_identified([entry], segment, pa.ipc.open_stream(entry.table).read_all()))
        else:
            groups.setdefault(",".join(entry.scores), []).append(entry)
    for group in groups.values():
        cells = zip(*[row for entry in group for row in entry.rows], strict=True)
        inputs = dict(zip([column.name for column in signature.inputs], cells, strict=True))
        scores = {name: [row for entry in group for row in entry.scores[name]] for name in group[0].scores}
        tables.append(_identified(group, segment, rows_table(signature, families, inputs, scores)))
    table = pa.concat_tables(tables).combine_chunks()
    if len(tables) > 1:
        table = table.sort_by([("at", "ascending"), ("prediction_id", "ascending"), ("row", "ascending")])
    kept = {name: privacy.apply(name, cells) for name, cells in _fields(table, "inputs").items()}
    kept = {name: cells for name, cells in kept.items() if cells is not None}
    position = table.schema.get_field_index("inputs")
    return table.set_column(position, "inputs", pa.StructArray.from_arrays(list(kept.values()), list(kept)))


def _fields(table: pa.Table, name: str) -> dict[str, pa.Array]:
    """Return the fields of a column of structs."""
    column = table[name].combine_chunks()
    names = [column.type.field(index).name for index in range(column.type.num_fields)]
    return dict(zip(names, column.flatten(), strict=True))


def _identified(entries: Sequence[Entry], segment: str, rows: pa.Table) -> pa.Table:
    """Return the rows of the entries, one after another, with the facts of their requests."""
    counts = [len(entry.rows) if not entry.table else rows.num_rows for entry in entries]
    numbers = [
        number for entry, count in zip(entries, counts, strict=True) for number in entry.row_numbers or range(1, count + 1)
    ]

    def repeated(cells: Sequence[object], kind: pa.DataType) -> pa.Array:
        array = pa.array(cells, kind)
        return array if len(numbers) == len(entries) else array.take(pa.array(np.repeat(np.arange(len(entries)), counts)))

    facts = {
        "prediction_id": repeated([f"{segment}-{entry.number:x}" for entry in entries], pa.string()),
        "row": pa.array(numbers, pa.int32()),
        "at": repeated([round(entry.at * 1e6) for entry in entries], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "project": repeated([entry.version[0] for entry in entries], pa.string()),
        "version": repeated([entry.version[1] for entry in entries], pa.string()),
        "manifest_sha256": repeated([entry.version[2] for entry in entries], pa.string()),
        "promotion": repeated([entry.version[3] for entry in entries], pa.int32()),
        "caller": repeated([entry.caller for entry in entries], pa.string()),
        "request_sha256": repeated([entry.request.hex() for entry in entries], pa.string()),
    }
    return pa.table(facts | dict(zip(rows.column_names, rows.columns, strict=True)))


def available_inputs(table: pa.Table, signature: Signature) -> pd.DataFrame:
    """Return the typed rows of a logged table as a frame, without inputs that were excluded, hashed or of another kind."""
    fields, columns = _fields(table, "inputs"), dict[str, np.ndarray]()
    for column in signature.inputs:
        cells = fields.get(column.name)
        if cells is not None and cells.type != HASH and pa.types.is_string(cells.type) == column.is_text:
            columns[column.name] = cells.to_numpy(zero_copy_only=False)
    return frame_of(columns)


def logged_inputs(table: pa.Table, signature: Signature) -> pd.DataFrame | None:
    """Return the typed rows of a logged table as a frame; None if inputs are missing or hashed."""
    frame = available_inputs(table, signature)
    return frame if len(frame.columns) == len(signature.inputs) else None


def logged_scores(table: pa.Table) -> dict[str, FloatMatrix]:
    """Return the (n, outputs) scores of each family that has scores in all rows."""
    fields = {name: cells for name, cells in _fields(table, "scores").items() if len(cells) and not cells.null_count}
    return {name: np.array(cells.to_pylist(), dtype=float) for name, cells in fields.items()}


def logged_keys(table: pa.Table, signature: Signature) -> Columns | None:
    """Return the keys of a panel's windows."""
    if "keys" not in table.column_names or not signature.panel:
        return None
    fields = _fields(table, "keys")
    return {KEYS[name]: cells.to_numpy(zero_copy_only=False).astype(float) for name, cells in fields.items()}


def recomputed_predictions(signature: Signature, scores: FloatMatrix, keys: Columns | None) -> pa.Array:
    """Return the predictions that these scores give."""
    if signature.panel and keys is not None:
        return pa.array(_forecasts(signature.panel, keys, scores), from_pandas=True)
    return _predictions(signature, scores.tolist())

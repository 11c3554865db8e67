"""Typed rows with their target, in memory and as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Signature
from podium.schema.reading import Finding

MAX_ROWS_BYTES = 4 << 30
"""Maximum memory in bytes that stored rows may take as text and numbers."""

ORDER_COLUMN, TARGET_COLUMN, RAW_PREFIX, SCORE_PREFIX = "podium:order", "podium:target", "podium:raw:", "podium:score:"
IS_TEXT_TYPE = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
SIGNATURE = TypeAdapter(Signature)
FINDINGS = TypeAdapter(tuple[Finding, ...])


class UnreadableRows(Exception):
    """Stored rows or models are damaged, too large, or in an unknown format."""


@dataclass(frozen=True, slots=True)
class LabeledRows:
    """Typed inputs with the target as numbers, and optionally the split keys (`order`) and the raw text rows.

    Panels have no `raw`, since a window is made of many rows. `scores` are the out-of-fold scores of each model, for rows that
    all models were trained on.
    """

    inputs: pd.DataFrame
    target: pd.Series
    order: pd.Series | None
    signature: Signature
    findings: tuple[Finding, ...] = ()
    raw: pa.Table | None = None
    scores: Mapping[str, FloatMatrix] = field(default_factory=dict)

    def rows(self, indices: np.ndarray) -> LabeledRows:
        order = None if self.order is None else self.order.iloc[indices]
        raw = None if self.raw is None else self.raw.take(pa.array(indices))
        inputs, target = self.inputs.iloc[indices], self.target.iloc[indices]
        scores = {model: matrix[indices] for model, matrix in self.scores.items()}
        return replace(self, inputs=inputs, target=target, order=order, raw=raw, scores=scores)


def labeled_rows_to_parquet(data: LabeledRows) -> bytes:
    """Return a Parquet file with the signature and the findings in its metadata."""
    frame = data.inputs.assign(**{TARGET_COLUMN: data.target})
    if data.order is not None:
        frame[ORDER_COLUMN] = data.order
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if data.raw is not None:
        for name in data.raw.column_names:
            table = table.append_column(RAW_PREFIX + name, data.raw[name])
    for model, matrix in data.scores.items():
        for output, column in enumerate(matrix.T):
            table = table.append_column(f"{SCORE_PREFIX}{output}:{model}", pa.array(column))
    metadata = {b"signature": SIGNATURE.dump_json(data.signature), b"findings": FINDINGS.dump_json(data.findings)}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), file)
    return file.getvalue()


def labeled_rows_from_parquet(data: bytes) -> LabeledRows:
    """Return the rows of a stored file. Raises UnreadableRows, including if they would exceed MAX_ROWS_BYTES."""
    try:
        return _from_table(_read_bounded(data))
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, ValidationError) as error:
        raise UnreadableRows(f"the rows cannot be read ({type(error).__name__})") from None


def _read_bounded(data: bytes) -> pa.Table:
    """Return the table, after checking its size before dictionary-encoded strings are expanded."""
    schema = pq.read_schema(pa.BufferReader(data))
    if any(pa.types.is_nested(field.type) for field in schema):
        raise UnreadableRows("the rows have a column of lists or structures")
    texts = [field.name for field in schema if any(is_text(field.type) for is_text in IS_TEXT_TYPE)]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    _check_size(sum(group.total_byte_size for group in groups))
    size, batches = 0, [pa.table({field.name: pa.array([], field.type) for field in schema})]
    for batch in file.iter_batches(65_536):
        size += sum(_decoded_bytes(column) for column in batch.columns)
        _check_size(size)
        batches.append(pa.Table.from_batches([batch]).cast(schema.remove_metadata()))
    return pa.concat_tables(batches).replace_schema_metadata(schema.metadata)


def _check_size(size: int) -> None:
    if size > MAX_ROWS_BYTES:
        raise UnreadableRows(f"the rows take more than {MAX_ROWS_BYTES} bytes")


def _decoded_bytes(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 8 * len(column)


def _from_table(table: pa.Table) -> LabeledRows:
    metadata = table.schema.metadata or {}
    signature = SIGNATURE.validate_json(metadata[b"signature"])
    names = [name for name in table.column_names if name.startswith(RAW_PREFIX)]
    raw = pa.table({name.removeprefix(RAW_PREFIX): table[name] for name in names}) if names else None
    frame = table.drop_columns(names).to_pandas()
    scores: dict[str, list[np.ndarray]] = {}
    for name in frame.columns:
        if str(name).startswith(SCORE_PREFIX):
            scores.setdefault(name.split(":", 3)[3], []).append(frame[name].to_numpy(dtype=float))
    inputs = pd.DataFrame({column.name: _restore_cells(frame[column.name], column) for column in signature.inputs})
    order = frame.get(ORDER_COLUMN)
    findings = FINDINGS.validate_json(metadata[b"findings"])
    matrices = {model: np.column_stack(columns) for model, columns in scores.items()}
    return LabeledRows(inputs, frame[TARGET_COLUMN], order, signature, findings, raw, matrices)


def _restore_cells(cells: pd.Series, column: Column) -> pd.Series:
    if not column.is_text:
        return cells.astype(float)
    text = cells.astype(object)
    return text.where(text.notna(), None)

"""Typed rows with their target, in memory and as one Parquet file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from podium.schema.columns import Column, Signature

TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


MAX_ROWS_BYTES = 4 << 30
"""Most bytes that kept rows may take in memory as text and numbers."""


ORDER_COLUMN, TARGET_COLUMN, RAW_PREFIX = "podium:order", "podium:target", "podium:raw:"


SIGNATURE = TypeAdapter(Signature)


class UnreadableRows(Exception):
    """Rows or models that were kept cannot be read: they are damaged, too large, or somebody else wrote them."""


@dataclass(frozen=True, slots=True)
class LabeledRows:
    """Typed inputs, the target as numbers, what to split by, the rows as they came, and the notes; all of the same length.

    `order` and `raw` may not be known; a panel has no `raw`, its windows are made of many rows.
    """

    inputs: pd.DataFrame
    target: pd.Series
    order: pd.Series | None
    signature: Signature
    notes: tuple[str, ...]
    raw: pa.Table | None = None

    def rows(self, places: np.ndarray) -> LabeledRows:
        order = None if self.order is None else self.order.iloc[places]
        raw = None if self.raw is None else self.raw.take(pa.array(places))
        return replace(self, inputs=self.inputs.iloc[places], target=self.target.iloc[places], order=order, raw=raw)


def labeled_rows_to_parquet(data: LabeledRows) -> bytes:
    """One Parquet file with the signature and the notes in its metadata."""
    frame = data.inputs.assign(**{TARGET_COLUMN: data.target})
    if data.order is not None:
        frame[ORDER_COLUMN] = data.order
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if data.raw is not None:
        for name in data.raw.column_names:
            table = table.append_column(RAW_PREFIX + name, data.raw[name])
    facts = {b"signature": SIGNATURE.dump_json(data.signature), b"notes": json.dumps(data.notes).encode()}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), file)
    return file.getvalue()


def labeled_rows_from_parquet(data: bytes) -> LabeledRows:
    """The inverse of `labeled_rows_to_parquet`. Raises Unreadable, also when the rows would take more than MAX_ROWS_BYTES."""
    try:
        return _from_table(_bounded(data))
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, ValidationError) as error:
        raise UnreadableRows(f"the rows cannot be read ({type(error).__name__})") from None


def _bounded(data: bytes) -> pa.Table:
    """The table, whose texts are counted before they are unpacked from their dictionaries."""
    schema = pq.read_schema(pa.BufferReader(data))
    if any(pa.types.is_nested(field.type) for field in schema):
        raise UnreadableRows("the rows have a column of lists or structures")
    texts = [field.name for field in schema if any(is_text(field.type) for is_text in TEXT_TYPES)]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    _check_size(sum(group.total_byte_size for group in groups))
    size, batches = 0, [pa.table({field.name: pa.array([], field.type) for field in schema})]
    for batch in file.iter_batches(65_536):
        size += sum(_unpacked(column) for column in batch.columns)
        _check_size(size)
        batches.append(pa.Table.from_batches([batch]).cast(schema.remove_metadata()))
    return pa.concat_tables(batches).replace_schema_metadata(schema.metadata)


def _check_size(size: int) -> None:
    if size > MAX_ROWS_BYTES:
        raise UnreadableRows(f"the rows take more than {MAX_ROWS_BYTES} bytes")


def _unpacked(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 8 * len(column)


def _from_table(table: pa.Table) -> LabeledRows:
    facts = table.schema.metadata or {}
    signature = SIGNATURE.validate_json(facts[b"signature"])
    names = [name for name in table.column_names if name.startswith(RAW_PREFIX)]
    raw = pa.table({name.removeprefix(RAW_PREFIX): table[name] for name in names}) if names else None
    frame = table.drop_columns(names).to_pandas()
    inputs = pd.DataFrame({column.name: _restored(frame[column.name], column) for column in signature.inputs})
    order = frame.get(ORDER_COLUMN)
    return LabeledRows(inputs, frame[TARGET_COLUMN], order, signature, tuple(json.loads(facts[b"notes"])), raw)


def _restored(cells: pd.Series, column: Column) -> pd.Series:
    if not column.is_text:
        return cells.astype(float)
    text = cells.astype(object)
    return text.where(text.notna(), None)

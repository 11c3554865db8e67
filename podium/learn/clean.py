"""Raw text table to typed rows that can be learned from, with a note on everything that was left out."""

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

from podium.data.columns import Column, Signature
from podium.data.infer import infer_column, infer_signature, target_codes
from podium.data.panel import DAY
from podium.data.problems import BadData, Problem
from podium.data.spelling import meant
from podium.data.typed import blank, typed_column, typed_frame
from podium.learn.panel import change_of, clean_windows
from podium.project import ColumnOptions, Project

FEWEST_ROWS = 20
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
MAX_ROWS_BYTES = 4 << 30
"""Most bytes that kept rows may take in memory as text and numbers."""
ORDER, TARGET, RAW = "podium:order", "podium:target", "podium:raw:"
SIGNATURE = TypeAdapter(Signature)


class Unreadable(Exception):
    """Rows or models that were kept cannot be read: they are damaged, too large, or somebody else wrote them."""


@dataclass(frozen=True, slots=True)
class Clean:
    """Typed inputs, the target as numbers, what to split by, the rows as they came, and the notes; all of the same length.

    `order` and `raw` may not be known; a panel has no `raw`, its windows are made of many rows.
    """

    inputs: pd.DataFrame
    target: pd.Series
    order: pd.Series | None
    signature: Signature
    notes: tuple[str, ...]
    raw: pa.Table | None = None

    def rows(self, places: np.ndarray) -> Clean:
        order = None if self.order is None else self.order.iloc[places]
        raw = None if self.raw is None else self.raw.take(pa.array(places))
        return replace(self, inputs=self.inputs.iloc[places], target=self.target.iloc[places], order=order, raw=raw)


def clean(table: pa.Table, project: Project, until: float | None = None) -> Clean:
    """Infer the signature, type every cell, and drop what cannot be learned from; of a panel days up to `until`.

    Raises BadData.
    """
    if project.kind == "panel":
        return _clean_panel(table, project, until)
    signature = _without_empty(infer_signature(table, project), table, project)
    inputs = typed_frame(table, signature.inputs, signature.ignored)
    target = target_codes(table[project.target], signature.target, project.target_missing)
    order = order_of(table, project)
    keep = target.notna()
    notes = [f"{int((~keep).sum())} rows without a target were left out"] if not keep.all() else []
    if project.cleaning.drop_duplicates:
        twice = table.to_pandas().duplicated() & keep
        notes += [f"{int(twice.sum())} repeated rows were left out"] if twice.any() else []
        keep &= ~twice
    notes += _read(table, signature)
    notes += [f"column {name} was left out: {reason}" for name, reason in signature.ignored.items() if name != project.target]
    if keep.sum() < FEWEST_ROWS:
        raise BadData([Problem("too-few-rows", f"{int(keep.sum())} usable rows", expected=f"at least {FEWEST_ROWS}")])
    rows = np.flatnonzero(keep.to_numpy())
    result = Clean(inputs, target, order, signature, tuple(notes), table).rows(rows)
    return replace(
        result,
        inputs=result.inputs.reset_index(drop=True),
        target=result.target.reset_index(drop=True),
        order=order.iloc[rows].reset_index(drop=True),
    )


def _clean_panel(table: pa.Table, project: Project, until: float | None) -> Clean:
    made, signature, notes = clean_windows(table, project, until)
    if len(made.keys) < FEWEST_ROWS:
        raise BadData([Problem("too-few-rows", f"{len(made.keys)} days with a day before", expected=f"at least {FEWEST_ROWS}")])
    return Clean(made.inputs, change_of(made.keys), made.keys[DAY], signature, notes)


def _read(table: pa.Table, signature: Signature) -> list[str]:
    """What was made of texts that had to be read."""
    written = {n: [column.name for column in signature.inputs if column.notation == n] for n in ("money", "percent")}
    notes = [f"{notation} was read as numbers in {', '.join(names)}" for notation, names in written.items() if names]
    return notes + [_respelt(table, column) for column in signature.inputs if column.spelling != "exact"]


def _respelt(table: pa.Table, column: Column) -> str:
    texts = blank(table[column.name], column).drop_null().to_pandas()
    other = texts[~texts.isin(column.categories)]
    some = ", ".join(f"{text} → {meant(text, column)}" for text in other.value_counts().index[:5])
    return f"column {column.name}: {len(other)} cells were read as another spelling ({some})"


def to_parquet(data: Clean) -> bytes:
    """One Parquet file with the signature and the notes in its metadata."""
    frame = data.inputs.assign(**{TARGET: data.target})
    if data.order is not None:
        frame[ORDER] = data.order
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if data.raw is not None:
        for name in data.raw.column_names:
            table = table.append_column(RAW + name, data.raw[name])
    facts = {b"signature": SIGNATURE.dump_json(data.signature), b"notes": json.dumps(data.notes).encode()}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), file)
    return file.getvalue()


def from_parquet(data: bytes) -> Clean:
    """The inverse of `to_parquet`. Raises Unreadable, also when the rows would take more than MAX_ROWS_BYTES."""
    try:
        return _from_table(_bounded(data))
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, ValidationError) as error:
        raise Unreadable(f"the rows cannot be read ({type(error).__name__})") from None


def _bounded(data: bytes) -> pa.Table:
    """The table, whose texts are counted before they are unpacked from their dictionaries."""
    schema = pq.read_schema(pa.BufferReader(data))
    if any(pa.types.is_nested(field.type) for field in schema):
        raise Unreadable("the rows have a column of lists or structures")
    texts = [field.name for field in schema if any(is_text(field.type) for is_text in TEXTS)]
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
        raise Unreadable(f"the rows take more than {MAX_ROWS_BYTES} bytes")


def _unpacked(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 8 * len(column)


def _from_table(table: pa.Table) -> Clean:
    facts = table.schema.metadata or {}
    signature = SIGNATURE.validate_json(facts[b"signature"])
    names = [name for name in table.column_names if name.startswith(RAW)]
    raw = pa.table({name.removeprefix(RAW): table[name] for name in names}) if names else None
    frame = table.drop_columns(names).to_pandas()
    inputs = pd.DataFrame({column.name: _restored(frame[column.name], column) for column in signature.inputs})
    order = frame.get(ORDER)
    return Clean(inputs, frame[TARGET], order, signature, tuple(json.loads(facts[b"notes"])), raw)


def _restored(cells: pd.Series, column: Column) -> pd.Series:
    if not column.is_text:
        return cells.astype(float)
    text = cells.astype(object)
    return text.where(text.notna(), None)


def _without_empty(signature: Signature, table: pa.Table, project: Project) -> Signature:
    """Leave out the columns that are missing almost everywhere."""
    ignored, inputs = dict(signature.ignored), []
    for column in signature.inputs:
        share = typed_column(table[column.name], column)[0].isna().mean()
        if share > project.cleaning.most_missing:
            ignored[column.name] = f"missing in {share:.0%} of the rows"
        else:
            inputs.append(column)
    return Signature(tuple(inputs), signature.target, ignored)


def order_of(table: pa.Table, project: Project) -> pd.Series:
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
    values, _ = typed_column(table[name], column)
    if column.kind not in ("date", "number", "integer") or values.isna().any():
        message = "a split by time needs a number or a date in every row (give its `format` if it is another than %Y-%m-%d)"
        raise BadData([Problem("split", message, column=name)])
    return values

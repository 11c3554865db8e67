"""Parquet to tables, in batches whose size is known before they are cast."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.schema.data_errors import BadData, Malformed, Problem, TooLarge, WrongType, check_names
from podium.tables.parquet_pages import Footer, footer_bytes
from podium.tables.size_limits import OFFSET, TEXT_COPIES, Limits

MAX_PAGES = 50_000
MAX_WIDTH = 64
"""Bytes of a value of fixed length; decimals have 32 at most."""
DELTA_BYTE_ARRAY = 7
BATCH_ROWS = 1 << 16
Check = Callable[[Sequence[str]], None]
"""Raises BadData for column names that are not wanted."""


def parquet_batches(data: bytes | mmap.mmap, limits: Limits, check: Check) -> Iterator[pa.RecordBatch]:
    """Batches of numbers, dates and texts as they are stored; repeated texts stay a dictionary. Raises BadData."""
    try:
        yield from _batches(memoryview(data), limits, check)
    except (pa.ArrowException, UnicodeDecodeError, OSError, ValueError, LookupError, OverflowError) as error:
        raise Malformed([Problem("parquet-malformed", "the file is damaged or cut off")]) from error


def _batches(data: memoryview, limits: Limits, check: Check) -> Iterator[pa.RecordBatch]:
    length = footer_bytes(data)
    if length > limits.footer_bytes:
        raise _too_large(f"has a footer of {length} bytes", f"at most {limits.footer_bytes}")
    footer = Footer.of(data)
    source = pa.BufferReader(pa.py_buffer(data))
    facts = pq.ParquetFile(source).metadata  # of its row groups only `footer` may be asked: some damage ends the process
    schema = _checked_schema(facts, max(facts.num_rows, footer.rows), limits, check)
    _check_pages(data, footer, schema.names, limits)
    repeated = [field.name for field in schema if _is_text(field.type)]
    file = pq.ParquetFile(source, metadata=facts, read_dictionary=repeated, pre_buffer=False)
    rows = size = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        rows += batch.num_rows
        size += _checked_size(batch, rows - batch.num_rows, limits)
        if size > limits.decoded_bytes or rows > limits.rows:
            raise _too_large("unpacks to more than the limit", f"at most {limits.decoded_bytes} bytes unpacked")
        if batch.num_rows:
            yield batch
    if not rows:
        raise BadData([Problem("empty-input", "there is no row")])


def _too_large(message: str, expected: str) -> TooLarge:
    return TooLarge([Problem("too-large", message, expected=f"{expected}; send less at a time")])


def _checked_schema(facts: pq.FileMetaData, rows: int, limits: Limits, check: Check) -> pa.Schema:
    """Raises BadData."""
    if facts.num_columns > limits.columns:
        raise TooLarge([Problem("too-many-columns", f"has {facts.num_columns} columns", expected=f"at most {limits.columns}")])
    if rows > limits.rows:
        raise TooLarge([Problem("too-many-rows", f"has {rows} rows", expected=f"at most {limits.rows}")])
    schema = facts.schema.to_arrow_schema()
    if len(set(schema.names)) < len(schema.names):
        raise BadData([Problem("csv-header", "a column name comes twice")])
    check_names(schema.names)
    check(schema.names)
    wrong = [field.name for field in schema if not _is_readable(field.type)]
    leaves = [facts.schema.column(place) for place in range(facts.num_columns)]
    wrong += [leaf.name for leaf in leaves if (leaf.length or 0) > MAX_WIDTH or leaf.max_repetition_level]
    if wrong:
        said = "holds what is no text, number, date or truth value"
        raise BadData([Problem("invalid-type", said, column=name) for name in wrong])
    if rows * sum(_width(field.type) for field in schema) > limits.decoded_bytes:
        raise _too_large(f"has {rows} rows of {len(schema)} columns", f"at most {limits.decoded_bytes} bytes unpacked")
    return schema


def _is_readable(kind: pa.DataType) -> bool:
    """Whether values of this type have a text that a model can read."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind)
    return any(
        is_kind(kind)
        for is_kind in (
            _is_text, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null,
            pa.types.is_date, pa.types.is_time, pa.types.is_timestamp,
        )
    )  # fmt: skip


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        is_kind(plain)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _width(kind: pa.DataType) -> int:
    """Bytes of a value, its letters not counted."""
    return OFFSET if _is_text(kind) or pa.types.is_null(kind) else max(1, kind.bit_width // 8)


def _check_pages(data: memoryview, footer: Footer, names: Sequence[str], limits: Limits) -> None:
    """Raises TooLarge before a page is unpacked, and WrongType for an encoding whose size cannot be known before."""
    size = 0
    for count, page in enumerate(footer.pages(data)):
        size += page.unpacked
        if count > MAX_PAGES or size > limits.decoded_bytes:
            raise _too_large("unpacks to more than the limit", f"at most {limits.decoded_bytes} bytes unpacked")
        if page.encoding == DELTA_BYTE_ARRAY:
            said = "a column is encoded as DELTA_BYTE_ARRAY; write it plain or as a dictionary"
            raise WrongType([Problem("unsupported-media-type", said, column=names[page.column])])


def _checked_size(batch: pa.RecordBatch, before: int, limits: Limits) -> int:
    """Bytes that the batch takes, each text counted as often as rows repeat it. Raises BadData."""
    size = 0
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not _is_text(column.type):
            size += column.nbytes
            continue
        lengths = pc.binary_length(_checked_texts(column, name))
        if pa.types.is_dictionary(column.type):
            lengths = lengths.take(column.indices)
        if (pc.max(lengths).as_py() or 0) > limits.cell_bytes:
            row = before + pc.index(pc.greater(lengths, limits.cell_bytes), True).as_py() + 1
            raise BadData([Problem("out-of-range", f"is longer than {limits.cell_bytes} bytes", row, name)])
        size += OFFSET * len(column) + TEXT_COPIES * (pc.sum(lengths).as_py() or 0)
    return size


def _checked_texts(column: pa.Array, name: str) -> pa.Array:
    """The texts of a column, or of its dictionary. Raises BadData."""
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    try:
        texts = texts.cast(pa.string())
        texts.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        raise BadData([Problem("invalid-encoding", "is not UTF-8", column=name)]) from None
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise BadData([Problem("invalid-encoding", "a text holds NUL", column=name)])
    return texts


def as_text(table: pa.Table) -> pa.Table:
    """Every column as text; what is missing is null."""
    return pa.Table.from_arrays([column_as_text(column) for column in table.columns], table.column_names)


def column_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers, dates and truth values as CSV writes them. Raises BadData."""
    if pa.types.is_string(column.type):
        return column
    try:
        if pa.types.is_timestamp(column.type):
            column = pc.strftime(column, "%Y-%m-%d")
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadData([Problem("invalid-type", "a column holds what is no text, number, date or truth value")]) from error

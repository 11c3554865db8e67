"""Read Parquet files as record batches, within size limits that are checked before decoding."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.schema.data_errors import BadData, Malformed, Problem, TooLarge, WrongType, check_names
from podium.schema.reading import Finding
from podium.tables.parquet_pages import Footer, footer_bytes
from podium.tables.size_limits import OFFSET_BYTES, TEXT_COPIES, Limits

MAX_PAGES = 50_000
MAX_FIXED_BYTES = 64
"""Maximum size of a fixed-length value in bytes; decimals take at most 32."""
DELTA_BYTE_ARRAY = 7
BATCH_ROWS = 1 << 16
UNSUPPORTED = "has a type other than text, number, date or boolean"
Check = Callable[[Sequence[str]], None]
"""Check the column names. Raises BadData."""


def parquet_batches(
    data: bytes | mmap.mmap, limits: Limits, check: Check, required: Collection[str], findings: list[Finding]
) -> Iterator[pa.RecordBatch]:
    """Yield batches with the stored types; strings may be dictionary-encoded. Raises BadData.

    Columns of lists, structures and other types that are no single value are left out, unless they are `required`.
    """
    try:
        yield from _batches(memoryview(data), limits, check, required, findings)
    except (pa.ArrowException, UnicodeDecodeError, OSError, ValueError, LookupError, OverflowError) as error:
        raise Malformed([Problem("parquet-malformed", "the Parquet file is damaged or truncated; write it again")]) from error


def _batches(
    data: memoryview, limits: Limits, check: Check, required: Collection[str], findings: list[Finding]
) -> Iterator[pa.RecordBatch]:
    length = footer_bytes(data)
    if length > limits.footer_bytes:
        raise _too_large(f"the footer has {length} bytes", f"at most {limits.footer_bytes}")
    footer = Footer.of(data)
    source = pa.BufferReader(pa.py_buffer(data))
    metadata = pq.ParquetFile(source).metadata  # do not read its row groups: damaged ones crash the process; use `footer`
    schema, left_out = _checked_schema(metadata, max(metadata.num_rows, footer.rows), limits, check, required)
    findings += [Finding(name, "left out: it holds lists, structures or bytes instead of single values") for name in left_out]
    leaves = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if not max(metadata.num_rows, footer.rows):
        raise BadData([Problem("empty-input", "the table has no rows")])
    _check_pages(data, footer, leaves, set(schema.names), limits)
    texts = [field.name for field in schema if _is_text(field.type)]
    file = pq.ParquetFile(source, metadata=metadata, read_dictionary=texts, pre_buffer=False)
    rows = size = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=schema.names, use_threads=False):
        rows += batch.num_rows
        size += _checked_size(batch, rows - batch.num_rows, limits)
        if size > limits.decoded_bytes or rows > limits.rows:
            raise _too_large("the decoded table is too large", f"at most {limits.decoded_bytes} bytes")
        if batch.num_rows:
            yield batch
    if not rows:
        raise BadData([Problem("empty-input", "the table has no rows")])


def _too_large(message: str, expected: str) -> TooLarge:
    return TooLarge([Problem("too-large", message, expected=f"{expected}; send fewer rows at a time")])


def _checked_schema(
    metadata: pq.FileMetaData, rows: int, limits: Limits, check: Check, required: Collection[str]
) -> tuple[pa.Schema, list[str]]:
    """Return the columns to read and the names of the others. Raises BadData, also for tables that are too large."""
    if metadata.num_columns > limits.columns:
        raise TooLarge(
            [Problem("too-many-columns", f"the table has {metadata.num_columns} columns", expected=f"at most {limits.columns}")]
        )
    if rows > limits.rows:
        raise TooLarge([Problem("too-many-rows", f"the table has {rows} rows", expected=f"at most {limits.rows}")])
    schema = metadata.schema.to_arrow_schema()
    if len(set(schema.names)) < len(schema.names):
        raise BadData([Problem("csv-header", "two columns have the same name")])
    check_names(schema.names)
    check(schema.names)
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    too_long = {leaf.path.split(".")[0] for leaf in leaves if (leaf.length or 0) > MAX_FIXED_BYTES or leaf.max_repetition_level}
    left_out = [field.name for field in schema if not _is_supported(field.type) or field.name in too_long]
    if unsupported := [name for name in left_out if name in required]:
        raise BadData([Problem("invalid-type", UNSUPPORTED, column=name) for name in unsupported])
    schema = pa.schema([field for field in schema if field.name not in left_out])
    if not len(schema):
        raise BadData([Problem("invalid-type", f"every column {UNSUPPORTED}")])
    if rows * sum(_fixed_bytes(field.type) for field in schema) > limits.decoded_bytes:
        raise _too_large(f"the table has {rows} rows of {len(schema)} columns", f"at most {limits.decoded_bytes} decoded bytes")
    return schema, left_out


def _is_supported(kind: pa.DataType) -> bool:
    """Return whether values of this type can be cast to text that the CSV rules accept."""
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
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        is_kind(value_type)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _fixed_bytes(kind: pa.DataType) -> int:
    """Return the size of a value in bytes, excluding the characters of strings."""
    return OFFSET_BYTES if _is_text(kind) or pa.types.is_null(kind) else max(1, kind.bit_width // 8)


def _check_pages(data: memoryview, footer: Footer, leaves: Sequence[str], names: set[str], limits: Limits) -> None:
    """Check the pages of the columns to read before they are decompressed.

    Raises TooLarge, or WrongType for an encoding of unpredictable size.
    """
    size = 0
    for count, page in enumerate(footer.pages(data)):
        is_read = leaves[page.column] in names
        size += page.decompressed_bytes if is_read else 0
        if count > MAX_PAGES or size > limits.decoded_bytes:
            raise _too_large("the decoded table is too large", f"at most {limits.decoded_bytes} bytes")
        if is_read and page.encoding == DELTA_BYTE_ARRAY:
            message = "has the encoding DELTA_BYTE_ARRAY; write it as PLAIN or RLE_DICTIONARY"
            raise WrongType([Problem("unsupported-media-type", message, column=leaves[page.column])])


def _checked_size(batch: pa.RecordBatch, before: int, limits: Limits) -> int:
    """Return the size of the batch in bytes, counting repeated strings in every row. Raises BadData."""
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
        size += OFFSET_BYTES * len(column) + TEXT_COPIES * (pc.sum(lengths).as_py() or 0)
    return size


def _checked_texts(column: pa.Array, name: str) -> pa.Array:
    """Return the strings in a column or in its dictionary. Raises BadData."""
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    try:
        texts = texts.cast(pa.string())
        texts.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        raise BadData([Problem("invalid-encoding", "is not UTF-8", column=name)]) from None
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise BadData([Problem("invalid-encoding", "contains NUL", column=name)])
    return texts


def as_text(table: pa.Table) -> pa.Table:
    """Return every column as text; missing values are null."""
    return pa.Table.from_arrays([column_as_text(column) for column in table.columns], table.column_names)


def column_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers, dates and booleans as text, as in CSV. Raises BadData."""
    if pa.types.is_string(column.type):
        return column
    try:
        if pa.types.is_timestamp(column.type):
            return _timestamps_as_text(column)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadData([Problem("invalid-type", f"a column {UNSUPPORTED}")]) from error


def _timestamps_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ISO dates if all times are midnight, else ISO timestamps, in UTC if the column has a time zone."""
    if column.type.tz:
        column = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.timestamp(column.type.unit))
    days = column.cast(pa.date32(), safe=False)
    is_midnight = pc.equal(days.cast(pa.timestamp(column.type.unit)), column)
    if pc.all(is_midnight).as_py() is not False:
        return days.cast(pa.string())
    try:
        column = column.cast(pa.timestamp("s"))
    except pa.ArrowInvalid:
        column = column.cast(pa.timestamp("us"), safe=False)
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%S")

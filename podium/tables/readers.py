"""Read CSV, gzip and Parquet files as tables; the pipeline and the service share this reader."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import mmap
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from podium.schema.data_errors import MAX_REPORTED, BadData, Malformed, Problem, TooLarge, WrongType, check_names
from podium.tables.parquet import Check, as_text, parquet_batches
from podium.tables.parquet_pages import MAGIC
from podium.tables.size_limits import FILE, OFFSET_BYTES, TRAINING, Limits

BOM = b"\xef\xbb\xbf"
UNSUPPORTED_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "gzip",
    MAGIC: "Parquet inside gzip",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
HEADER_BYTES = 1 << 22
BLOCK_BYTES = 1 << 24
"""Bytes of text parsed at a time; no row may be longer."""


def accept_all(names: Sequence[str]) -> None:
    """Accept any column names."""


def read_table(data: bytes, *, gzipped: bool = False, delimiter: str = ",", limits: Limits = TRAINING) -> pa.Table:
    """Read a table as text; an empty cell is "" in CSV and null in Parquet.

    Parquet is recognized by its first bytes; gzip is decompressed only if `gzipped`. Raises BadData with all problems in
    the header and the row lengths.
    """
    return as_text(read_typed(data, gzipped=gzipped, delimiter=delimiter, limits=limits))


def read_typed(
    data: bytes, *, gzipped: bool = False, delimiter: str = ",", limits: Limits = TRAINING, check: Check = accept_all
) -> pa.Table:
    """Read a table like `read_table`, but keep Parquet types. `check` is called with the column names before rows are read."""
    if data.startswith(MAGIC) and not gzipped:
        return pa.Table.from_batches(list(parquet_batches(data, limits, check)))
    return read_csv(data, delimiter, gzipped=gzipped, limits=limits, check=check)


def read_csv(
    data: bytes, delimiter: str = ",", *, gzipped: bool = False, limits: Limits = TRAINING, check: Check = accept_all
) -> pa.Table:
    """Read delimited UTF-8 text with a header row. Raises BadData."""
    with _open(io.BytesIO(data), gzipped) as stream:
        names = _read_names(stream, delimiter, limits, check)
        source = stream if gzipped else pa.BufferReader(data)
        return pa.Table.from_batches(list(_csv_batches(source, names, delimiter, limits, BLOCK_BYTES)))


def read_in_pieces(
    path: Path,
    *,
    gzipped: bool = False,
    delimiter: str = ",",
    chunk_bytes: int = 8 << 20,
    limits: Limits = FILE,
    check: Check = accept_all,
) -> Iterator[pa.Table]:
    """Yield a file as text tables of about `chunk_bytes`, so that memory use does not grow with file size. Raises BadData."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC and not gzipped:
            for batch in parquet_batches(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), limits, check):
                yield from map(as_text, _split(pa.Table.from_batches([batch]), chunk_bytes))
            return
        file.seek(0)
        with _open(file, gzipped) as stream:
            names = _read_names(stream, delimiter, limits, check)
            for batch in _csv_batches(stream, names, delimiter, limits, chunk_bytes):
                yield pa.Table.from_batches([batch])


def _split(table: pa.Table, size: int) -> Iterator[pa.Table]:
    """Halve the table repeatedly until each part takes at most `size` bytes as text."""
    if table.num_rows < 2 or _text_bytes(table) <= size:
        yield table
    else:
        half = table.num_rows // 2
        yield from _split(table.slice(0, half), size)
        yield from _split(table.slice(half), size)


def _text_bytes(table: pa.Table) -> int:
    encoded = [column for column in table.columns if pa.types.is_dictionary(column.type)]
    lengths = [
        pc.sum(pc.binary_length(chunk.dictionary.cast(pa.string())).take(chunk.indices)).as_py() or 0
        for column in encoded
        for chunk in column.chunks
    ]
    return sum(lengths) + sum(column.nbytes for column in table.columns if column not in encoded)


@contextmanager
def _open(file: IO[bytes], gzipped: bool) -> Iterator[Any]:
    if not gzipped:
        yield file
        return
    try:
        with gzip.open(file) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Malformed([Problem("gzip-malformed", "the file is not gzip or is truncated")]) from error


def _too_large(max_bytes: int) -> TooLarge:
    expected = f"at most {max_bytes} decoded bytes; send fewer rows at a time"
    return TooLarge([Problem("too-large", "the decoded table is too large", expected=expected)])


def _csv_batches(source: Any, names: list[str], delimiter: str, limits: Limits, block: int) -> Iterator[pa.RecordBatch]:
    invalid_rows: list[Problem] = []
    rows = 0
    try:
        reader = pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block),
            parse_options=_parse_options(delimiter, invalid_rows),
            convert_options=_all_text(names),
        )
        if reader.schema.names != names:
            raise BadData([Problem("csv-header", "the first row is not a header, or is too long")])
        for batch in reader:
            if len(invalid_rows) >= MAX_REPORTED:
                break
            rows += batch.num_rows
            if rows > limits.rows:
                raise TooLarge(
                    [Problem("too-many-rows", f"the table has at least {rows} rows", expected=f"at most {limits.rows}")]
                )
            _check_cell_sizes(batch, rows - batch.num_rows, limits)
            if batch.num_rows and not invalid_rows:
                yield batch
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise BadData([Problem("out-of-range", f"a row is longer than {block} bytes")]) from error
        raise BadData(
            [Problem("csv-quote", "a quoted cell is not closed or is not UTF-8, or a row cannot be split")]
        ) from error
    if invalid_rows:
        raise BadData(invalid_rows)
    if not rows:
        raise BadData([Problem("empty-input", "the file has a header but no rows")])


def _check_cell_sizes(batch: pa.RecordBatch, before: int, limits: Limits) -> None:
    """Check the length of every cell. Raises BadData."""
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        if cells.nbytes <= limits.cell_bytes:
            continue
        lengths = pc.binary_length(cells)
        if (pc.max(lengths).as_py() or 0) > limits.cell_bytes:
            row = before + pc.index(pc.greater(lengths, limits.cell_bytes), True).as_py() + 1
            raise BadData([Problem("out-of-range", f"is longer than {limits.cell_bytes} bytes", row, name)])


def _parse_options(delimiter: str, problems: list[Problem]) -> pacsv.ParseOptions:
    """Return options that skip rows of the wrong length and append a problem for each."""

    def report(row: pacsv.InvalidRow) -> str:
        number = row.number - 1 if row.number else None
        if len(problems) < MAX_REPORTED:
            message = f"has {row.actual_columns} cells instead of {row.expected_columns}"
            problems.append(Problem("csv-row-length", message, number, None, f"{row.expected_columns} cells"))
        return "skip"

    return pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=report)


def _all_text(names: list[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=False, quoted_strings_can_be_null=False
    )


def _read_names(stream: IO[bytes], delimiter: str, limits: Limits, check: Check) -> list[str]:
    """Return the column names, after checking the whole text, and rewind the stream. Raises BadData."""
    names = _parse_header(stream.read(HEADER_BYTES), delimiter, limits, check)
    stream.seek(0)
    _check_text(stream, delimiter, limits)
    stream.seek(0)
    return names


def _check_text(stream: IO[bytes], delimiter: str, limits: Limits) -> None:
    """Check the encoding, quotes and size of the whole text without keeping it in memory. Raises BadData."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = cells = quotes = 0
    while chunk := stream.read(1 << 20):
        if b"\0" in chunk:
            raise _not_text(size + chunk.index(0), "NUL")
        start = size - len(decoder.getstate()[0])
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _not_text(start + error.start, "not UTF-8") from None
        size += len(chunk)
        cells += chunk.count(delimiter.encode()) + max(chunk.count(b"\n"), chunk.count(b"\r"))
        quotes += chunk.count(b'"')
        if size + OFFSET_BYTES * cells > limits.decoded_bytes:
            raise _too_large(limits.decoded_bytes)
    if pending := decoder.getstate()[0]:
        raise _not_text(size - len(pending), "not UTF-8")
    if quotes % 2:
        raise BadData([Problem("csv-quote", "a quoted cell is not closed")])


def _not_text(position: int, description: str) -> BadData:
    return BadData([Problem("invalid-encoding", f"byte {position} is {description}", expected="UTF-8 text")])


def _parse_header(head: bytes, delimiter: str, limits: Limits, check: Check) -> list[str]:
    """Return the column names. Raises BadData for an invalid header."""
    for magic, name in UNSUPPORTED_FORMATS.items():
        if head.startswith(magic):
            raise WrongType([Problem("unsupported-media-type", f"the file is {name}; send CSV in UTF-8 or Parquet")])
    if not head.strip():
        raise BadData([Problem("empty-input", "the file is empty")])
    try:
        lines = io.StringIO(head.removeprefix(BOM).decode(errors="ignore"), newline=None)
        names = next(row for row in csv.reader(lines, delimiter=delimiter) if row)
    except (csv.Error, StopIteration) as error:
        raise BadData([Problem("csv-header", "the first row is not a header")]) from error
    if len(names) == 1:
        for mark, name in DELIMITERS.items():
            if mark in names[0]:
                raise BadData([Problem("csv-delimiter", f"the cells seem to be separated by a {name}", expected="comma")])
    if len(names) > limits.columns:
        raise TooLarge(
            [Problem("too-many-columns", f"the table has {len(names)} columns", expected=f"at most {limits.columns}")]
        )
    problems = [
        Problem("csv-header", "has an empty name, or a name with surrounding whitespace", column=f"#{position}")
        for position, name in enumerate(names, 1)
        if not name or name != name.strip()
    ]
    seen: set[str] = set()
    for position, name in enumerate(names, 1):
        if name in seen:
            problems.append(Problem("csv-header", "has the same name as an earlier column", column=f"#{position}"))
        seen.add(name)
    if problems:
        raise BadData(problems)
    check_names(names)
    check(names)
    return names

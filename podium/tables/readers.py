"""CSV, gzip or Parquet bytes to a table of text columns: one reader for the pipeline and for the service."""

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
from podium.tables.size_limits import FILE, OFFSET, TRAINING, Limits

BOM = b"\xef\xbb\xbf"
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a workbook",
    b"\x1f\x8b": "gzip",
    MAGIC: "Parquet inside gzip",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
HEADER_BYTES = 1 << 22
BLOCK = 1 << 24
"""Bytes of text that are parsed at a time; no row may be longer."""


def any_names(names: Sequence[str]) -> None:
    """Take every column."""


def read_table(data: bytes, *, gzipped: bool = False, delimiter: str = ",", limits: Limits = TRAINING) -> pa.Table:
    """Read a table as text, an empty cell being "" in CSV and null in Parquet.

    Parquet is known by its first bytes; gzip is opened only when `gzipped` says so. Raises BadData with every problem found
    in the header and in the lengths of the rows.
    """
    return as_text(read_typed(data, gzipped=gzipped, delimiter=delimiter, limits=limits))


def read_typed(
    data: bytes, *, gzipped: bool = False, delimiter: str = ",", limits: Limits = TRAINING, check: Check = any_names
) -> pa.Table:
    """The same, but columns of Parquet keep their types; `check` sees the column names before a row is read."""
    if data.startswith(MAGIC) and not gzipped:
        return pa.Table.from_batches(list(parquet_batches(data, limits, check)))
    return read_csv(data, delimiter, gzipped=gzipped, limits=limits, check=check)


def read_csv(
    data: bytes, delimiter: str = ",", *, gzipped: bool = False, limits: Limits = TRAINING, check: Check = any_names
) -> pa.Table:
    """Read separated UTF-8 with a header line; raises BadData."""
    with _opened(io.BytesIO(data), gzipped) as stream:
        names = _checked(stream, delimiter, limits, check)
        source = stream if gzipped else pa.BufferReader(data)
        return pa.Table.from_batches(list(_csv_batches(source, names, delimiter, limits, BLOCK)))


def read_in_pieces(
    path: Path,
    *,
    gzipped: bool = False,
    delimiter: str = ",",
    piece: int = 8 << 20,
    limits: Limits = FILE,
    check: Check = any_names,
) -> Iterator[pa.Table]:
    """A table on disk as tables of some `piece` bytes of text each, so that memory does not grow with it. Raises BadData."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC and not gzipped:
            for batch in parquet_batches(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), limits, check):
                yield from map(as_text, _split(pa.Table.from_batches([batch]), piece))
            return
        file.seek(0)
        with _opened(file, gzipped) as stream:
            names = _checked(stream, delimiter, limits, check)
            for batch in _csv_batches(stream, names, delimiter, limits, piece):
                yield pa.Table.from_batches([batch])


def _split(table: pa.Table, size: int) -> Iterator[pa.Table]:
    """Halves, and halves of them, until each takes at most `size` bytes as text."""
    if table.num_rows < 2 or _text_bytes(table) <= size:
        yield table
    else:
        half = table.num_rows // 2
        yield from _split(table.slice(0, half), size)
        yield from _split(table.slice(half), size)


def _text_bytes(table: pa.Table) -> int:
    repeated = [column for column in table.columns if pa.types.is_dictionary(column.type)]
    lengths = [
        pc.sum(pc.binary_length(chunk.dictionary.cast(pa.string())).take(chunk.indices)).as_py() or 0
        for column in repeated
        for chunk in column.chunks
    ]
    return sum(lengths) + sum(column.nbytes for column in table.columns if column not in repeated)


@contextmanager
def _opened(file: IO[bytes], gzipped: bool) -> Iterator[Any]:
    if not gzipped:
        yield file
        return
    try:
        with gzip.open(file) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Malformed([Problem("gzip-malformed", "the file is no gzip or is cut off")]) from error


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        [Problem("too-large", "the table is over the limit", expected=f"at most {most} bytes decoded; send less at a time")]
    )


def _csv_batches(source: Any, names: list[str], delimiter: str, limits: Limits, block: int) -> Iterator[pa.RecordBatch]:
    wrong: list[Problem] = []
    rows = 0
    try:
        reader = pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block),
            parse_options=_parse_options(delimiter, wrong),
            convert_options=_all_text(names),
        )
        if reader.schema.names != names:
            raise BadData([Problem("csv-header", "the first line is no header, or is too long")])
        for batch in reader:
            if len(wrong) >= MAX_REPORTED:
                break
            rows += batch.num_rows
            if rows > limits.rows:
                raise TooLarge([Problem("too-many-rows", f"has {rows} rows or more", expected=f"at most {limits.rows}")])
            _check_cells(batch, rows - batch.num_rows, limits)
            if batch.num_rows and not wrong:
                yield batch
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise BadData([Problem("out-of-range", f"a row is longer than {block} bytes")]) from error
        raise BadData([Problem("csv-quote", "a quoted cell is not closed, is no UTF-8, or a row cannot be split")]) from error
    if wrong:
        raise BadData(wrong)
    if not rows:
        raise BadData([Problem("empty-input", "there is a header but no row")])


def _check_cells(batch: pa.RecordBatch, before: int, limits: Limits) -> None:
    """Raises BadData for a cell that is too long."""
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        if cells.nbytes <= limits.cell_bytes:
            continue
        lengths = pc.binary_length(cells)
        if (pc.max(lengths).as_py() or 0) > limits.cell_bytes:
            row = before + pc.index(pc.greater(lengths, limits.cell_bytes), True).as_py() + 1
            raise BadData([Problem("out-of-range", f"is longer than {limits.cell_bytes} bytes", row, name)])


def _parse_options(delimiter: str, wrong: list[Problem]) -> pacsv.ParseOptions:
    """Rows of another length are noted in `wrong`."""

    def note(row: pacsv.InvalidRow) -> str:
        number = row.number - 1 if row.number else None
        if len(wrong) < MAX_REPORTED:
            wrong.append(
                Problem("csv-row-length", f"has {row.actual_columns} cells", number, None, f"{row.expected_columns} cells")
            )
        return "skip"

    return pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note)


def _all_text(names: list[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=False, quoted_strings_can_be_null=False
    )


def _checked(stream: IO[bytes], delimiter: str, limits: Limits, check: Check) -> list[str]:
    """The column names, after a look at all of the text; the stream is at its beginning again. Raises BadData."""
    names = _header(stream.read(HEADER_BYTES), delimiter, limits, check)
    stream.seek(0)
    _check_text(stream, delimiter, limits)
    stream.seek(0)
    return names


def _check_text(stream: IO[bytes], delimiter: str, limits: Limits) -> None:
    """Read all of it once and keep nothing. Raises BadData."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = cells = quotes = 0
    while part := stream.read(1 << 20):
        if b"\0" in part:
            raise _not_text(size + part.index(0), "NUL")
        start = size - len(decoder.getstate()[0])
        try:
            decoder.decode(part)
        except UnicodeDecodeError as error:
            raise _not_text(start + error.start, "not UTF-8") from None
        size += len(part)
        cells += part.count(delimiter.encode()) + max(part.count(b"\n"), part.count(b"\r"))
        quotes += part.count(b'"')
        if size + OFFSET * cells > limits.decoded_bytes:
            raise _too_large(limits.decoded_bytes)
    if pending := decoder.getstate()[0]:
        raise _not_text(size - len(pending), "not UTF-8")
    if quotes % 2:
        raise BadData([Problem("csv-quote", "a quoted cell is not closed")])


def _not_text(place: int, said: str) -> BadData:
    return BadData([Problem("invalid-encoding", f"byte {place} is {said}", expected="UTF-8 text")])


def _header(head: bytes, delimiter: str, limits: Limits, check: Check) -> list[str]:
    """The column names, checked. Raises BadData."""
    for magic, name in FOREIGN.items():
        if head.startswith(magic):
            raise WrongType([Problem("unsupported-media-type", f"this is {name}; send CSV in UTF-8 or Parquet")])
    if not head.strip():
        raise BadData([Problem("empty-input", "there is nothing in the file")])
    try:
        lines = io.StringIO(head.removeprefix(BOM).decode(errors="ignore"), newline=None)
        first = next(row for row in csv.reader(lines, delimiter=delimiter) if row)
    except (csv.Error, StopIteration) as error:
        raise BadData([Problem("csv-header", "the first line is no header")]) from error
    if len(first) == 1:
        for mark, name in DELIMITERS.items():
            if mark in first[0]:
                raise BadData([Problem("csv-delimiter", f"the cells seem to be separated by {name}", expected="comma")])
    if len(first) > limits.columns:
        raise TooLarge([Problem("too-many-columns", f"has {len(first)} columns", expected=f"at most {limits.columns}")])
    problems = [
        Problem("csv-header", "column name is empty or padded with blanks", column=f"#{place}")
        for place, name in enumerate(first, 1)
        if not name or name != name.strip()
    ]
    seen: set[str] = set()
    for place, name in enumerate(first, 1):
        if name in seen:
            problems.append(Problem("csv-header", "column name comes twice", column=f"#{place}"))
        seen.add(name)
    if problems:
        raise BadData(problems)
    check_names(first)
    check(first)
    return first

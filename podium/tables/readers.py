"""Read CSV, gzip and Parquet files as tables; the pipeline and the service share this reader."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import mmap
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from podium.schema.data_errors import MAX_REPORTED, BadData, Malformed, Problem, TooLarge, WrongType, check_names
from podium.schema.reading import DEFAULT_READING, Finding, Reading, counted
from podium.tables.csv_header import DEFAULT_HEADER, Header, HeaderOptions, find_header
from podium.tables.parquet import Check, as_text, parquet_batches
from podium.tables.parquet_pages import MAGIC
from podium.tables.size_limits import FILE, OFFSET_BYTES, TRAINING, Limits, too_large
from podium.tables.text_encoding import as_utf8

GZIP = b"\x1f\x8b"
UNSUPPORTED_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    GZIP: "gzip without the ending .gz",
    MAGIC: "Parquet inside gzip",
}
JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{\s*\"|\[\s*[\[{])")
HTML = re.compile(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)")
FORMAT_BYTES = 1_000
HEADER_BYTES = 1 << 22
BLOCK_BYTES = 1 << 24
"""Bytes of text parsed at a time; no row may be longer."""
NO_HEADER = (
    "the first row looks like data; set reading.names to the names of the columns, or reading.skip_rows = 0 if it is a header"
)
MAX_FOOTER, MAX_SHOWN_TEXT = 5, 40
"""Maximum number of rows after the table, such as totals and sources, and of the characters that are shown of one."""


def accept_all(names: Sequence[str]) -> None:
    """Accept any column names."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file. `known` are names of columns that the table should have: they show the header and the delimiter.

    Gzip is decompressed only if `gzipped`; in training, if the file begins like it. In training, comment lines and short rows
    after the table are left out and reported; a file whose last line is not ended may be cut off and has no such rows.
    `check` is called with the column names before rows are read.
    """

    gzipped: bool = False
    header: HeaderOptions = DEFAULT_HEADER
    limits: Limits = TRAINING
    check: Check = accept_all
    is_training: bool = False


DEFAULT_OPTIONS = ReadOptions()


@dataclass(slots=True)
class SourceTable:
    """A table as text, how it was read, and what was noticed."""

    table: pa.Table
    reading: Reading = DEFAULT_READING
    findings: list[Finding] = field(default_factory=list)


def read_source(data: bytes, options: ReadOptions = DEFAULT_OPTIONS) -> SourceTable:
    """Read a table as text; an empty cell is "" in CSV and null in Parquet. Raises BadData.

    Parquet is recognized by its first bytes. Raises BadData with all problems in the header and the row lengths.
    """
    source = _read(data, options)
    source.table = as_text(source.table)
    return source


def read_table(data: bytes, options: ReadOptions = DEFAULT_OPTIONS) -> pa.Table:
    """Return the table of `read_source`."""
    return read_source(data, options).table


def read_typed(data: bytes, options: ReadOptions = DEFAULT_OPTIONS) -> pa.Table:
    """Read a table like `read_table`, but keep Parquet types."""
    return _read(data, options).table


def _read(data: bytes, options: ReadOptions) -> SourceTable:
    if options.is_training:
        options = replace(options, gzipped=data.startswith(GZIP))
    if data.startswith(MAGIC) and not options.gzipped:
        findings: list[Finding] = []
        batches = parquet_batches(data, options.limits, options.check, options.header.known, findings)
        return SourceTable(pa.Table.from_batches(list(batches)), findings=findings)
    with _open_text(io.BytesIO(data), options) as text:
        table = pa.Table.from_batches(list(text.batches(BLOCK_BYTES)))
        return SourceTable(table, text.reading, text.findings)


def read_in_pieces(
    path: Path, options: ReadOptions = ReadOptions(limits=FILE), chunk_bytes: int = 8 << 20
) -> Iterator[pa.Table]:
    """Yield a file as text tables of about `chunk_bytes`, so that memory use does not grow with file size. Raises BadData."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC and not options.gzipped:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for batch in parquet_batches(data, options.limits, options.check, options.header.known, []):
                yield from map(as_text, _split(pa.Table.from_batches([batch]), chunk_bytes))
            return
        file.seek(0)
        with _open_text(file, options) as text:
            for batch in text.batches(chunk_bytes):
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
def _open_text(file: IO[bytes], options: ReadOptions) -> Iterator[_TextTable]:
    """Open a text table: decompress it, convert it to UTF-8 and read its header. Raises BadData."""
    try:
        with gzip.open(file) if options.gzipped else nullcontext(file) as stream:
            _check_format(stream.read(FORMAT_BYTES))
            with as_utf8(stream, options.header.reading.encoding, options.limits) as (text, encoding):
                yield _TextTable.of(text, encoding, options)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Malformed([Problem("gzip-malformed", "the file is not gzip or is truncated; compress it again")]) from error


def _check_format(start: bytes) -> None:
    name = next((name for magic, name in UNSUPPORTED_FORMATS.items() if start.startswith(magic)), None)
    name = name or ("JSON" if JSON.match(start) else "HTML or XML" if HTML.match(start) else None)
    if name:
        raise WrongType([Problem("unsupported-media-type", f"the file is {name}; send CSV or Parquet")])


@dataclass(slots=True)
class _TextTable:
    """An open text table, whose header was read."""

    stream: Any
    header: Header
    options: ReadOptions
    reading: Reading
    findings: list[Finding]
    may_have_footer: bool

    @classmethod
    def of(cls, stream: Any, encoding: str, options: ReadOptions) -> _TextTable:
        """Read the header, after checking the size of the text. Raises BadData."""
        header = find_header(stream.read(HEADER_BYTES).decode(errors="ignore"), options.header, options.limits.columns)
        if options.is_training and header.looks_like_data:
            raise BadData([Problem("csv-header", NO_HEADER)])
        _check_names(header.names, options)
        stream.seek(0)
        ends = _check_size(stream, header.delimiter, options.limits)
        reading = replace(options.header.reading, encoding=encoding, delimiter=header.delimiter)
        return cls(stream, header, options, reading, list(header.findings), may_have_footer=options.is_training and ends)

    def batches(self, block: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows. Raises BadData with the rows of wrong length."""
        names, limits, rows, invalid = self.header.names, self.options.limits, 0, _InvalidRows(self.header, self._comment)
        self.stream.seek(0)
        try:
            reader = pacsv.open_csv(
                self.stream,
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=block, column_names=names, skip_rows=self.header.lines
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=self.header.delimiter, newlines_in_values=True, invalid_row_handler=invalid.add
                ),
                convert_options=_all_text(names),
            )
            for batch in reader:
                batch = self._without_comments(batch)
                rows += batch.num_rows
                if rows > limits.rows:
                    message = f"the table has at least {rows} rows"
                    raise TooLarge([Problem("too-many-rows", message, expected=f"at most {limits.rows}")])
                _check_cell_sizes(batch, rows - batch.num_rows, limits)
                if batch.num_rows and (self.may_have_footer or not invalid.problems):
                    yield batch
        except pa.ArrowInvalid as error:
            if len(invalid.problems) == MAX_REPORTED:
                raise BadData(invalid.problems) from None
            if "straddling" in str(error):
                raise BadData([Problem("out-of-range", f"a row is longer than {block} bytes")]) from error
            if "Empty CSV file" not in str(error):
                raise BadData(
                    [Problem("csv-quote", "a quoted cell is not closed or is not UTF-8, or a row cannot be split")]
                ) from error
        self._report(invalid, rows)

    @property
    def _comment(self) -> str:
        """The character at the start of lines that are no rows; only if set, or in training, where they are reported."""
        return self.reading.comment or ("#" if self.options.is_training else "")

    def _without_comments(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self.reading.comment or not batch.num_columns:
            return batch
        return batch.filter(pc.invert(pc.starts_with(batch.column(0), self.reading.comment)))

    def _report(self, invalid: _InvalidRows, rows: int) -> None:
        """Report rows of wrong length, unless they are comments or follow the table. Raises BadData."""
        problems = invalid.problems
        is_footer = self.may_have_footer and invalid.are_short and len(problems) <= MAX_FOOTER
        if problems and is_footer and (problems[0].row or 0) > rows:
            message = f"{counted(len(problems), 'row')} after the table left out, with fewer cells: {'; '.join(invalid.texts)}"
            self.findings.append(Finding("", message))
        elif problems:
            raise BadData(problems)
        if invalid.comments:
            self.findings.append(Finding("", f"{counted(invalid.comments, 'comment line')} skipped"))
        if not rows:
            raise BadData([Problem("empty-input", "the file has a header but no rows")])


@dataclass(slots=True)
class _InvalidRows:
    """Collects the rows with the wrong number of cells."""

    header: Header
    comment: str
    problems: list[Problem] = field(default_factory=list)
    comments: int = 0
    are_short: bool = True
    texts: list[str] = field(default_factory=list)

    def add(self, row: pacsv.InvalidRow) -> str:
        is_short = row.actual_columns < row.expected_columns
        if self.comment and is_short and row.text.lstrip().startswith(self.comment):
            self.comments += 1
        elif len(self.problems) == MAX_REPORTED:
            return "error"  # stop, because a call for each of a million rows takes seconds
        else:
            number = row.number - self.header.lines if row.number else None
            message = f"has {row.actual_columns} cells instead of {row.expected_columns}"
            self.problems.append(Problem("csv-row-length", message, number, None, f"{row.expected_columns} cells"))
            self.are_short &= is_short
            self.texts.append(row.text[:MAX_SHOWN_TEXT])
        return "skip"


def _check_cell_sizes(batch: pa.RecordBatch, before: int, limits: Limits) -> None:
    """Check the length of every cell. Raises BadData."""
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        if cells.nbytes <= limits.cell_bytes:
            continue
        lengths = pc.binary_length(cells)
        if (pc.max(lengths).as_py() or 0) > limits.cell_bytes:
            row = before + pc.index(pc.greater(lengths, limits.cell_bytes), True).as_py() + 1
            raise BadData([Problem("out-of-range", f"is longer than {limits.cell_bytes} bytes", row, name)])


def _all_text(names: list[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=False, quoted_strings_can_be_null=False
    )


def _check_size(stream: IO[bytes], delimiter: str, limits: Limits) -> bool:
    """Check the size of the decoded text and that its quotes are closed, and return whether it ends its last line.

    Raises BadData.
    """
    end = b""
    size = cells = quotes = 0
    while chunk := stream.read(1 << 20):
        size, end = size + len(chunk), chunk[-1:]
        cells += chunk.count(delimiter.encode()) + max(chunk.count(b"\n"), chunk.count(b"\r"))
        quotes += chunk.count(b'"')
        if size + OFFSET_BYTES * cells > limits.decoded_bytes:
            raise too_large(limits.decoded_bytes)
    if quotes % 2:
        _check_closed_quotes(stream, delimiter)
    return end in (b"\n", b"\r")


def _check_closed_quotes(stream: IO[bytes], delimiter: str) -> None:
    """Raise BadData if a quoted cell is not closed; a quote inside an unquoted cell, such as 5", is text."""
    stream.seek(0)
    text, end, line = io.TextIOWrapper(stream, encoding="utf-8", newline=""), ["the end of the text"], 0
    try:
        reader = csv.reader(itertools.chain(text, ["\n", *end]), delimiter=delimiter)
        for cells in reader:
            last, start, line = cells, line, reader.line_num
        is_closed = last == end
    except csv.Error:
        start, is_closed = line, False
    finally:
        text.detach()
    if not is_closed:
        raise BadData([Problem("csv-quote", f"a quoted cell that begins in line {start + 1} is not closed")])


def _check_names(names: Sequence[str], options: ReadOptions) -> None:
    """Raise BadData for invalid names."""
    check_names(names)
    options.check(names)

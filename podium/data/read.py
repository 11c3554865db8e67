"""CSV, gzip or Parquet bytes to a table of text columns: one reader for the pipeline and for the service."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from podium.data.problems import MOST_REPORTED, BadData, Malformed, Problem, TooLarge, WrongType

PARQUET, BOM = b"PAR1", b"\xef\xbb\xbf"
FOREIGN = {b"PK\x03\x04": "a zip archive or a workbook", b"\x1f\x8b": "gzip", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MOST_COLUMNS = 10_000
LONGEST_CELL = 1 << 20


def read_table(
    data: bytes, *, gzipped: bool = False, delimiter: str = ",", most_bytes: int = 1 << 32, most_rows: int = 1 << 40
) -> pa.Table:
    """Read a table as text, an empty cell being "" in CSV and null in Parquet.

    Parquet is known by its first bytes; gzip is opened only when `gzipped` says so. The limits hold for what comes out of
    a packed form. Raises BadData with every problem found in the header and in the lengths of the rows.
    """
    if gzipped:
        data = _gunzip(data, most_bytes)
    if data.startswith(PARQUET):
        return _as_text(_parquet(data, most_bytes, most_rows))
    for magic, name in FOREIGN.items():
        if data.startswith(magic):
            raise WrongType([Problem("unsupported-media-type", f"this is {name}; send CSV in UTF-8 or Parquet")])
    return read_csv(data, delimiter)


def read_csv(data: bytes, delimiter: str = ",") -> pa.Table:
    """Read separated UTF-8 with a header line; raises BadData."""
    text = data.removeprefix(BOM)
    _check_text(text)
    names = _header(text, delimiter)
    wrong: list[Problem] = []
    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=max(1 << 20, min(len(text), 1 << 28))),
            parse_options=_parse_options(delimiter, wrong),
            convert_options=_all_text(names),
        )
    except pa.ArrowInvalid as error:
        raise BadData([Problem("csv-quote", "a quoted cell is not closed or a row cannot be split")]) from error
    if wrong:
        raise BadData(wrong)
    if table.num_rows == 0:
        raise BadData([Problem("empty-input", "there is a header but no row")])
    return table


def read_in_pieces(path: Path, *, gzipped: bool = False, delimiter: str = ",", piece: int = 8 << 20) -> Iterator[pa.Table]:
    """A table on disk as tables of some `piece` bytes of text each, so that memory does not grow with it. Raises BadData."""
    with path.open("rb") as file:
        if file.read(len(PARQUET)) == PARQUET and not gzipped:
            yield from _parquet_in_pieces(path)
            return
    with gzip.open(path) if gzipped else path.open("rb") as stream:
        try:
            yield from _csv_in_pieces(stream, delimiter, piece)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Malformed([Problem("gzip-malformed", "the file is no gzip or is cut off")]) from error


def _csv_in_pieces(stream: Any, delimiter: str, piece: int) -> Iterator[pa.Table]:
    head = stream.read(min(piece, 1 << 22))
    for magic, name in FOREIGN.items():
        if head.startswith(magic):
            raise WrongType([Problem("unsupported-media-type", f"this is {name}; send CSV in UTF-8 or Parquet")])
    if not head.strip():
        raise BadData([Problem("empty-input", "there is nothing in the file")])
    names = _header(head.removeprefix(BOM), delimiter)
    stream.seek(len(BOM) if head.startswith(BOM) else 0)
    wrong: list[Problem] = []
    rows = 0
    try:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=piece),
            parse_options=_parse_options(delimiter, wrong),
            convert_options=_all_text(names),
        )
        for batch in reader:
            if wrong:
                raise BadData(wrong)
            if batch.num_rows:
                rows += batch.num_rows
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise BadData([Problem("csv-quote", "a quoted cell is not closed, is no UTF-8, or a row cannot be split")]) from error
    if wrong:
        raise BadData(wrong)
    if not rows:
        raise BadData([Problem("empty-input", "there is a header but no row")])


def _parquet_in_pieces(path: Path) -> Iterator[pa.Table]:
    try:
        file = pq.ParquetFile(path)
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names) or len(file.schema_arrow.names) > MOST_COLUMNS:
            raise BadData([Problem("csv-header", "a column name comes twice, or there are too many")])
        if not file.metadata.num_rows:
            raise BadData([Problem("empty-input", "there is no row")])
        for batch in file.iter_batches(batch_size=100_000):
            yield _as_text(pa.Table.from_batches([batch]))
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise Malformed([Problem("parquet-malformed", "the file is damaged or cut off")]) from error


def _parse_options(delimiter: str, wrong: list[Problem]) -> pacsv.ParseOptions:
    """Rows of another length are noted in `wrong`."""

    def note(row: pacsv.InvalidRow) -> str:
        number = row.number - 1 if row.number else None
        if len(wrong) < MOST_REPORTED:
            wrong.append(
                Problem("csv-row-length", f"has {row.actual_columns} cells", number, None, f"{row.expected_columns} cells")
            )
        return "skip"

    return pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note)


def _all_text(names: list[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=False, quoted_strings_can_be_null=False
    )


def _check_text(text: bytes) -> None:
    if not text.strip():
        raise BadData([Problem("empty-input", "there is nothing in the file")])
    if b"\0" in text:
        raise BadData([Problem("invalid-encoding", f"byte {text.index(0)} is NUL", expected="UTF-8 text")])
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise BadData([Problem("invalid-encoding", f"byte {error.start} is not UTF-8", expected="UTF-8 text")]) from None
    if text.count(b'"') % 2:
        raise BadData([Problem("csv-quote", "a quoted cell is not closed")])


def _header(text: bytes, delimiter: str) -> list[str]:
    """The column names, checked."""
    try:
        lines = io.StringIO(text[: 1 << 22].decode(errors="ignore"), newline=None)
        first = next(row for row in csv.reader(lines, delimiter=delimiter) if row)
    except (csv.Error, StopIteration) as error:
        raise BadData([Problem("csv-header", "the first line is no header")]) from error
    if len(first) > MOST_COLUMNS:
        raise TooLarge([Problem("too-many-columns", f"has {len(first)} columns", expected=f"at most {MOST_COLUMNS}")])
    if len(first) == 1:
        for mark, name in DELIMITERS.items():
            if mark in first[0]:
                raise BadData([Problem("csv-delimiter", f"the cells seem to be separated by {name}", expected="comma")])
    problems = [
        Problem("csv-header", "column name is empty or padded with blanks", column=f"#{place}")
        for place, name in enumerate(first, 1)
        if not name or name != name.strip()
    ]
    problems += [
        Problem("csv-header", "column name comes twice", column=f"#{i + 1}") for i, n in enumerate(first) if n in first[:i]
    ]
    if problems:
        raise BadData(problems)
    return first


def _parquet(data: bytes, most_bytes: int, most_rows: int) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        facts = file.metadata
        size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        if facts.num_rows > most_rows or size > most_bytes or facts.num_columns > MOST_COLUMNS:
            limits = f"at most {most_rows} rows, {MOST_COLUMNS} columns, {most_bytes} bytes unpacked"
            raise TooLarge(
                [Problem("too-many-rows", f"has {facts.num_rows} rows of {facts.num_columns} columns", expected=limits)]
            )
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
            raise BadData([Problem("csv-header", "a column name comes twice")])
        table = file.read()
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise Malformed([Problem("parquet-malformed", "the file is damaged or cut off")]) from error
    if table.num_rows == 0:
        raise BadData([Problem("empty-input", "there is no row")])
    return table


def _as_text(table: pa.Table) -> pa.Table:
    try:
        return pa.table({name: _column_as_text(table[name]) for name in table.column_names})
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadData([Problem("invalid-type", "a column holds what is no text, number, date or truth value")]) from error


def _column_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, "%Y-%m-%d")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    text = column.cast(pa.string())
    text.validate(full=True)
    if pc.any(pc.match_substring(text, "\0")).as_py():
        raise BadData([Problem("invalid-encoding", "a text holds NUL")])
    return text


def _gunzip(data: bytes, most: int) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            text = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Malformed([Problem("gzip-malformed", "the file is no gzip or is cut off")]) from error
    if len(text) > most:
        raise TooLarge([Problem("too-large", "the unpacked file is over the limit", expected=f"at most {most} bytes")])
    return text

"""Read the page sizes of a Parquet file from the page headers, before any page is decompressed.

Readers allocate memory by the sizes in the page headers, which may differ from those in the footer.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from podium.tables.thrift import I32, I64, Fields, Reader, integer, structure, structures

MAGIC = b"PAR1"
ROW_GROUPS, COLUMNS, ROWS, META_DATA = 4, 1, 3, 3
CHUNK_VALUES, CHUNK_BYTES, DATA_OFFSET, DICTIONARY_OFFSET = 5, 7, 9, 11
TYPE, DECOMPRESSED, COMPRESSED, VALUES = 1, 2, 3, 1
DICTIONARY, SKIPPED = 2, -1
PAGE_HEADERS = {0: (5, 2), DICTIONARY: (7, 2), 3: (8, 4)}
"""Maps each page type to the field ID of its header and, within the header, the field ID of its encoding."""
PADDING = 100
"""Some writers understate the size of a column by up to this many bytes; readers tolerate that."""


def footer_bytes(data: memoryview) -> int:
    """Return the length of the footer. Raises ValueError if there is no footer."""
    length = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != MAGIC or length > len(data) - 12:
        raise ValueError("the footer is missing")
    return length


@dataclass(frozen=True, slots=True)
class Page:
    """A page as described by its header; `column` is the index of its column."""

    column: int
    decompressed_bytes: int
    encoding: int


@dataclass(frozen=True, slots=True)
class Footer:
    """The row groups of a footer, which locate the pages."""

    row_groups: list[Fields]

    @classmethod
    def of(cls, data: memoryview) -> Footer:
        """Parse the footer of a file. Raises ValueError."""
        return cls(structures(Reader(data[-8 - footer_bytes(data) : -8]).struct(), ROW_GROUPS))

    @property
    def rows(self) -> int:
        """Return the number of rows. Raises ValueError."""
        return sum(integer(group, ROWS, I64) for group in self.row_groups)

    def pages(self, data: memoryview) -> Iterator[Page]:
        """Yield the pages of all columns. Raises ValueError."""
        chunks = [
            (column, structure(chunk, META_DATA))
            for group in self.row_groups
            for column, chunk in enumerate(structures(group, COLUMNS))
        ]
        end = 0
        for start, size in sorted((_start(chunk), integer(chunk, CHUNK_BYTES, I64)) for _, chunk in chunks):
            if start < end:
                raise ValueError("the pages of two columns overlap")
            end = start + size
        for column, chunk in chunks:
            yield from _pages(data, column, chunk)


def _pages(data: memoryview, column: int, chunk: Fields) -> Iterator[Page]:
    """Yield the pages of a column in a row group until all its values are covered. Raises ValueError."""
    position = _start(chunk)
    end = min(len(data), position + integer(chunk, CHUNK_BYTES, I64) + PADDING)
    values = integer(chunk, CHUNK_VALUES, I64)
    while position < end and values > 0:
        reader = Reader(data[position:end])
        header = reader.struct()
        position += reader.position + integer(header, COMPRESSED, I32)
        kind, decompressed_bytes = integer(header, TYPE, I32), integer(header, DECOMPRESSED, I32)
        if kind not in PAGE_HEADERS:
            yield Page(column, 0, SKIPPED)  # readers skip unknown types too; yielded so that it counts as a page
            continue
        header_field, encoding = PAGE_HEADERS[kind]
        page = structure(header, header_field)
        values -= 0 if kind == DICTIONARY else integer(page, VALUES, I32)
        yield Page(column, decompressed_bytes, integer(page, encoding, I32))


def _start(chunk: Fields) -> int:
    """Return the offset of a column's first page. Raises ValueError."""
    offset = integer(chunk, DATA_OFFSET, I64)
    if DICTIONARY_OFFSET in chunk:
        offset = min(offset, integer(chunk, DICTIONARY_OFFSET, I64) or offset)
    if offset < len(MAGIC):
        raise ValueError("a column begins outside the file")
    return offset

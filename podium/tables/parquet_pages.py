"""What the pages of a Parquet file unpack to, by their headers, before any is unpacked.

A footer may state any size; the reader allocates what the headers of the pages state.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from podium.tables.thrift import I32, I64, Fields, Reader, integer, structure, structures

MAGIC = b"PAR1"
ROW_GROUPS, COLUMNS, ROWS, META_DATA = 4, 1, 3, 3
CHUNK_VALUES, CHUNK_BYTES, DATA_OFFSET, DICTIONARY_OFFSET = 5, 7, 9, 11
TYPE, UNPACKED, PACKED, VALUES = 1, 2, 3, 1
DICTIONARY, SKIPPED = 2, -1
KINDS = {0: (5, 2), DICTIONARY: (7, 2), 3: (8, 4)}
"""For each type of page, the field of its own header, and the field of its encoding within that."""
PADDING = 100
"""Bytes by which some writers understate the size of a column; readers allow for them."""


def footer_bytes(data: memoryview) -> int:
    """Raises ValueError where there is no footer."""
    length = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != MAGIC or length > len(data) - 12:
        raise ValueError("the footer is missing")
    return length


@dataclass(frozen=True, slots=True)
class Page:
    """A page as its header describes it; `column` is the place of its column."""

    column: int
    unpacked: int
    encoding: int


@dataclass(frozen=True, slots=True)
class Footer:
    """The part of a footer that says where pages are."""

    row_groups: list[Fields]

    @classmethod
    def of(cls, data: memoryview) -> Footer:
        """Raises ValueError."""
        return cls(structures(Reader(data[-8 - footer_bytes(data) : -8]).struct(), ROW_GROUPS))

    @property
    def rows(self) -> int:
        """Raises ValueError."""
        return sum(integer(group, ROWS, I64) for group in self.row_groups)

    def pages(self, data: memoryview) -> Iterator[Page]:
        """Raises ValueError."""
        chunks = [
            (column, structure(chunk, META_DATA))
            for group in self.row_groups
            for column, chunk in enumerate(structures(group, COLUMNS))
        ]
        end = 0
        for start, size in sorted((_start(chunk), integer(chunk, CHUNK_BYTES, I64)) for _, chunk in chunks):
            if start < end:
                raise ValueError("two columns share their pages")
            end = start + size
        for column, chunk in chunks:
            yield from _pages(data, column, chunk)


def _pages(data: memoryview, column: int, chunk: Fields) -> Iterator[Page]:
    """Every page of a column in a row group, until they hold all its values. Raises ValueError."""
    place = _start(chunk)
    end = min(len(data), place + integer(chunk, CHUNK_BYTES, I64) + PADDING)
    values = integer(chunk, CHUNK_VALUES, I64)
    while place < end and values > 0:
        reader = Reader(data[place:end])
        header = reader.struct()
        place += reader.place + integer(header, PACKED, I32)
        kind, unpacked = integer(header, TYPE, I32), integer(header, UNPACKED, I32)
        if kind not in KINDS:
            yield Page(column, 0, SKIPPED)  # as readers do, but it is counted
            continue
        own, encoding = KINDS[kind]
        page = structure(header, own)
        values -= 0 if kind == DICTIONARY else integer(page, VALUES, I32)
        yield Page(column, unpacked, integer(page, encoding, I32))


def _start(chunk: Fields) -> int:
    """Where the pages of a column begin. Raises ValueError."""
    place = integer(chunk, DATA_OFFSET, I64)
    if DICTIONARY_OFFSET in chunk:
        place = min(place, integer(chunk, DICTIONARY_OFFSET, I64) or place)
    if place < len(MAGIC):
        raise ValueError("a column begins outside the file")
    return place

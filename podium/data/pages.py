"""The headers of the pages of a Parquet column: what each page unpacks to, before any is unpacked.

A footer may state any size; the reader allocates what the page headers state. They are structures of Thrift's compact
protocol: https://github.com/apache/parquet-format and https://github.com/apache/thrift/blob/master/doc/specs
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 4
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12
TYPE, UNPACKED, PACKED, VALUES = 1, 2, 3, 1
DICTIONARY = 2
KINDS = {0: (5, 2), DICTIONARY: (7, 2), 3: (8, 4)}
"""For each type of page, the field of its own header, and the field of its encoding within that."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page as its header describes it."""

    unpacked: int
    values: int
    encoding: int
    is_dictionary: bool


def pages(data: memoryview, start: int, end: int, values: int) -> Iterator[Page]:
    """The pages of a column chunk, until they hold all its values. Raises ValueError for what is no page header."""
    seen = 0
    while start < end and seen < values:
        reader = _Reader(data[start:end])
        header = reader.struct()
        packed, unpacked, kind = (header.get(field) for field in (PACKED, UNPACKED, TYPE))
        if packed is None or unpacked is None or packed < 0 or unpacked < 0:
            raise ValueError("the header of a page has no size")
        start += reader.place + packed
        if kind not in KINDS:
            continue  # readers skip such pages
        own, encoding = KINDS[kind]
        page = header.get(own) or {}
        seen += 0 if kind == DICTIONARY else page.get(VALUES) or 0
        yield Page(unpacked, page.get(VALUES) or 0, page.get(encoding) or 0, kind == DICTIONARY)


class _Reader:
    """Reads one structure from the beginning of some bytes."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field numbers and values; raises ValueError."""
        if depth > MAX_DEPTH:
            raise ValueError("the header of a page is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            if number in fields:
                raise ValueError("the header of a page names a field twice")
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            number = self._integer()
            return number if kind == I32 else None  # readers pass over a size of another type
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind not in (BYTE, DOUBLE, BINARY):
            raise ValueError("the header of a page has a field of an unknown type")
        length = {BYTE: 1, DOUBLE: 8}.get(kind) or self._varint()
        self.place += length
        return None

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while shift < 64:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise ValueError("a number in the header of a page does not end")

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise ValueError("the header of a page is cut off")
        self.place += 1
        return self._data[self.place - 1]

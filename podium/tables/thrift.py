"""Structures of Thrift's compact protocol, as Parquet writes them.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
SIZES = {TRUE: 1, FALSE: 1, BYTE: 1, DOUBLE: 8}
"""Bytes of the elements of a list."""
MAX_DEPTH = 12
Fields = dict[int, tuple[int, Any]]
"""For each field its type and value; texts and numbers that no size is made of are None."""


def integer(fields: Fields, number: int, kind: int) -> int:
    """A field of this type and not below zero. Raises ValueError; readers pass over a field of another type."""
    found, value = fields.get(number, (0, None))
    if found != kind or value < 0:
        raise ValueError("a size is missing or below zero")
    return int(value)


def structure(fields: Fields, number: int) -> Fields:
    """Raises ValueError."""
    found, value = fields.get(number, (0, None))
    if found != STRUCT:
        raise ValueError("a structure is missing")
    made: Fields = value
    return made


def structures(fields: Fields, number: int) -> list[Fields]:
    """A list of structures. Raises ValueError."""
    found, value = fields.get(number, (0, None))
    if found != LIST or value is None:
        raise ValueError("a list of structures is missing")
    made: list[Fields] = value
    return made


class Reader:
    """Reads one structure from the beginning of some bytes; `place` is where it ends."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int = 0) -> Fields:
        """Raises ValueError."""
        if depth > MAX_DEPTH:
            raise ValueError("a structure is nested too deep")
        fields: Fields = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            if number in fields:
                raise ValueError("a structure names a field twice")
            fields[number] = kind, self._field(kind, depth)
        return fields

    def _field(self, kind: int, depth: int) -> Any:
        return None if kind in (TRUE, FALSE) else self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (I16, I32, I64):
            return self._integer()
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            return self._list(depth + 1)
        length = self._varint() if kind == BINARY else SIZES.get(kind)
        if length is None:
            raise ValueError("a structure has a field of an unknown type")
        self.place += length
        return None

    def _list(self, depth: int) -> list[Fields] | None:
        if depth > MAX_DEPTH:
            raise ValueError("a structure is nested too deep")
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == 15 else size
        if kind == STRUCT:
            return [self.struct(depth + 1) for _ in range(size)]
        for _ in range(size):
            self._value(kind, depth + 1)
            if self.place > len(self._data):
                break
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
        raise ValueError("a number does not end")

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise ValueError("a structure is cut off")
        self.place += 1
        return self._data[self.place - 1]

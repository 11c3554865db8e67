"""Reader for Thrift's compact protocol, limited to what Parquet uses.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
SIZES = {TRUE: 1, FALSE: 1, BYTE: 1, DOUBLE: 8}
"""Sizes of fixed-size values in bytes."""
MAX_DEPTH = 12
Fields = dict[int, tuple[int, Any]]
"""Maps field IDs to type and value. Values other than integers, structures and lists of structures are None."""


def integer(fields: Fields, number: int, kind: int) -> int:
    """Return a non-negative integer field. Raises ValueError if it is missing, negative or of another type."""
    field_type, value = fields.get(number, (0, None))
    if field_type != kind or value < 0:
        raise ValueError("a size is missing or negative")
    return int(value)


def structure(fields: Fields, number: int) -> Fields:
    """Return a structure field. Raises ValueError if it is missing."""
    field_type, value = fields.get(number, (0, None))
    if field_type != STRUCT:
        raise ValueError("a structure is missing")
    result: Fields = value
    return result


def structures(fields: Fields, number: int) -> list[Fields]:
    """Return a list of structures. Raises ValueError if it is missing."""
    field_type, value = fields.get(number, (0, None))
    if field_type != LIST or value is None:
        raise ValueError("a list of structures is missing")
    result: list[Fields] = value
    return result


class Reader:
    """Reads one structure from the start of `data`; `position` is the offset after the last byte read."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.position = data, 0

    def struct(self, depth: int = 0) -> Fields:
        """Return the fields of the structure. Raises ValueError."""
        if depth > MAX_DEPTH:
            raise ValueError("a structure is nested too deeply")
        fields: Fields = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            if number in fields:
                raise ValueError("a structure has a duplicate field")
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
        self.position += length
        return None

    def _list(self, depth: int) -> list[Fields] | None:
        if depth > MAX_DEPTH:
            raise ValueError("a structure is nested too deeply")
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == 15 else size
        if kind == STRUCT:
            return [self.struct(depth + 1) for _ in range(size)]
        for _ in range(size):
            self._value(kind, depth + 1)
            if self.position > len(self._data):
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
        raise ValueError("an integer has too many bytes")

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("a structure is cut off")
        self.position += 1
        return self._data[self.position - 1]

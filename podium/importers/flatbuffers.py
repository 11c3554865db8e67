"""Read FlatBuffers (flatbuffers.dev, "FlatBuffer Internals") within the bounds of their bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

MAX_REPEATS = 16
"""How often the bytes may be read on average: tables may be shared, but a small file must not become a large model."""


class FlatBuffer:
    """The bytes of one buffer, and the number of bytes that may still be read. Reading raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, MAX_REPEATS * len(data) + 1024

    def root(self) -> FlatTable:
        return FlatTable(self, self.number("I", 0))

    def number(self, kind: str, position: int) -> Any:
        """Return a number of a `struct` format."""
        return struct.unpack("<" + kind, self.bytes(position, struct.calcsize("<" + kind)))[0]

    def bytes(self, position: int, size: int) -> bytes:
        self._left -= size
        if not 0 <= position <= position + size <= len(self._data) or self._left < 0:
            raise ValueError("the buffer is damaged")
        return self._data[position : position + size]

    def target(self, position: int) -> int:
        """Return the position to which the offset at a position leads."""
        return position + int(self.number("I", position))


class FlatTable:
    """A table, whose fields are read by their index in the schema. Absent fields are empty, or have a default."""

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        self._buffer, self._position = buffer, position
        self._fields = position - int(buffer.number("i", position))

    def _field(self, index: int) -> int | None:
        """Return the position of a field, or None if it is absent."""
        entry = 4 + 2 * index
        if entry + 2 > self._buffer.number("H", self._fields):
            return None
        offset = int(self._buffer.number("H", self._fields + entry))
        return self._position + offset if offset else None

    def number(self, index: int, kind: str, default: Any = 0) -> Any:
        position = self._field(index)
        return default if position is None else self._buffer.number(kind, position)

    def table(self, index: int) -> FlatTable:
        position = self._field(index)
        if position is None:
            raise ValueError("a table is missing")
        return FlatTable(self._buffer, self._buffer.target(position))

    def array(self, index: int, dtype: Any) -> np.ndarray:
        """Return a vector of numbers or of structs."""
        position = self._field(index)
        if position is None:
            return np.zeros(0, dtype)
        start = self._buffer.target(position)
        size = int(self._buffer.number("I", start)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._buffer.bytes(start + 4, size), dtype)

    def text(self, index: int) -> str:
        return self.array(index, "u1").tobytes().decode()

    def _targets(self, index: int) -> list[int]:
        position = self._field(index)
        offsets = self.array(index, "<u4").tolist()
        start = 0 if position is None else self._buffer.target(position) + 4
        return [start + 4 * number + offset for number, offset in enumerate(offsets)]

    def tables(self, index: int) -> list[FlatTable]:
        return [FlatTable(self._buffer, target) for target in self._targets(index)]

    def texts(self, index: int) -> list[str]:
        lengths = [(target, int(self._buffer.number("I", target))) for target in self._targets(index)]
        return [self._buffer.bytes(target + 4, length).decode() for target, length in lengths]

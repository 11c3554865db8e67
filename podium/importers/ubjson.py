"""Read Universal Binary JSON (ubjson.org, draft 12), as XGBoost writes it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

MAX_DEPTH = 50
NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
CONSTANTS = {b"Z": None, b"T": True, b"F": False}


def read_ubjson(data: bytes) -> Any:
    """Return objects, lists, texts and numbers; arrays of one type are numpy arrays. Raises ValueError."""
    reader = _Reader(data)
    try:
        return reader.value(reader.take(1), 0)
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("the binary JSON is damaged") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._position = memoryview(data), 0

    def take(self, count: int) -> bytes:
        """Return the next bytes. Raises ValueError at the end."""
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise ValueError("the binary JSON ends early")
        part = bytes(self._data[self._position : end])
        self._position = end
        return part

    def value(self, marker: bytes, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("the binary JSON is nested too deeply")
        if marker in NUMBERS:
            return np.frombuffer(self.take(np.dtype(NUMBERS[marker]).itemsize), NUMBERS[marker])[0].item()
        if marker in CONSTANTS:
            return CONSTANTS[marker]
        if marker == b"S":
            return self._text()
        if marker == b"C":
            return self.take(1).decode()
        if marker == b"[":
            return self._array(depth)
        if marker == b"{":
            return self._object(depth)
        raise ValueError("the binary JSON has an unknown type")

    def _text(self) -> str:
        return self.take(self._length()).decode()

    def _length(self) -> int:
        length = self.value(self.take(1), 0)
        if not isinstance(length, int) or isinstance(length, bool):
            raise ValueError("the binary JSON has an invalid length")
        return length

    def _skips(self, marker: bytes) -> bool:
        """Skip a marker if it comes next."""
        if bytes(self._data[self._position : self._position + 1]) != marker:
            return False
        self._position += 1
        return True

    def _header(self) -> tuple[bytes | None, int | None]:
        """Return the type and the number of the items, if they are given."""
        kind = count = None
        if self._skips(b"$"):
            kind = self.take(1)
        if self._skips(b"#"):
            count = self._length()
        if (kind is not None and count is None) or (count is not None and not 0 <= count <= len(self._data)):
            raise ValueError("the binary JSON has an invalid length")
        return kind, count

    def _array(self, depth: int) -> Any:
        kind, count = self._header()
        if kind in NUMBERS and count is not None:
            dtype = np.dtype(NUMBERS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).astype(dtype.newbyteorder("="))
        items: list[Any] = []
        while count is None or len(items) < count:
            marker = kind or self.take(1)
            if marker == b"]" and count is None:
                break
            items.append(self.value(marker, depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        kind, count = self._header()
        result: dict[str, Any] = {}
        read = 0
        while count is None or read < count:
            if count is None and self._skips(b"}"):
                break
            name = self._text()
            result[name] = self.value(kind or self.take(1), depth + 1)
            read += 1
        return result

"""One tensor of the Open Inference Protocol: its checks, and its cells as JSON or as bytes.

Bytes follow the binary tensor data extension: numbers little-endian and row by row, each BYTES element after its length in
four bytes.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.schema.data_errors import BadData, Problem, TooLarge

DTYPES = {
    "BOOL": "u1",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
NUMBERS = DTYPES.keys() - {"BOOL"}
LENGTH = struct.Struct("<I")
MAX_NAME = 200
"""Longer names of tensors are cut off in messages."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of one or two dimensions, checked but for its cells."""

    name: str
    datatype: str
    rows: int
    width: int
    data: list[Any] | memoryview

    def cells(self) -> list[Any]:
        """The values row by row, None for NaN. Raises BadData."""
        cells = self._flat(self.data) if isinstance(self.data, list) else self._decoded(self.data)
        return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]

    def _flat(self, data: list[Any]) -> list[Any]:
        """Values that come flat, or one list a row."""
        if any(isinstance(cell, list) for cell in data):
            if len(data) != self.rows or not all(isinstance(row, list) and len(row) == self.width for row in data):
                raise wrong(self.name, "wrong-length", "`data` is not nested as `shape` says")
            data = [cell for row in data for cell in row]
        if len(data) != self.rows * self.width or any(isinstance(cell, list) for cell in data):
            raise wrong(self.name, "wrong-length", "`data` has not as many values as `shape` says")
        return data

    def _decoded(self, data: memoryview) -> list[Any]:
        count = self.rows * self.width
        if self.datatype == "BYTES":
            return self._texts(data, count)
        dtype = np.dtype(DTYPES[self.datatype])
        if len(data) != count * dtype.itemsize:
            raise wrong(self.name, "wrong-length", "`binary_data_size` is not that of its shape and datatype")
        cells = np.frombuffer(data, dtype)
        if self.datatype == "BOOL":
            if (cells > 1).any():
                raise wrong(self.name, "invalid-type", "a BOOL element must be the byte 0 or 1")
            cells = cells.astype(bool)
        return cells.tolist()

    def _texts(self, data: memoryview, count: int) -> list[str]:
        texts, place = [], 0
        try:
            for _ in range(count):
                (size,) = LENGTH.unpack_from(data, place)
                place += LENGTH.size + size
                if place > len(data):
                    break
                texts.append(str(data[place - size : place], "utf-8"))
        except struct.error:
            place = -1
        except UnicodeDecodeError:
            raise wrong(self.name, "invalid-encoding", "a BYTES element is not UTF-8") from None
        if place != len(data):
            raise wrong(self.name, "wrong-length", "the lengths of its BYTES elements do not add up to `binary_data_size`")
        return texts


def parse_tensors(listed: Any, binary: memoryview, max_tensors: int, max_rows: int) -> list[Tensor]:
    """The `inputs` of a request; `binary` holds the bytes of the binary ones in order. Raises BadData."""
    if not isinstance(listed, list) or not listed:
        raise BadData([Problem("invalid-type", "needs `inputs`, a list of tensors")])
    if len(listed) > max_tensors:
        raise BadData([Problem("too-many-fields", f"has {len(listed)} tensors", expected=f"at most {max_tensors}")])
    tensors, place = [], 0
    for each in listed:
        tensor = _parse_tensor(each, binary[place:], max_rows)
        tensors.append(tensor)
        place += len(tensor.data) if isinstance(tensor.data, memoryview) else 0
    if place != len(binary):
        raise BadData([Problem("wrong-length", "the body has more bytes than the tensors' `binary_data_size` say")])
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BadData([Problem("duplicate-field", "two tensors have the same name")])
    return tensors


def _parse_tensor(tensor: Any, binary: memoryview, max_rows: int) -> Tensor:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise BadData([Problem("invalid-type", "every tensor needs a `name`")])
    name, datatype = tensor["name"], tensor.get("datatype")
    if not isinstance(datatype, str) or (datatype not in DTYPES and datatype != "BYTES"):
        raise wrong(name, "invalid-type", "`datatype` is not one of the protocol", ", ".join([*DTYPES, "BYTES"]))
    rows, width = _shape(name, tensor.get("shape"), max_rows)
    return Tensor(name, datatype, rows, width, _data(name, tensor, binary))


def _shape(name: str, shape: Any, max_rows: int) -> tuple[int, int]:
    """Rows and width; [n] is as wide as [n, 1]."""
    if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(type(size) is int and size >= 0 for size in shape):
        raise wrong(name, "invalid-type", "`shape` must be a list of one or two whole numbers, not negative")
    rows, width = shape[0], shape[1] if len(shape) == 2 else 1
    if rows > max_rows:
        raise TooLarge([Problem("too-many-rows", "`shape` has too many rows", expected=f"at most {max_rows}")])
    return rows, width


def _data(name: str, tensor: Mapping[str, Any], binary: memoryview) -> list[Any] | memoryview:
    data, size = tensor.get("data"), parameters_of(tensor, name).get("binary_data_size")
    if size is None:
        if not isinstance(data, list):
            raise wrong(name, "invalid-type", "`data` must be a list")
        return data
    if data is not None:
        raise wrong(name, "invalid-type", "has both `data` and `binary_data_size`")
    if type(size) is not int or size < 0:
        raise wrong(name, "invalid-type", "`binary_data_size` must be a whole number, not negative")
    if size > len(binary):
        expected = "the JSON, whose length Inference-Header-Content-Length gives, then the bytes of the tensors in order"
        raise wrong(name, "wrong-length", "the body has fewer bytes than `binary_data_size` says", expected)
    return binary[:size]


def parameters_of(holder: Mapping[str, Any], name: str | None = None) -> Mapping[str, Any]:
    """The `parameters` of a request or a tensor; none and null are the same. Raises BadData."""
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise wrong(name, "invalid-type", "`parameters` must be an object")
    return parameters


def wrong(name: str | None, code: str, message: str, expected: str | None = None) -> BadData:
    return BadData([Problem(code, message, column=name and name[:MAX_NAME], expected=expected)])


def encoded(cells: Sequence[Any], datatype: str) -> bytes:
    """Cells as the bytes of a binary tensor; None is NaN."""
    if datatype == "BYTES":
        texts = [str(cell).encode() for cell in cells]
        return b"".join(LENGTH.pack(len(text)) + text for text in texts)
    return np.array(cells, DTYPES[datatype]).tobytes()

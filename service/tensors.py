"""Tensors of the Open Inference Protocol: validation, and conversion of their cells to and from JSON or bytes.

Bytes follow the binary tensor data extension: numbers are little-endian and row-major, and a BYTES element follows its
length in four bytes.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import base64
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
CONTENT_TYPES = ("", "str", "np", "pd", "datetime", "base64")
"""How cells are encoded; only base64 needs decoding. https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html"""
NUMBERS = DTYPES.keys() - {"BOOL"}
LENGTH = struct.Struct("<I")
MAX_NAME = 200
"""Longer tensor names are cut off in messages."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of one or two dimensions; `cells` validates its values."""

    name: str
    datatype: str
    rows: int
    width: int
    data: list[Any] | memoryview
    content_type: str = ""

    def cells(self) -> list[Any]:
        """Return the values in row-major order, with None for NaN. Raises BadData."""
        cells = self._cells_of_json(self.data) if isinstance(self.data, list) else self._cells_of_bytes(self.data)
        if self.content_type == "base64":
            return [self._decoded(cell) for cell in cells]
        return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]

    def _decoded(self, cell: Any) -> str | None:
        """Return the UTF-8 text of a base64 cell. Raises BadData."""
        if cell is None:
            return None
        try:
            return base64.b64decode(cell, validate=True).decode()
        except (ValueError, TypeError):
            raise tensor_error(self.name, "invalid-encoding", "has a cell that is not UTF-8 text in base64") from None

    def _cells_of_json(self, data: list[Any]) -> list[Any]:
        """Return the values of a flat list, or of one list per row."""
        if any(isinstance(cell, list) for cell in data):
            if len(data) != self.rows or not all(isinstance(row, list) and len(row) == self.width for row in data):
                raise tensor_error(self.name, "wrong-length", "the nesting of `data` does not match `shape`")
            data = [cell for row in data for cell in row]
        if len(data) != self.rows * self.width or any(isinstance(cell, list) for cell in data):
            raise tensor_error(self.name, "wrong-length", "the number of values in `data` does not match `shape`")
        return data

    def _cells_of_bytes(self, data: memoryview) -> list[Any]:
        count = self.rows * self.width
        if self.datatype == "BYTES":
            return self._texts(data, count)
        dtype = np.dtype(DTYPES[self.datatype])
        if len(data) != count * dtype.itemsize:
            raise tensor_error(self.name, "wrong-length", "`binary_data_size` does not match `shape` and `datatype`")
        cells = np.frombuffer(data, dtype)
        if self.datatype == "BOOL":
            if (cells > 1).any():
                raise tensor_error(self.name, "invalid-type", "a BOOL element must be the byte 0 or 1")
            cells = cells.astype(bool)
        return cells.tolist()

    def _texts(self, data: memoryview, count: int) -> list[str]:
        texts, end = [], 0
        try:
            for _ in range(count):
                (size,) = LENGTH.unpack_from(data, end)
                end += LENGTH.size + size
                if end > len(data):
                    break
                texts.append(str(data[end - size : end], "utf-8"))
        except struct.error:
            end = -1
        except UnicodeDecodeError:
            raise tensor_error(self.name, "invalid-encoding", "a BYTES element is not valid UTF-8") from None
        if end != len(data):
            raise tensor_error(self.name, "wrong-length", "the lengths of the BYTES elements do not match `binary_data_size`")
        return texts


def parse_tensors(inputs: Any, binary: memoryview, max_tensors: int, max_rows: int) -> list[Tensor]:
    """Parse the `inputs` of a request; `binary` holds the bytes of the binary tensors in order. Raises BadData."""
    if not isinstance(inputs, list) or not inputs:
        raise BadData([Problem("invalid-type", "needs `inputs`, a list of tensors")])
    if len(inputs) > max_tensors:
        raise BadData([Problem("too-many-fields", f"has {len(inputs)} tensors", expected=f"at most {max_tensors}")])
    tensors, offset = [], 0
    for item in inputs:
        tensor = _parse_tensor(item, binary[offset:], max_rows)
        tensors.append(tensor)
        offset += len(tensor.data) if isinstance(tensor.data, memoryview) else 0
    if offset != len(binary):
        raise BadData([Problem("wrong-length", "the body has more bytes than the sum of `binary_data_size`")])
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BadData([Problem("duplicate-field", "two tensors have the same name")])
    return tensors


def _parse_tensor(tensor: Any, binary: memoryview, max_rows: int) -> Tensor:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise BadData([Problem("invalid-type", "every tensor needs a `name`")])
    name, datatype = tensor["name"], tensor.get("datatype")
    if not isinstance(datatype, str) or (datatype not in DTYPES and datatype != "BYTES"):
        raise tensor_error(name, "invalid-type", "unknown `datatype`", ", ".join([*DTYPES, "BYTES"]))
    rows, width = _shape(name, tensor.get("shape"), max_rows)
    return Tensor(name, datatype, rows, width, _data(name, tensor, binary), _content_type(name, tensor, datatype))


def _content_type(name: str, tensor: Mapping[str, Any], datatype: str) -> str:
    """Return the content type, which says how the cells are encoded. Raises BadData for an unknown one."""
    content_type = parameters_of(tensor, name).get("content_type") or ""
    if content_type not in CONTENT_TYPES:
        known = ", ".join(filter(None, CONTENT_TYPES))
        raise tensor_error(name, "invalid-type", "has an unknown `content_type`", known)
    if content_type == "base64" and datatype != "BYTES":
        raise tensor_error(name, "invalid-type", "needs the datatype BYTES for the content type base64")
    return str(content_type)


def _shape(name: str, shape: Any, max_rows: int) -> tuple[int, int]:
    """Return rows and width; the shape [n] means [n, 1]."""
    if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(type(size) is int and size >= 0 for size in shape):
        raise tensor_error(name, "invalid-type", "`shape` must be a list of one or two non-negative integers")
    rows, width = shape[0], shape[1] if len(shape) == 2 else 1
    if rows > max_rows:
        raise TooLarge([Problem("too-many-rows", "`shape` has too many rows", expected=f"at most {max_rows}")])
    return rows, width


def _data(name: str, tensor: Mapping[str, Any], binary: memoryview) -> list[Any] | memoryview:
    data, size = tensor.get("data"), parameters_of(tensor, name).get("binary_data_size")
    if size is None:
        if not isinstance(data, list):
            raise tensor_error(name, "invalid-type", "`data` must be a list")
        return data
    if data is not None:
        raise tensor_error(name, "invalid-type", "has both `data` and `binary_data_size`")
    if type(size) is not int or size < 0:
        raise tensor_error(name, "invalid-type", "`binary_data_size` must be a non-negative integer")
    if size > len(binary):
        expected = "the JSON, its length in Inference-Header-Content-Length, then the bytes of the tensors in order"
        raise tensor_error(name, "wrong-length", "the body has fewer bytes than `binary_data_size`", expected)
    return binary[:size]


def parameters_of(container: Mapping[str, Any], name: str | None = None) -> Mapping[str, Any]:
    """Return the `parameters` of a request or a tensor; null means none. Raises BadData."""
    parameters = container.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise tensor_error(name, "invalid-type", "`parameters` must be an object")
    return parameters


def tensor_error(name: str | None, code: str, message: str, expected: str | None = None) -> BadData:
    return BadData([Problem(code, message, column=name and name[:MAX_NAME], expected=expected)])


def encode_cells(cells: Sequence[Any], datatype: str) -> bytes:
    """Return cells as the bytes of a binary tensor; None becomes NaN."""
    if datatype == "BYTES":
        texts = [str(cell).encode() for cell in cells]
        return b"".join(LENGTH.pack(len(text)) + text for text in texts)
    return np.array(cells, DTYPES[datatype]).tobytes()

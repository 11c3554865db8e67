"""The Open Inference Protocol, version 2: tensors to records, scores to tensors.

A table is one tensor a column, of the shape [n] or [n, 1]; a single tensor [n, columns] holds rows in training order.
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from podium.data.columns import Column, Signature
from podium.data.problems import BadData, Problem
from podium.model.encode import Matrix
from podium.model.model import answer
from service.answers import finite

NUMBERS = {
    *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    *(f"FP{bits}" for bits in (16, 32, 64)),
}
DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "date": "BYTES", "category": "BYTES"}
PREDICTION = "prediction"


def model_metadata(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """A model's tensors; -1 is the number of rows."""
    inputs = [_tensor(column.name, DATATYPES[column.kind]) for column in signature.asked]
    outputs = [_tensor(PREDICTION, _answer_type(signature))]
    outputs += [_tensor(f"probability_{label}", "FP64") for label in signature.target.classes]
    return {"name": name, "versions": [version], "platform": "podium", "inputs": inputs, "outputs": outputs}


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    content = {"parameters": {"content_type": "str"}} if datatype == "BYTES" else {}
    return {"name": name, "datatype": datatype, "shape": [-1, 1], **content}


def _answer_type(signature: Signature) -> str:
    classes = signature.target.classes
    if not classes:
        return "FP64"
    return "INT64" if all(isinstance(label, int) for label in classes) else "BYTES"


def records_of(body: Any, signature: Signature) -> list[dict[str, Any]]:
    """The rows of an inference request. Raises BadData."""
    if not isinstance(body, dict) or not isinstance(body.get("inputs"), list) or not body["inputs"]:
        raise BadData([Problem("invalid-type", "needs `inputs`, a list of tensors")])
    if not all(isinstance(tensor, dict) and isinstance(tensor.get("name"), str) for tensor in body["inputs"]):
        raise BadData([Problem("invalid-type", "every tensor needs a `name`")])
    names = [tensor["name"] for tensor in body["inputs"]]
    if len(set(names)) != len(names):
        raise BadData([Problem("duplicate-field", "two tensors have the same name")])
    known = {column.name: column for column in signature.asked}
    if len(names) == 1 and names[0] not in known and len(_shape(body["inputs"][0])) == 2:
        return _rows(body["inputs"][0], signature)
    columns = {tensor["name"]: _cells(tensor, known.get(tensor["name"])) for tensor in body["inputs"]}
    if len({len(cells) for cells in columns.values()}) > 1:
        raise BadData([Problem("wrong-length", "the tensors have different numbers of rows")])
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _shape(tensor: Mapping[str, Any]) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BadData([Problem("invalid-type", "`shape` must be a list of whole numbers", column=tensor["name"])])
    return shape


def _data(tensor: Mapping[str, Any]) -> list[Any]:
    """The values, row by row, in as many as the shape says. Raises BadData."""
    name, data = tensor["name"], tensor.get("data")
    if (tensor.get("parameters") or {}).get("binary_data_size") is not None:
        raise BadData([Problem("unsupported", "binary tensors are not taken: send the data as JSON", column=name)])
    if not isinstance(data, list):
        raise BadData([Problem("invalid-type", "`data` must be a list", column=name)])
    flat = [cell for row in data for cell in (row if isinstance(row, list) else [row])]
    if any(isinstance(cell, list) for cell in flat) or len(flat) != math.prod(_shape(tensor)):
        raise BadData([Problem("wrong-length", "`data` has not as many values as `shape` says", column=name)])
    return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in flat]


def _cells(tensor: Mapping[str, Any], column: Column | None) -> list[Any]:
    """One column. Raises BadData."""
    shape, kind = _shape(tensor), tensor.get("datatype")
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise BadData([Problem("wrong-length", "must have the shape [n] or [n, 1]", column=tensor["name"])])
    if kind not in NUMBERS and kind not in ("BOOL", "BYTES"):
        raise BadData([Problem("invalid-type", "has no datatype of the protocol", column=tensor["name"])])
    cells = _data(tensor)
    if column and kind in NUMBERS and column.kind == "boolean":
        return [bool(cell) if cell in (0, 1) else cell for cell in cells]
    return cells


def _rows(tensor: Mapping[str, Any], signature: Signature) -> list[dict[str, Any]]:
    count, width = _shape(tensor)
    if width != len(signature.names):
        expected = f"[n, {len(signature.names)}]"
        raise BadData([Problem("wrong-length", "is no column of this model", column=tensor["name"], expected=expected)])
    cells = _data(tensor)
    return [dict(zip(signature.names, cells[row * width : (row + 1) * width], strict=True)) for row in range(count)]


def wanted_outputs(body: Mapping[str, Any], signature: Signature) -> set[str]:
    """The names of the tensors that are asked for. Raises BadData."""
    known = {PREDICTION, *(f"probability_{label}" for label in signature.target.classes)}
    asked = body.get("outputs")
    if asked is None:
        return known
    names = [each.get("name") if isinstance(each, dict) else None for each in asked] if isinstance(asked, list) else [None]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadData([Problem("unknown-field", f"`outputs` names something else than {', '.join(sorted(known))}")])
    return {str(name) for name in names}


def outputs(scores: Matrix | Sequence[Sequence[float]], signature: Signature, wanted: set[str]) -> list[dict[str, Any]]:
    """The asked tensors, [n, 1] each."""
    matrix = np.asarray(scores, dtype=float)
    shape, target = [len(matrix), 1], signature.target
    tensors = [
        {
            **_tensor(PREDICTION, _answer_type(signature)),
            "shape": shape,
            "data": [finite(answer(row, target)) for row in matrix.tolist()],
        }
    ]
    for place, label in enumerate(target.classes):
        data = [finite(score) for score in matrix[:, place].tolist()]
        tensors.append({**_tensor(f"probability_{label}", "FP64"), "shape": shape, "data": data})
    return [tensor for tensor in tensors if tensor["name"] in wanted]

"""The Open Inference Protocol, version 2: convert tensors to records, and scores to tensors.

A table is one tensor per column, of shape [n] or [n, 1], or a single tensor [n, columns] with columns in training order.
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.models.model import predicted_label
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Signature
from podium.schema.data_errors import MAX_REPORTED, BadData, Malformed, Problem
from podium.tables.strict_json import decode_json
from service.responses import json_number
from service.tensors import MAX_NAME, NUMBERS, Tensor, encode_cells, parameters_of, parse_tensors, tensor_error

DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "date": "BYTES", "category": "BYTES", "text": "BYTES"}
PREDICTION = "prediction"
HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the length of the JSON in bytes; binary tensors follow the JSON."""
MAX_ID = 256


def model_metadata(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """Return the input and output tensors of a model; -1 in a shape stands for the number of rows."""
    inputs = [output_tensor(column.name, DATATYPES[column.kind]) for column in signature.request_columns]
    outputs = [output_tensor(name, datatype) for name, datatype in output_types(signature).items()]
    return {"name": name, "versions": [version], "platform": "podium", "inputs": inputs, "outputs": outputs}


def output_types(signature: Signature) -> dict[str, str]:
    """Return the datatype of each output by name."""
    return {PREDICTION: _prediction_type(signature), **{f"probability_{label}": "FP64" for label in signature.target.classes}}


def output_tensor(name: str, datatype: str) -> dict[str, Any]:
    """Return the metadata of an output or input tensor."""
    parameters = {"parameters": {"content_type": "str"}} if datatype == "BYTES" else {}
    return {"name": name, "datatype": datatype, "shape": [-1, 1], **parameters}


def _prediction_type(signature: Signature) -> str:
    classes = signature.target.classes
    if not classes:
        return "FP64"
    return "INT64" if all(isinstance(label, int) for label in classes) else "BYTES"


# --- requests --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """The request id, the records, and the requested outputs, which map each name to whether its tensor is binary."""

    identity: str
    records: list[dict[str, Any]]
    outputs: dict[str, bool]


def parse_request(data: bytes, header_length: str | None, signature: Signature, max_rows: int) -> InferenceRequest:
    """Parse a request body: JSON, or JSON followed by binary tensors. Raises BadData."""
    end = _json_end(header_length, len(data))
    body = decode_json(data[:end], nan=True)
    if not isinstance(body, dict):
        raise BadData([Problem("invalid-type", "must be an object with `inputs`, a list of tensors")])
    max_tensors = len(signature.request_columns) + len(signature.ignored)
    tensors = parse_tensors(body.get("inputs"), memoryview(data)[end:], max_tensors, max_rows)
    return InferenceRequest(_request_id(body), _records(tensors, signature), _requested_outputs(body, signature))


def _json_end(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if not re.fullmatch(r"[0-9]{1,18}", header_length, re.ASCII) or int(header_length) > size:
        raise Malformed([Problem("wrong-length", f"{HEADER_LENGTH} must be a number of bytes up to the size of the body")])
    return int(header_length)


def _request_id(body: Mapping[str, Any]) -> str:
    identity = body.get("id")
    if identity is None:
        return ""
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise BadData([Problem("invalid-type", f"`id` must be a string of at most {MAX_ID} characters")])
    if any("\ud800" <= character <= "\udfff" for character in identity):
        raise BadData([Problem("invalid-encoding", "`id` contains an unpaired surrogate")])
    return identity


def _records(tensors: Sequence[Tensor], signature: Signature) -> list[dict[str, Any]]:
    known = {column.name: column for column in signature.request_columns}
    if len(tensors) == 1 and tensors[0].name not in {*known, *signature.ignored}:
        return _records_of_matrix(tensors[0], signature)
    unknown = [
        tensor.name[:MAX_NAME] for tensor in tensors if tensor.name not in known and tensor.name not in signature.ignored
    ]
    if unknown:
        raise BadData(
            [Problem("unknown-field", "is not an input of this model", column=name) for name in unknown[:MAX_REPORTED]]
        )
    if wide := next((tensor for tensor in tensors if tensor.width != 1), None):
        raise tensor_error(wide.name, "wrong-length", "must have the shape [n] or [n, 1]")
    if len({tensor.rows for tensor in tensors}) > 1:
        raise BadData([Problem("wrong-length", "the tensors have different numbers of rows")])
    cells = {tensor.name: _column_cells(tensor, known.get(tensor.name)) for tensor in tensors}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _column_cells(tensor: Tensor, column: Column | None) -> list[Any]:
    """Return the cells of a column; 0 and 1 of a numeric tensor become booleans if the model expects booleans."""
    cells = tensor.cells()
    return [as_boolean(cell) for cell in cells] if column and column.kind == "boolean" and tensor.datatype in NUMBERS else cells


def as_boolean(cell: Any) -> Any:
    """Return 0 and 1 as booleans, and other cells unchanged."""
    return bool(cell) if cell in (0, 1) else cell


def _records_of_matrix(tensor: Tensor, signature: Signature) -> list[dict[str, Any]]:
    names, width = signature.names, len(signature.names)
    if tensor.width != width:
        raise tensor_error(tensor.name, "wrong-length", "is not a column of this model", f"[n, {width}]")
    cells = tensor.cells()
    for index, column in enumerate(signature.request_columns):
        if column.kind == "boolean" and tensor.datatype in NUMBERS:
            cells[index::width] = [as_boolean(cell) for cell in cells[index::width]]
    return [dict(zip(names, cells[start : start + width], strict=True)) for start in range(0, len(cells), width)]


def _requested_outputs(body: Mapping[str, Any], signature: Signature) -> dict[str, bool]:
    """Return the requested outputs, by default all; the values tell whether each output is binary."""
    known = output_types(signature)
    binary = _is_binary(body, "binary_data_output", False)
    outputs = body.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(known, binary)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadData([Problem("invalid-type", "`outputs` must be a list of objects, each with a `name`")])
    names = [output.get("name") for output in outputs]
    if not all(isinstance(name, str) and name in known for name in names):
        raise BadData([Problem("unknown-field", f"unknown name in `outputs`; choose from {', '.join(sorted(known))}")])
    return {output["name"]: _is_binary(output, "binary_data", binary) for output in outputs}


def _is_binary(container: Mapping[str, Any], parameter: str, default: bool) -> bool:
    value = parameters_of(container).get(parameter, default)
    if not isinstance(value, bool):
        raise BadData([Problem("invalid-type", f"the parameter `{parameter}` must be true or false")])
    return value


# --- responses -------------------------------------------------------------------------------------------------------------


def render_response(
    facts: Mapping[str, Any],
    scores: FloatMatrix | Sequence[Sequence[float]],
    signature: Signature,
    requested: Mapping[str, bool],
) -> tuple[bytes, int | None]:
    """Return the body with `facts` and the requested outputs, and the length of its JSON if binary tensors follow."""
    tensors, chunks = [], []
    for name, (datatype, cells) in _outputs(scores, signature).items():
        if name not in requested:
            continue
        tensor = {**output_tensor(name, datatype), "shape": [len(cells), 1]}
        if requested[name]:
            chunks.append(encode_cells(cells, datatype))
            tensor["parameters"] = {**tensor.get("parameters", {}), "binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = cells
        tensors.append(tensor)
    header = json.dumps({**facts, "outputs": tensors}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([header, *chunks]), len(header) if chunks else None


def _outputs(scores: FloatMatrix | Sequence[Sequence[float]], signature: Signature) -> dict[str, tuple[str, list[Any]]]:
    """Return the datatype and the cells of each output."""
    matrix = np.asarray(scores, dtype=float)
    columns = [[json_number(predicted_label(row, signature.target)) for row in matrix.tolist()]]
    columns += [[json_number(score) for score in matrix[:, index].tolist()] for index in range(len(signature.target.classes))]
    types = output_types(signature).items()
    return {name: (datatype, cells) for (name, datatype), cells in zip(types, columns, strict=True)}

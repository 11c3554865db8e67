"""The Open Inference Protocol, version 2: tensors to records, scores to tensors.

A table is one tensor a column, of the shape [n] or [n, 1]; a single tensor [n, columns] holds rows in training order.
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
from podium.schema.data_errors import MAX_REPORTED, BadData, Malformed, Problem, unknown_column
from podium.tables.strict_json import decode_json
from service.responses import json_number
from service.tensors import MAX_NAME, NUMBERS, Tensor, encoded, parameters_of, parse_tensors, wrong

DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "date": "BYTES", "category": "BYTES"}
PREDICTION = "prediction"
HEADER_LENGTH = "Inference-Header-Content-Length"
"""How many bytes of a body are JSON; binary tensors follow."""
MAX_ID = 256


def model_metadata(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """A model's tensors; -1 is the number of rows."""
    inputs = [_tensor(column.name, DATATYPES[column.kind]) for column in signature.request_columns]
    outputs = [_tensor(name, datatype) for name, datatype in output_types(signature).items()]
    return {"name": name, "versions": [version], "platform": "podium", "inputs": inputs, "outputs": outputs}


def output_types(signature: Signature) -> dict[str, str]:
    """The datatype of each output."""
    return {PREDICTION: _answer_type(signature), **{f"probability_{label}": "FP64" for label in signature.target.classes}}


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    content = {"parameters": {"content_type": "str"}} if datatype == "BYTES" else {}
    return {"name": name, "datatype": datatype, "shape": [-1, 1], **content}


def _answer_type(signature: Signature) -> str:
    classes = signature.target.classes
    if not classes:
        return "FP64"
    return "INT64" if all(isinstance(label, int) for label in classes) else "BYTES"


# --- requests --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """The id, the rows, and of each wanted output whether it is binary."""

    identity: str
    records: list[dict[str, Any]]
    outputs: dict[str, bool]


def parse_request(data: bytes, header_length: str | None, signature: Signature, max_rows: int) -> InferenceRequest:
    """A request's body, JSON alone or JSON and then bytes. Raises BadData."""
    end = _json_end(header_length, len(data))
    body = decode_json(data[:end], nan=True)
    if not isinstance(body, dict):
        raise BadData([Problem("invalid-type", "must be an object with `inputs`, a list of tensors")])
    tensors = parse_tensors(body.get("inputs"), memoryview(data)[end:], _max_tensors(signature), max_rows)
    return InferenceRequest(_identity(body), _records(tensors, signature), _wanted(body, signature))


def _json_end(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if not re.fullmatch(r"[0-9]{1,18}", header_length, re.ASCII) or int(header_length) > size:
        raise Malformed([Problem("wrong-length", f"{HEADER_LENGTH} must be a number of bytes, at most those of the body")])
    return int(header_length)


def _max_tensors(signature: Signature) -> int:
    return len(signature.request_columns) + len(signature.ignored)


def _identity(body: Mapping[str, Any]) -> str:
    identity = body.get("id")
    if identity is None:
        return ""
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise BadData([Problem("invalid-type", f"`id` must be a text of at most {MAX_ID} characters")])
    if any("\ud800" <= letter <= "\udfff" for letter in identity):
        raise BadData([Problem("invalid-encoding", "`id` holds half a surrogate pair")])
    return identity


def _records(tensors: Sequence[Tensor], signature: Signature) -> list[dict[str, Any]]:
    known = {column.name: column for column in signature.request_columns}
    if len(tensors) == 1 and tensors[0].name not in {*known, *signature.ignored}:
        return _whole_rows(tensors[0], signature)
    unknown = [
        tensor.name[:MAX_NAME] for tensor in tensors if tensor.name not in known and tensor.name not in signature.ignored
    ]
    if unknown:
        raise BadData([unknown_column(name) for name in unknown[:MAX_REPORTED]])
    if wide := next((tensor for tensor in tensors if tensor.width != 1), None):
        raise wrong(wide.name, "wrong-length", "must have the shape [n] or [n, 1]")
    if len({tensor.rows for tensor in tensors}) > 1:
        raise BadData([Problem("wrong-length", "the tensors have different numbers of rows")])
    cells = {tensor.name: _cells(tensor, known.get(tensor.name)) for tensor in tensors}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _cells(tensor: Tensor, column: Column | None) -> list[Any]:
    """One column; 0 and 1 of a number's datatype are booleans where the model takes those."""
    cells = tensor.cells()
    return [_flag(cell) for cell in cells] if column and column.kind == "boolean" and tensor.datatype in NUMBERS else cells


def _flag(cell: Any) -> Any:
    return bool(cell) if cell in (0, 1) else cell


def _whole_rows(tensor: Tensor, signature: Signature) -> list[dict[str, Any]]:
    names, width = signature.names, len(signature.names)
    if tensor.width != width:
        raise wrong(tensor.name, "wrong-length", "is no column of this model", f"[n, {width}]")
    cells = tensor.cells()
    for place, column in enumerate(signature.request_columns):
        if column.kind == "boolean" and tensor.datatype in NUMBERS:
            cells[place::width] = [_flag(cell) for cell in cells[place::width]]
    return [dict(zip(names, cells[start : start + width], strict=True)) for start in range(0, len(cells), width)]


def _wanted(body: Mapping[str, Any], signature: Signature) -> dict[str, bool]:
    """All outputs, or those that the request names."""
    known = output_types(signature)
    binary = _is_binary(body, "binary_data_output", False)
    asked = body.get("outputs")
    if asked is None or asked == []:
        return dict.fromkeys(known, binary)
    if not isinstance(asked, list) or not all(isinstance(each, dict) for each in asked):
        raise BadData([Problem("invalid-type", "`outputs` must be a list of objects, each with a `name`")])
    names = [each.get("name") for each in asked]
    if not all(isinstance(name, str) and name in known for name in names):
        raise BadData([Problem("unknown-field", f"`outputs` names something else than {', '.join(sorted(known))}")])
    return {each["name"]: _is_binary(each, "binary_data", binary) for each in asked}


def _is_binary(holder: Mapping[str, Any], parameter: str, default: bool) -> bool:
    found = parameters_of(holder).get(parameter, default)
    if not isinstance(found, bool):
        raise BadData([Problem("invalid-type", f"the parameter `{parameter}` must be true or false")])
    return found


# --- answers ---------------------------------------------------------------------------------------------------------------


def response(
    facts: Mapping[str, Any],
    scores: FloatMatrix | Sequence[Sequence[float]],
    signature: Signature,
    wanted: Mapping[str, bool],
) -> tuple[bytes, int | None]:
    """The wanted outputs, [n, 1] each, after the `facts`; and the length of the JSON if binary tensors follow it."""
    tensors, chunks = [], []
    for name, (datatype, cells) in _outputs(scores, signature).items():
        if name not in wanted:
            continue
        tensor = {**_tensor(name, datatype), "shape": [len(cells), 1]}
        if wanted[name]:
            chunks.append(encoded(cells, datatype))
            tensor["parameters"] = {**tensor.get("parameters", {}), "binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = cells
        tensors.append(tensor)
    header = json.dumps({**facts, "outputs": tensors}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([header, *chunks]), len(header) if chunks else None


def _outputs(scores: FloatMatrix | Sequence[Sequence[float]], signature: Signature) -> dict[str, tuple[str, list[Any]]]:
    matrix = np.asarray(scores, dtype=float)
    columns = [[json_number(predicted_label(row, signature.target)) for row in matrix.tolist()]]
    columns += [[json_number(score) for score in matrix[:, place].tolist()] for place in range(len(signature.target.classes))]
    return {name: (kind, cells) for (name, kind), cells in zip(output_types(signature).items(), columns, strict=True)}

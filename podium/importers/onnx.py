"""ONNX files, which are checked and served unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import (
    FLOAT32_TOLERANCE,
    Conversion,
    ImportedModel,
    numbered_names,
    plain_encoder,
    target_of,
)
from podium.models.encoder import Encoder
from podium.models.onnx_checks import check_graph, check_operators
from podium.models.onnx_scorer import OnnxInput, OnnxScorer, create_session
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

UNCHANGED_BY = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
TREE_CLASSIFIER = {"TreeEnsembleClassifier", "Cast", "ZipMap", "Identity", "Scaler"}
CONTROL_FLOW_OPERATORS = ("Loop", "Scan", "If")
LABEL_ATTRIBUTES = ("classlabels_strings", "classlabels_ints", "classlabels_int64s")
ELEMENT_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.STRING: "text",
}
Categories = dict[str, tuple[str, ...]]
"""The categories of each text input."""


def is_onnx(data: bytes) -> bool:
    """True for a protobuf message with a graph."""
    try:
        return bool(onnx.ModelProto.FromString(data).graph.node)
    except Exception:  # protobuf's own DecodeError
        return False


def read_onnx(
    data: bytes, target: str, class_names: tuple[str, ...], names: list[str] | None, categories: Categories
) -> ImportedModel:
    """Read a model with one tensor of columns, or one input per column. Raises ImportRefused."""
    model = onnx.ModelProto.FromString(data)
    _check(model)
    probabilities, labels = _classes(model)
    output = probabilities or list(model.graph.output)[-1].name
    checked = model.SerializeToString()
    columns, inputs = _inputs(model, names, categories)
    try:
        check_graph(checked, inputs, output)
    except ValueError as error:
        raise ImportRefused(str(error)) from error
    width = _output_width(create_session(checked), inputs, output, columns)
    if labels is None and class_names:
        labels = list(class_names)
    if labels is None and _last_operator(model, output) == ("Sigmoid" if width == 1 else "Softmax"):
        labels = list(range(max(2, width)))
    if labels is None and width > 1:
        raise ImportRefused(f"the model returns {width} numbers per row: name its classes with --classes")
    if labels is not None and width not in (len(labels), 1):
        raise ImportRefused(f"the model returns {width} numbers for {len(labels)} classes: name its classes with --classes")
    binary_probability = labels is not None and width == 1
    scorer = OnnxScorer(checked, inputs, output, len(columns), binary_probability)
    encoder = plain_encoder(columns)
    conversions = [Conversion(encoder, scorer, FLOAT32_TOLERANCE)]
    return ImportedModel(
        "ONNX",
        encoder,
        conversions,
        target_of(target, labels, class_names),
        _original(scorer, encoder),
        "the ONNX file itself, run as a batch",
        is_named=bool(names) or (all(math.prod(tensor.shape) == 1 for tensor in inputs) and len(inputs) > 1),
        warnings=_warnings(model, labels is not None),
    )


def _last_operator(model: Any, output: str) -> str:
    """The operator that computes an output, behind operators that do not change its values."""
    by_output = {name: node for node in model.graph.node for name in node.output}
    node = by_output.get(output)
    while node is not None and node.op_type in UNCHANGED_BY:
        node = by_output.get(node.input[0])
    return "" if node is None else str(node.op_type)


def _warnings(model: Any, classification: bool) -> tuple[str, ...]:
    """Warn of a classifier that skl2onnx may have converted wrongly: every one except trees."""
    operators = {node.op_type for node in model.graph.node}
    if model.producer_name != "skl2onnx" or not classification or operators <= TREE_CLASSIFIER:
        return ()
    return (
        "this file was made by skl2onnx, which converts CalibratedClassifierCV and LinearDiscriminantAnalysis wrongly without "
        "an error, and computes in float32. Podium can only compare the file with itself. Import the pickle or joblib file of "
        "the model instead, if you have it; else compare some predictions with scikit-learn's before you promote this version",
    )


def _original(scorer: OnnxScorer, encoder: Encoder) -> Callable[[pd.DataFrame], FloatMatrix]:
    """Run the file itself, all rows at once if the graph allows it."""

    def scores(frame: pd.DataFrame) -> FloatMatrix:
        matrix = encoder.transform(frame)
        rows = [{tensor.name: tensor.tensor(row) for tensor in scorer.inputs} for row in matrix]
        batch = {tensor.name: np.concatenate([row[tensor.name] for row in rows]) for tensor in scorer.inputs}
        try:
            result = np.asarray(scorer.session.run([scorer.output], batch)[0], dtype=float).reshape(len(frame), -1)
        except Exception:  # the graph takes one row at a time
            return scorer.scores(matrix)
        return np.hstack([1.0 - result, result]) if scorer.binary_probability else result

    return scores


def _check(model: Any) -> None:
    """Reject graphs that read other files, may not terminate, or use custom operators. Raises ImportRefused."""
    if any(node.op_type in CONTROL_FLOW_OPERATORS for node in model.graph.node):
        raise ImportRefused("the model has loops or branches, which may never end: export it without them")
    try:
        check_operators(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError) as error:
        raise ImportRefused("the file is not a valid ONNX model: export it again") from error
    except ValueError as error:
        raise ImportRefused(str(error)) from error


def _classes(model: Any) -> tuple[str, list[object] | None]:
    """The name of the probability tensor, or an empty string, and the class labels.

    A ZipMap, which creates a dictionary per row, is removed: its input is the tensor of probabilities.
    """
    probabilities, labels = "", None
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in LABEL_ATTRIBUTES and (attribute.strings or attribute.ints):
                labels = [label.decode(errors="replace") for label in attribute.strings] or list(attribute.ints)
        if node.op_type == "ZipMap":
            probabilities = node.input[0]
    if probabilities:
        nodes = [node for node in model.graph.node if node.op_type != "ZipMap"]
        outputs = [output for output in model.graph.output if output.type.HasField("tensor_type")]
        outputs.append(onnx.helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, None))
        del model.graph.node[:], model.graph.output[:]
        model.graph.node.extend(nodes)
        model.graph.output.extend(outputs)
    elif labels is not None and len(model.graph.output) > 1:
        probabilities = model.graph.output[1].name
    return probabilities, labels


def _inputs(model: Any, names: list[str] | None, categories: Categories) -> tuple[list[Column], tuple[OnnxInput, ...]]:
    """The columns of each input tensor. Raises ImportRefused."""
    weights = {tensor.name for tensor in model.graph.initializer}
    tensors = [tensor for tensor in model.graph.input if tensor.name not in weights]
    columns: list[Column] = []
    inputs = []
    for tensor in tensors:
        kind, shape = _kind_and_shape(tensor)
        column_names = _column_names(tensor.name, math.prod(shape), len(tensors), names)
        known = categories.get(column_names[0], ()) if kind == "text" else ()
        if kind == "text" and not known:
            raise ImportRefused(f"the input {column_names[0]} is text: pass --sample with rows that contain its categories")
        inputs.append(OnnxInput(tensor.name, kind, len(columns), shape, known))
        column_kind: Any = "category" if kind == "text" else "integer" if kind.startswith("int") else "number"
        columns += [Column(name, column_kind, categories=known) for name in column_names]
    return columns, tuple(inputs)


def _kind_and_shape(tensor: Any) -> tuple[str, tuple[int, ...]]:
    """The element type and the shape of one row. Raises ImportRefused."""
    tensor_type = tensor.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor_type.shape.dim)[1:]
    if tensor_type.elem_type not in ELEMENT_TYPES or not all(0 < size <= 10_000 for size in shape):
        raise ImportRefused(
            f"the input {tensor.name} must be a tensor of numbers or text with a fixed shape per row: export it in this form"
        )
    kind = ELEMENT_TYPES[tensor_type.elem_type]
    if kind == "text" and math.prod(shape) > 1:
        raise ImportRefused(f"the input {tensor.name} has several strings per row: export the model with one input per column")
    return kind, shape


def _column_names(tensor: str, count: int, tensors: int, names: list[str] | None) -> list[str]:
    """The column names of one tensor; a single tensor gets the column names of the sample. Raises ImportRefused."""
    if tensors == 1:
        column_names = names or numbered_names(count)
    elif count == 1:
        column_names = [tensor]
    else:
        column_names = [f"{tensor}_{number}" for number in range(1, count + 1)]
    if len(column_names) != count:
        raise ImportRefused(f"the model takes {count} columns, but the sample has {len(column_names)}: remove the others")
    return column_names


def _output_width(session: Any, inputs: tuple[OnnxInput, ...], output: str, columns: list[Column]) -> int:
    """The number of outputs per row, found by running one row. Raises ImportRefused."""
    row = np.zeros(len(columns))
    try:
        result = session.run([output], {tensor.name: tensor.tensor(row) for tensor in inputs})[0]
    except Exception as error:  # onnxruntime raises its own exception classes
        raise ImportRefused("the model fails on one row of zeros: export it again") from error
    if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiu":
        raise ImportRefused(f"the output {output} is not a tensor of numbers: export the model with numeric outputs")
    return int(result.size)

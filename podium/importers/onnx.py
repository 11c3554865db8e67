"""ONNX files: checked, and served as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import SINGLE, ImportedModel, numbered, plain_encoder, target_of
from podium.models.encoder import Encoder
from podium.models.onnx_checks import check_graph, check_operators
from podium.models.onnx_scorer import OnnxInput, OnnxScorer, create_session
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

CONTROL_FLOW_OPERATORS = ("Loop", "Scan", "If")
LABELS = ("classlabels_strings", "classlabels_ints", "classlabels_int64s")
KINDS = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.STRING: "text",
}


def is_onnx(data: bytes) -> bool:
    """Whether it is a protobuf message with a graph."""
    try:
        return bool(onnx.ModelProto.FromString(data).graph.node)
    except Exception:  # protobuf's own DecodeError
        return False


def read_onnx(
    data: bytes, target: str, classes: tuple[str, ...], names: list[str] | None, texts: dict[str, tuple[str, ...]]
) -> ImportedModel:
    """One tensor of columns, or an input a column; `texts` are the categories of text inputs. Raises Refusal."""
    model = onnx.ModelProto.FromString(data)
    _check(model)
    probabilities, labels = _classes(model)
    found = list(model.graph.output)
    output = probabilities or found[-1].name
    plain = model.SerializeToString()
    columns, feeds = _inputs(model, names, texts)
    try:
        check_graph(plain, feeds, output)
    except ValueError as error:
        raise ImportRefused(str(error)) from error
    session = create_session(plain)
    width = _width(session, feeds, output, columns)
    if labels is None and classes:
        labels = list(classes)
    if labels is None and width > 1:
        raise ImportRefused(f"the model gives {width} numbers: name what they are with --classes")
    if labels is not None and width not in (len(labels), 1):
        raise ImportRefused(f"the model gives {width} numbers for {len(labels)} classes")
    chance = labels is not None and width == 1
    scorer = OnnxScorer(plain, feeds, output, len(columns), chance)
    encoder = plain_encoder(columns)
    return ImportedModel(
        "ONNX", encoder, [(encoder, scorer, SINGLE)], target_of(target, labels, classes), _as_given(scorer, encoder)
    )


def _as_given(scorer: OnnxScorer, encoder: Encoder) -> Callable[[pd.DataFrame], FloatMatrix]:
    """The file is its own original: it is run as it is, all rows at once where it can."""

    def scores(frame: pd.DataFrame) -> FloatMatrix:
        matrix = encoder.transform(frame)
        rows = [{feed.name: feed.tensor(row) for feed in scorer.inputs} for row in matrix]
        whole = {feed.name: np.concatenate([row[feed.name] for row in rows]) for feed in scorer.inputs}
        try:
            found = np.asarray(scorer.session.run([scorer.output], whole)[0], dtype=float).reshape(len(frame), -1)
        except Exception:  # a graph for one row at a time
            return scorer.scores(matrix)
        return np.hstack([1.0 - found, found]) if scorer.binary_probability else found

    return scores


def _check(model: Any) -> None:
    """Nothing that reads other files, runs for ever or is not of the standard. Raises Refusal."""
    if any(node.op_type in CONTROL_FLOW_OPERATORS for node in model.graph.node):
        raise ImportRefused("the model has loops or branches, which may run for ever: export it without")
    try:
        check_operators(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError) as error:
        raise ImportRefused("the file is no valid ONNX model") from error
    except ValueError as error:
        raise ImportRefused(str(error)) from error


def _classes(model: Any) -> tuple[str, list[object] | None]:
    """The tensor of probabilities, when there is one to be told from the label, and the classes.

    A ZipMap, which makes a dictionary for each row, is taken away: what it reads is the tensor.
    """
    probabilities, labels = "", None
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in LABELS and (attribute.strings or attribute.ints):
                labels = [each.decode(errors="replace") for each in attribute.strings] or list(attribute.ints)
        if node.op_type == "ZipMap":
            probabilities = node.input[0]
    if probabilities:
        kept = [node for node in model.graph.node if node.op_type != "ZipMap"]
        label = [output for output in model.graph.output if output.type.HasField("tensor_type")]
        del model.graph.node[:], model.graph.output[:]
        model.graph.node.extend(kept)
        model.graph.output.extend([*label, onnx.helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, None)])
    elif labels is not None and len(model.graph.output) > 1:
        probabilities = model.graph.output[1].name
    return probabilities, labels


def _inputs(
    model: Any, names: list[str] | None, texts: dict[str, tuple[str, ...]]
) -> tuple[list[Column], tuple[OnnxInput, ...]]:
    """Raises Refusal."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    columns: list[Column] = []
    feeds = []
    for each in inputs:
        tensor = each.type.tensor_type
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)[1:]
        if tensor.elem_type not in KINDS or not all(0 < size <= 10_000 for size in shape):
            raise ImportRefused(f"the input {each.name} must be a tensor of numbers or text, of a fixed shape but for its rows")
        kind, count = KINDS[tensor.elem_type], math.prod(shape)
        if kind == "text" and count > 1:
            raise ImportRefused(f"the input {each.name} holds several texts: export with an input for each column")
        own = [each.name] if count == 1 and len(inputs) > 1 else (names or numbered(count)) if len(inputs) == 1 else [
            f"{each.name}_{place}" for place in range(1, count + 1)]  # fmt: skip
        if len(own) != count:
            raise ImportRefused(f"the model takes {count} columns, the sample has {len(own)}")
        if kind == "text" and not texts.get(own[0]):
            raise ImportRefused(f"the input {own[0]} is text: give --sample rows that show its categories")
        feeds.append(OnnxInput(each.name, kind, len(columns), shape, texts.get(own[0], ()) if kind == "text" else ()))
        columns += [
            Column(name, "category", categories=texts[name]) if kind == "text"
            else Column(name, "integer" if kind.startswith("int") else "number")
            for name in own
        ]  # fmt: skip
    return columns, tuple(feeds)


def _width(session: Any, feeds: tuple[OnnxInput, ...], output: str, columns: list[Column]) -> int:
    """How many numbers a row gives; found by trying. Raises Refusal."""
    row = np.zeros(len(columns))
    try:
        found = session.run([output], {feed.name: feed.tensor(row) for feed in feeds})[0]
    except Exception as error:  # onnxruntime raises classes of its own
        raise ImportRefused("the model does not run on one row of zeros") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise ImportRefused(f"the output {output} is no tensor of numbers")
    return int(found.size)

"""Keras networks (.h5 and .keras): read as data, without Keras, and converted to ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import (
    FLOAT32_TOLERANCE,
    Conversion,
    ImportedModel,
    check_column_count,
    numbered_names,
    plain_encoder,
    target_of,
)
from podium.importers.keras_file import read_file
from podium.importers.keras_graph import read_graph
from podium.importers.keras_layer_config import NetworkInput
from podium.importers.keras_network import Network, to_scorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Kind, Policy

AUTOMATIC_NAME = re.compile(r"(dense_(\d+_)?)?input(_layer)?(_\d+)?|keras_tensor(_\d+)?|")
"""Names that Keras gives to inputs without a name."""


def read_keras(data: bytes, target: str, class_names: tuple[str, ...], names: Sequence[str] | None) -> ImportedModel:
    """Read a .h5 or .keras file written by `model.save`; `names` are the columns of the sample. Raises ImportRefused."""
    network = read_network(data)
    columns = _columns(network.inputs, names)
    encoder = plain_encoder(columns)
    outputs = _output_width(network)
    binary_probability = network.activation == "sigmoid" and outputs == 1
    if outputs > 1 and network.activation != "softmax":
        raise ImportRefused(f"the network has {outputs} outputs without softmax: return one number, or class probabilities")
    labels = range(max(2, outputs)) if binary_probability or outputs > 1 else None
    has_text = any(column.is_text for column in columns)

    def original(frame: pd.DataFrame) -> FloatMatrix:
        scores = network.apply(encoder.transform(frame) if has_text else frame.to_numpy(dtype=float))
        return np.hstack([1.0 - scores, scores]) if binary_probability else scores

    conversions = [Conversion(encoder, to_scorer(network, binary_probability=binary_probability), FLOAT32_TOLERANCE)]
    is_named = names is not None or all(_own_name(each, ()) for each in network.inputs)
    task = target_of(target, labels, class_names)
    return ImportedModel("Keras", encoder, conversions, task, original, "the formulas of Keras's layers", is_named=is_named)


def read_network(data: bytes) -> Network:
    """Read the network of a Keras file. Raises ImportRefused."""
    try:
        file = read_file(data)
        return read_graph(file.model, file.files, file.keras_major)
    except ImportRefused:
        raise
    except Exception as error:  # h5py, zipfile and a network whose parts do not fit raise many kinds
        raise ImportRefused(f"the file is not a complete Keras network ({type(error).__name__}): save it again") from error


def _output_width(network: Network) -> int:
    shape = network.apply(np.zeros((1, sum(each.width for each in network.inputs)))).shape
    if len(shape) != 2:
        raise ImportRefused("the network returns a sequence: end it with a layer that returns one row of outputs")
    return shape[1]


def _own_name(each: NetworkInput, names: Sequence[str]) -> str:
    """Return the name of the only column of an input; empty if it has several, or a name that Keras made up."""
    is_automatic = AUTOMATIC_NAME.fullmatch(each.name) and each.name not in names
    return "" if each.width != 1 or is_automatic else each.name


def _columns(inputs: Sequence[NetworkInput], names: Sequence[str] | None) -> list[Column]:
    """Return the columns of all inputs, with the names of the inputs or else of the sample. Raises ImportRefused."""
    own = [_own_name(each, names or ()) for each in inputs]
    count = sum(each.width for each, name in zip(inputs, own, strict=True) if not name)
    others = numbered_names(count) if names is None or not count else [name for name in names if name not in own]
    check_column_count(sum(each.width for each in inputs), [*filter(None, own), *others])
    remaining = iter(others)
    return [_column(each, name or next(remaining)) for each, name in zip(inputs, own, strict=True) for _ in range(each.width)]


def _column(each: NetworkInput, name: str) -> Column:
    if each.is_text:
        return Column(name, "category", categories=tuple(each.texts))
    kind: Kind = "integer" if each.is_whole else "number"
    policy: Policy = "reject" if each.strict else "warn"
    return Column(name, kind, low=each.low, high=each.high, require_whole=each.is_whole, handle_unknown=policy)

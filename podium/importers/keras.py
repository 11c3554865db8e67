"""Keras networks (.h5 and .keras): layers and weights read as data, without Keras, and converted to ONNX."""

from __future__ import annotations

import functools
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import (
    FLOAT32_TOLERANCE,
    Conversion,
    ImportedModel,
    numbered_names,
    plain_encoder,
    target_of,
)
from podium.importers.keras_layers import (
    MERGE_FUNCTIONS,
    Activate,
    Array,
    Bidirectional,
    Dense,
    Flatten,
    Layer,
    Network,
    Normalize,
    Recurrent,
    activation,
    to_onnx,
)
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

TRAINING_ONLY = {"Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "InputLayer"}
REMEDY = "export the network to ONNX (tf2onnx) and import that"
SUPPORTED_LAYERS = (
    "Dense, GRU, LSTM, Bidirectional, BatchNormalization, Flatten, Activation, ReLU, Softmax, dropout and noise layers"
)
"""The layers that can be imported, as listed in an error message."""


def read_keras(data: bytes, target: str, class_names: tuple[str, ...]) -> ImportedModel:
    """Read a .h5 or .keras file written by `model.save`. Raises ImportRefused."""
    network = read_network(data)
    count = int(np.prod(network.shape))
    encoder = plain_encoder([Column(name, "number") for name in _input_names(network.shape)])
    output_shape = network.apply(np.zeros((1, *network.shape))).shape
    if len(output_shape) != 2:
        raise ImportRefused("the network returns a sequence: end it with a layer that returns one row of outputs")
    outputs = output_shape[1]
    binary_probability = network.last_activation == "Sigmoid" and outputs == 1
    if outputs > 1 and network.last_activation != "Softmax":
        raise ImportRefused(f"the network has {outputs} outputs without softmax: return one number, or class probabilities")
    labels = range(max(2, outputs)) if binary_probability or outputs > 1 else None

    def original(frame: pd.DataFrame) -> FloatMatrix:
        scores = network.apply(frame.to_numpy(dtype=float).reshape(-1, *network.shape))
        return np.hstack([1.0 - scores, scores]) if binary_probability else scores

    inputs = (OnnxInput("x", "float32", 0, network.shape),)
    scorer = OnnxScorer(to_onnx(network), inputs, "y", count, binary_probability)
    conversions = [Conversion(encoder, scorer, FLOAT32_TOLERANCE)]
    reference = "the formulas of Keras's layers"
    return ImportedModel(
        "Keras", encoder, conversions, target_of(target, labels, class_names), original, reference, is_named=False
    )


def _input_names(shape: tuple[int, ...]) -> list[str]:
    """Return names x1, x2, …, or step1_x1, … for a sequence."""
    names = numbered_names(shape[-1])
    return names if len(shape) == 1 else [f"step{step}_{name}" for step in range(1, shape[0] + 1) for name in names]


def read_network(data: bytes) -> Network:
    """Read the layers of a Keras file. Raises ImportRefused."""
    try:
        if data.startswith(b"PK"):
            _check_archive(data)
        config, weights, keras_major = _read_zip(data) if data.startswith(b"PK") else _read_h5(data)
        return _network(config, weights, keras_major)
    except ImportRefused:
        raise
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise ImportRefused(f"the file is not a complete Keras network ({type(error).__name__}): save it again") from error


LayerWeights = Callable[[str, str], list[Array]]
"""Returns the weights of a layer, given its class and name, in Keras's order; called once per layer, in layer order."""


def _check_archive(data: bytes) -> None:
    """Reject archives of other libraries by their members. Raises ImportRefused."""
    members = zipfile.ZipFile(io.BytesIO(data)).namelist()
    for is_member, message in OTHER_ARCHIVES:
        if any(is_member(name) for name in members):
            raise ImportRefused(message)
    if "config.json" not in members:
        raise ImportRefused(
            f"the zip archive holds {', '.join(members[:4]) or 'nothing'}, not a model: unpack it and import the model"
        )


OTHER_ARCHIVES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda name: name == "schema.json",
        "this is a skops file, which is not supported: load it with `skops.io.load` and save the model with `joblib.dump`",
    ),
    (
        lambda name: name.endswith("data.pkl"),
        "this is a PyTorch file, which is not supported: export the network with `torch.onnx.export` and import the ONNX file",
    ),
    (
        lambda name: name.endswith(".npy"),
        "this is an archive of numpy arrays, not a model: save the fitted model with `joblib.dump`",
    ),
    (
        lambda name: name.endswith("MLmodel"),
        "this is an archive of MLflow: unpack it and import the model file in it, such as model.pkl",
    ),
)


def _read_h5(data: bytes) -> tuple[dict[str, Any], LayerWeights, int]:
    file = h5py.File(io.BytesIO(data))
    if "model_config" not in file.attrs:
        raise ImportRefused("the file has weights but no network: save the whole model with model.save")
    groups = file["model_weights"]

    def weights(_: str, layer: str) -> list[Array]:
        group = groups[layer]
        return [_array(group, _text(name)) for name in group.attrs["weight_names"]]

    version = _text(file.attrs.get("keras_version", groups.attrs.get("keras_version", "2")))
    return json.loads(_text(file.attrs["model_config"])), weights, int(version.split(".")[0])


def _read_zip(data: bytes) -> tuple[dict[str, Any], LayerWeights, int]:
    """Read a .keras file, which names weights by the layer class in snake case, numbered from the second layer on."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    config = json.loads(archive.read("config.json"))
    file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    version = json.loads(archive.read("metadata.json"))["keras_version"]
    counts: Counter[str] = Counter()

    def weights(kind: str, _: str) -> list[Array]:
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
        counts[name] += 1
        return list(_leaves(file["layers"][name if counts[name] == 1 else f"{name}_{counts[name] - 1}"]))

    return config, weights, int(version.split(".")[0])


def _leaves(group: Any) -> Iterator[Array]:
    """The arrays of a group: forward before backward, then by name."""
    order = {"forward_layer": 0, "backward_layer": 1}
    for name in sorted(group, key=lambda name: (order.get(name, 2), name)):
        if isinstance(group[name], h5py.Group):
            yield from _leaves(group[name])
        else:
            yield _array(group, name)


def _array(group: Any, path: str) -> Array:
    """The numbers of a dataset, which must be stored in this file. Raises ImportRefused."""
    node = group
    for part in path.split("/"):
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise ImportRefused("the weights are stored in another file: save the model with its weights")
        node = node[part]
    if node.external or node.is_virtual:
        raise ImportRefused("the weights are stored in another file: save the model with its weights")
    return np.asarray(node, dtype=float)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _network(config: Mapping[str, Any], weights: LayerWeights, keras_major: int) -> Network:
    kind, content = config["class_name"], config["config"]
    layer_configs = content if isinstance(content, list) else content["layers"]  # in the oldest files, Sequential is a list
    _check_sequential(kind, layer_configs)
    shape = _input_shape(layer_configs)
    layers: list[Layer] = []
    last_activation, values = "Identity", np.zeros((1, *shape))
    for layer in layer_configs:
        layer_weights = functools.partial(weights, layer["class_name"], layer["config"].get("name", ""))
        converted = _layer(layer["class_name"], layer["config"], layer_weights, keras_major, values.ndim)
        if converted is not None:
            values = converted.apply(values)
            layers.append(converted)
            last_activation = getattr(getattr(converted, "activation", None), "operator", "Identity")
    return Network(shape, tuple(layers), last_activation)


def _check_sequential(kind: str, layers: Sequence[Mapping[str, Any]]) -> None:
    """Require that each layer reads only the previous one. Raises ImportRefused."""
    if kind not in ("Sequential", "Model", "Functional"):
        raise ImportRefused(f"a Keras {kind} is not supported, only sequences of layers: {REMEDY}")
    if kind == "Sequential":
        return
    previous = None
    for layer in layers:
        sources = list(_sources(layer.get("inbound_nodes", [])))
        if sources != ([previous] if previous else []):
            raise ImportRefused(f"the network branches, but only sequences of layers are supported: {REMEDY}")
        previous = layer["config"]["name"]


def _sources(nodes: Any) -> Iterator[str]:
    """Yield the names of the layers that a layer reads, from the notation of Keras 2 or Keras 3."""
    if isinstance(nodes, dict):
        if nodes.get("class_name") == "__keras_tensor__":
            yield nodes["config"]["keras_history"][0]
        else:
            for value in nodes.values():
                yield from _sources(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _sources(value)


def _input_shape(layers: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    config = layers[0]["config"]
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if not shape or len(shape) not in (2, 3) or not all(isinstance(size, int) and 0 < size <= 10_000 for size in shape[1:]):
        raise ImportRefused("the input shape must be fixed: build the network with (columns) or (steps, columns)")
    return tuple(shape[1:])


def _layer(
    kind: str, config: Mapping[str, Any], weights: Callable[[], list[Array]], keras_major: int, rank: int
) -> Layer | None:
    """Convert a layer with an input of `rank` axes; None if it acts only in training. Raises ImportRefused."""
    if kind in TRAINING_ONLY:
        return None
    if kind == "Dense":
        kernel, *bias = weights()
        function = activation(config["activation"], keras_major)
        return Dense(kernel, bias[0] if bias else np.zeros(kernel.shape[1]), function)
    if kind == "Activation":
        return Activate(activation(config["activation"], keras_major))
    if kind == "ReLU" and not any(config.get(key) for key in ("max_value", "negative_slope", "threshold")):
        return Activate(activation("relu", keras_major))
    if kind == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return Activate(activation("softmax", keras_major))
    if kind == "Flatten":
        return Flatten()
    if kind == "BatchNormalization":
        if config.get("axis", -1) not in (-1, [-1], rank - 1, [rank - 1]):
            raise ImportRefused(f"BatchNormalization is supported over the last axis only: {REMEDY}")
        return _normalize(config, weights())
    if kind in ("GRU", "LSTM"):
        return _recurrent(kind, config, weights(), keras_major, bool(config.get("go_backwards")))
    if kind == "Bidirectional":
        return _bidirectional(config, weights(), keras_major)
    raise ImportRefused(f"the layer {kind} is not supported ({SUPPORTED_LAYERS} are): {REMEDY}")


def _normalize(config: Mapping[str, Any], weights: list[Array]) -> Normalize:
    gamma = weights.pop(0) if config["scale"] else 1.0
    beta = weights.pop(0) if config["center"] else 0.0
    mean, variance = weights
    factor = gamma / np.sqrt(variance + config["epsilon"])
    return Normalize(factor, beta - mean * factor)


def _recurrent(kind: str, config: Mapping[str, Any], weights: list[Array], keras_major: int, backwards: bool) -> Recurrent:
    kernel, recurrent_kernel, *biases = weights
    if config.get("stateful"):
        raise ImportRefused("a stateful layer depends on earlier rows: train the network with stateful=False")
    bias = np.zeros((2, kernel.shape[1]))
    if biases:
        bias[: np.atleast_2d(biases[0]).shape[0]] = biases[0]
    return Recurrent(
        kind,
        kernel,
        recurrent_kernel,
        bias,
        activation(config["recurrent_activation"], keras_major),
        activation(config["activation"], keras_major),
        bool(config.get("reset_after", False)),
        backwards,
        bool(config["return_sequences"]),
    )


def _bidirectional(config: Mapping[str, Any], weights: list[Array], keras_major: int) -> Bidirectional:
    inner, merge = config["layer"], config["merge_mode"]
    if inner["class_name"] not in ("GRU", "LSTM") or merge not in MERGE_FUNCTIONS:
        raise ImportRefused(
            f"Bidirectional is supported for GRU and LSTM with the merge modes {', '.join(MERGE_FUNCTIONS)} only: {REMEDY}"
        )
    half = len(weights) // 2
    forward, backward = (
        _recurrent(inner["class_name"], inner["config"], part, keras_major, backwards)
        for part, backwards in ((weights[:half], False), (weights[half:], True))
    )
    return Bidirectional(forward, backward, merge)

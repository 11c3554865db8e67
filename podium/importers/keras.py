"""Keras networks, .h5 and .keras: layers and weights read as data, without Keras, and served as ONNX operators."""

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
from podium.importers.imported_model import SINGLE, ImportedModel, plain_encoder, target_of
from podium.importers.keras_layers import (
    MERGES,
    Activate,
    Array,
    Bidirectional,
    Dense,
    Flatten,
    Layer,
    Network,
    Recurrent,
    Scale,
    activation,
    to_onnx,
)
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

IGNORED = {"Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "InputLayer", "Masking"}
"""Layers that change nothing when a network answers; masking is refused where it would."""


def read_keras(data: bytes, target: str, classes: tuple[str, ...]) -> ImportedModel:
    """A file of `model.save`, either kind. Raises Refusal."""
    network = read_network(data)
    count = int(np.prod(network.shape))
    encoder = plain_encoder([Column(name, "number") for name in _names(network.shape)])
    outputs = network.apply(np.zeros((1, *network.shape))).shape
    if len(outputs) != 2:
        raise ImportRefused("the network answers with a sequence; one answer a row is served")
    chance = network.last == "Sigmoid" and outputs[1] == 1
    if not chance and outputs[1] > 1 and network.last != "Softmax":
        raise ImportRefused(f"the network has {outputs[1]} outputs that are no probabilities; one number or classes are served")
    labels = range(max(2, outputs[1])) if chance or outputs[1] > 1 else None

    def original(frame: pd.DataFrame) -> FloatMatrix:
        found = network.apply(frame.to_numpy(dtype=float).reshape(-1, *network.shape))
        return np.hstack([1.0 - found, found]) if chance else found

    scorer = OnnxScorer(to_onnx(network), (OnnxInput("x", "float32", 0, network.shape),), "y", count, chance)
    return ImportedModel("Keras", encoder, [(encoder, scorer, SINGLE)], target_of(target, labels, classes), original)


def _names(shape: tuple[int, ...]) -> list[str]:
    """x1, x2 …; step1_x1 … for a sequence."""
    if len(shape) == 1:
        return [f"x{place}" for place in range(1, shape[0] + 1)]
    return [f"step{step}_x{place}" for step in range(1, shape[0] + 1) for place in range(1, shape[1] + 1)]


def read_network(data: bytes) -> Network:
    """Raises Refusal."""
    try:
        config, weights, keras = _read_zip(data) if data.startswith(b"PK") else _read_h5(data)
        return _network(config, weights, keras)
    except ImportRefused:
        raise
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise ImportRefused(f"the file is no whole Keras network ({type(error).__name__})") from error


WeightsOf = Callable[[str, str], list[Array]]
"""From a layer's class and name to its weights in Keras's order; asked once a layer, in their order."""


def _read_h5(data: bytes) -> tuple[dict[str, Any], WeightsOf, int]:
    file = h5py.File(io.BytesIO(data))
    if "model_config" not in file.attrs:
        raise ImportRefused("the file holds weights without the network: save the whole model")
    groups = file["model_weights"]

    def weights(_: str, layer: str) -> list[Array]:
        group = groups[layer]
        return [_array(group, _text(name)) for name in group.attrs["weight_names"]]

    version = _text(file.attrs.get("keras_version", groups.attrs.get("keras_version", "2")))
    return json.loads(_text(file.attrs["model_config"])), weights, int(version.split(".")[0])


def _read_zip(data: bytes) -> tuple[dict[str, Any], WeightsOf, int]:
    """The .keras form: its weights lie under the class's name in small letters, numbered from the second on."""
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
    """Arrays of a group: forward before backward, else in the order of their names."""
    first = {"forward_layer": 0, "backward_layer": 1}
    for name in sorted(group, key=lambda name: (first.get(name, 2), name)):
        if isinstance(group[name], h5py.Group):
            yield from _leaves(group[name])
        else:
            yield _array(group, name)


def _array(group: Any, path: str) -> Array:
    """The numbers of a dataset that lies in this very file. Raises Refusal."""
    place = group
    for part in path.split("/"):
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise ImportRefused("the weights lie in another file: save the model with its weights inside")
        place = place[part]
    if place.external or place.is_virtual:
        raise ImportRefused("the weights lie in another file: save the model with its weights inside")
    return np.asarray(place, dtype=float)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _network(config: Mapping[str, Any], weights: WeightsOf, keras: int) -> Network:
    kind, parts = config["class_name"], config["config"]
    layers = parts if isinstance(parts, list) else parts["layers"]  # the oldest Sequential was a list
    _check_row(kind, layers)
    found: list[Layer] = []
    last, flowing = "Identity", np.zeros((1, *_shape(layers)))
    for layer in layers:
        own = functools.partial(weights, layer["class_name"], layer["config"].get("name", ""))
        made = _layer(layer["class_name"], layer["config"], own, keras, flowing.ndim)
        for each in made:
            flowing = each.apply(flowing)
        found += made
        if made:
            last = getattr(getattr(made[-1], "activation", None), "operator", "Identity")
    return Network(_shape(layers), tuple(found), last)


def _check_row(kind: str, layers: Sequence[Mapping[str, Any]]) -> None:
    """Each layer reads the one before it. Raises Refusal."""
    if kind not in ("Sequential", "Model", "Functional"):
        raise ImportRefused(f"a {kind} of Keras is not taken: only layers in a row are")
    if kind == "Sequential":
        return
    before = None
    for layer in layers:
        sources = list(_sources(layer.get("inbound_nodes", [])))
        if sources != ([before] if before else []):
            raise ImportRefused("the network branches: only layers in a row are taken")
        before = layer["config"]["name"]


def _sources(nodes: Any) -> Iterator[str]:
    """The layers that a layer reads, in the number_format of Keras 2 and of Keras 3."""
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


def _shape(layers: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    config = layers[0]["config"]
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if not shape or len(shape) not in (2, 3) or not all(isinstance(size, int) and 0 < size <= 10_000 for size in shape[1:]):
        raise ImportRefused("the shape of the inputs must be fixed: (columns) or (steps, columns)")
    return tuple(shape[1:])


def _layer(kind: str, config: Mapping[str, Any], weights: Callable[[], list[Array]], keras: int, rank: int) -> list[Layer]:
    """What a layer over an input of so many axes becomes; nothing for those that only act in training. Raises Refusal."""
    if kind == "Masking":
        raise ImportRefused("the network masks steps, which is not taken")
    if kind in IGNORED:
        return []
    if kind == "Dense":
        kernel, *bias = weights()
        return [Dense(kernel, bias[0] if bias else np.zeros(kernel.shape[1]), activation(config["activation"], keras))]
    if kind == "Activation":
        return [Activate(activation(config["activation"], keras))]
    if kind == "ReLU" and not any(config.get(key) for key in ("max_value", "negative_slope", "threshold")):
        return [Activate(activation("relu", keras))]
    if kind == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return [Activate(activation("softmax", keras))]
    if kind == "Flatten":
        return [Flatten()]
    if kind == "BatchNormalization":
        if config.get("axis", -1) not in (-1, [-1], rank - 1, [rank - 1]):
            raise ImportRefused("a BatchNormalization over another axis than the last is not taken")
        return [_scale(config, weights())]
    if kind in ("GRU", "LSTM"):
        return [_recurrent(kind, config, weights(), keras, bool(config.get("go_backwards")))]
    if kind == "Bidirectional":
        return [_both_ways(config, weights(), keras)]
    raise ImportRefused(
        f"the layer {kind} is not among those that are taken: Dense, GRU, LSTM, Bidirectional, BatchNormalization, Flatten, "
        "Activation, ReLU, Softmax, dropout. Export the network to ONNX (tf2onnx) and import that"
    )


def _scale(config: Mapping[str, Any], weights: list[Array]) -> Scale:
    gamma = weights.pop(0) if config["scale"] else 1.0
    beta = weights.pop(0) if config["center"] else 0.0
    mean, variance = weights
    factor = gamma / np.sqrt(variance + config["epsilon"])
    return Scale(factor, beta - mean * factor)


def _recurrent(kind: str, config: Mapping[str, Any], weights: list[Array], keras: int, backwards: bool) -> Recurrent:
    kernel, recurrent, *biases = weights
    if config.get("stateful"):
        raise ImportRefused("a stateful layer's answer depends on the rows before, which a service cannot give")
    bias = np.zeros((2, kernel.shape[1]))
    if biases:
        bias[: np.atleast_2d(biases[0]).shape[0]] = biases[0]
    return Recurrent(
        kind,
        kernel,
        recurrent,
        bias,
        activation(config["recurrent_activation"], keras),
        activation(config["activation"], keras),
        bool(config.get("reset_after", False)),
        backwards,
        bool(config["return_sequences"]),
    )


def _both_ways(config: Mapping[str, Any], weights: list[Array], keras: int) -> Bidirectional:
    inner, merge = config["layer"], config["merge_mode"]
    if inner["class_name"] not in ("GRU", "LSTM") or merge not in MERGES:
        raise ImportRefused("a Bidirectional layer of this form is not taken: GRU or LSTM; concat, sum, mul or ave")
    half = len(weights) // 2
    one, other = (
        _recurrent(inner["class_name"], inner["config"], part, keras, backwards)
        for part, backwards in ((weights[:half], False), (weights[half:], True))
    )
    return Bidirectional(one, other, merge)

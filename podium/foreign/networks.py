"""Keras networks, .h5 and .keras: the layers and weights as data, without Keras, written down again as ONNX operators.

The original's answers come from the layers' formulas in 64 bits (`apply`); what is served is their ONNX form (`nodes`).
Keras 2's hard_sigmoid is clip(0.2 x + 0.5, 0, 1), Keras 3's clip(x / 6 + 0.5, 0, 1); the release that saved the file decides.
"""

from __future__ import annotations

import functools
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from podium.data.columns import Column
from podium.foreign.model import SINGLE, Foreign, plain_encoder, target_of
from podium.foreign.refusal import Refusal
from podium.model.encode import Matrix
from podium.model.graph import Feed, Graph

Array = np.ndarray
Weights = Mapping[str, Array]

IGNORED = {"Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "InputLayer", "Masking"}
"""Layers that change nothing when a network answers; masking is refused where it would."""

OPSET = 18


# --- activations: in numbers, and as operators -------------------------------------------------------------------------


def _softmax(x: Array) -> Array:
    parts = np.exp(x - x.max(axis=-1, keepdims=True))
    return parts / parts.sum(axis=-1, keepdims=True)


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


@dataclass(frozen=True, slots=True)
class Activation:
    """A function, the ONNX operator with its attributes, and its name inside recurrent operators."""

    apply: Callable[[Array], Array]
    operator: str
    attributes: Mapping[str, Any]


def _activation(config: Any, keras: int) -> Activation:
    """Raises Refusal."""
    if isinstance(config, dict) and config.get("class_name") == "function":
        config = config.get("config")
    if config is not None and not isinstance(config, str):
        raise Refusal("an activation with settings of its own is not taken: use one by its name")
    name = config or "linear"
    slope = 0.2 if keras < 3 else 1 / 6
    known = {
        "linear": Activation(lambda x: x, "Identity", {}),
        "tanh": Activation(np.tanh, "Tanh", {}),
        "sigmoid": Activation(_sigmoid, "Sigmoid", {}),
        "relu": Activation(lambda x: np.maximum(x, 0.0), "Relu", {}),
        "elu": Activation(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))), "Elu", {}),
        "softplus": Activation(lambda x: np.logaddexp(x, 0.0), "Softplus", {}),
        "softsign": Activation(lambda x: x / (1.0 + np.abs(x)), "Softsign", {}),
        "softmax": Activation(_softmax, "Softmax", {"axis": -1}),
        "hard_sigmoid": Activation(lambda x: np.clip(slope * x + 0.5, 0, 1), "HardSigmoid", {"alpha": slope, "beta": 0.5}),
    }
    if name not in known:
        raise Refusal(f"the activation {name} is not among those that are taken: {', '.join(known)}")
    return known[name]


# --- layers ------------------------------------------------------------------------------------------------------------


class Writer:
    """Collects operators and constants; the value that flows is always the last one's output."""

    def __init__(self, first: str) -> None:
        self.last = first
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def put(self, operator: str, *inputs: str, outputs: int = 1, which: int = 0, **attributes: Any) -> str:
        """Add an operator and return the name of one of its outputs."""
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        self.last = names[which]
        return self.last

    def constant(self, values: Array, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name))
        return name


@dataclass(frozen=True, slots=True)
class Dense:
    kernel: Array
    bias: Array
    activation: Activation

    def apply(self, x: Array) -> Array:
        return self.activation.apply(x @ self.kernel + self.bias)

    def nodes(self, graph: Writer) -> None:
        product = graph.put("MatMul", graph.last, graph.constant(self.kernel))
        graph.put("Add", product, graph.constant(self.bias))
        graph.put(self.activation.operator, graph.last, **self.activation.attributes)


@dataclass(frozen=True, slots=True)
class Activate:
    activation: Activation

    def apply(self, x: Array) -> Array:
        return self.activation.apply(x)

    def nodes(self, graph: Writer) -> None:
        graph.put(self.activation.operator, graph.last, **self.activation.attributes)


@dataclass(frozen=True, slots=True)
class Scale:
    """Batch normalisation with the moving mean and variance."""

    factor: Array
    shift: Array

    def apply(self, x: Array) -> Array:
        return x * self.factor + self.shift

    def nodes(self, graph: Writer) -> None:
        graph.put("Mul", graph.last, graph.constant(self.factor))
        graph.put("Add", graph.last, graph.constant(self.shift))


@dataclass(frozen=True, slots=True)
class Flatten:
    def apply(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def nodes(self, graph: Writer) -> None:
        graph.put("Flatten", graph.last)


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A GRU or LSTM over (rows, steps, inputs); `bias` is (2, gates x units): of the inputs, and of the state.

    Keras orders a GRU's gates update, reset, new, and an LSTM's input, forget, new, output; ONNX the latter's input, output,
    forget, new. `reset_after` is the GRU of cuDNN, in which the reset gate acts on the product with the state.
    """

    kind: str
    kernel: Array
    recurrent: Array
    bias: Array
    inner: Activation
    outer: Activation
    reset_after: bool
    backwards: bool
    sequences: bool

    def apply(self, x: Array) -> Array:
        steps = range(x.shape[1])
        state, memory = np.zeros((len(x), len(self.recurrent))), np.zeros((len(x), len(self.recurrent)))
        found = []
        for step in reversed(steps) if self.backwards else steps:
            state, memory = (self._gru if self.kind == "GRU" else self._lstm)(x[:, step], state, memory)
            found.append(state)
        return np.stack(found, axis=1) if self.sequences else state

    def _gru(self, x: Array, state: Array, memory: Array) -> tuple[Array, Array]:
        size = state.shape[1]
        inputs = x @ self.kernel + self.bias[0]
        gates = self.inner.apply(inputs[:, : 2 * size] + state @ self.recurrent[:, : 2 * size] + self.bias[1, : 2 * size])
        update, reset = gates[:, :size], gates[:, size:]
        own, shift = self.recurrent[:, 2 * size :], self.bias[1, 2 * size :]
        past = reset * (state @ own + shift) if self.reset_after else (reset * state) @ own + shift
        return update * state + (1.0 - update) * self.outer.apply(inputs[:, 2 * size :] + past), memory

    def _lstm(self, x: Array, state: Array, memory: Array) -> tuple[Array, Array]:
        size = state.shape[1]
        gates = x @ self.kernel + self.bias[0] + state @ self.recurrent + self.bias[1]
        take, keep, new, give = (gates[:, gate * size : (gate + 1) * size] for gate in range(4))
        memory = self.inner.apply(keep) * memory + self.inner.apply(take) * self.outer.apply(new)
        return self.inner.apply(give) * self.outer.apply(memory), memory

    def nodes(self, graph: Writer) -> None:
        self.read(graph, graph.last)

    def read(self, graph: Writer, source: str) -> str:
        """Write the operator that reads `source` (rows, steps, inputs); returns its output."""
        order = (0, 1, 2) if self.kind == "GRU" else (0, 3, 1, 2)
        attributes: dict[str, Any] = {"hidden_size": len(self.recurrent)}
        attributes |= {"direction": "reverse" if self.backwards else "forward"}
        functions = (self.inner, self.outer) if self.kind == "GRU" else (self.inner, self.outer, self.outer)
        attributes["activations"] = [function.operator for function in functions]
        attributes["activation_alpha"] = [float(f.attributes["alpha"]) for f in functions if "alpha" in f.attributes]
        attributes["activation_beta"] = [float(f.attributes["beta"]) for f in functions if "beta" in f.attributes]
        attributes = {name: value for name, value in attributes.items() if value != []}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = int(self.reset_after)
        by_step = graph.put("Transpose", source, perm=[1, 0, 2])
        weights = [graph.constant(_gates(table, order).T[None]) for table in (self.kernel, self.recurrent)]
        bias = graph.constant(np.concatenate([_gates(self.bias[:1], order), _gates(self.bias[1:], order)], axis=1))
        if not self.sequences:
            last = graph.put(self.kind, by_step, *weights, bias, outputs=2, which=1, **attributes)
            return graph.put("Squeeze", last, graph.constant(np.array([0]), np.int64))
        every = graph.put(self.kind, by_step, *weights, bias, outputs=2, **attributes)
        flat = graph.put("Squeeze", every, graph.constant(np.array([1]), np.int64))
        if self.backwards:  # Keras gives the steps in the order in which they were read
            ends = [graph.constant(np.array([number]), np.int64) for number in (-1, np.iinfo(np.int64).min, 0, -1)]
            flat = graph.put("Slice", flat, *ends)
        return graph.put("Transpose", flat, perm=[1, 0, 2])


def _gates(table: Array, order: Sequence[int]) -> Array:
    parts = np.split(table, len(order), axis=-1)
    return np.concatenate([parts[place] for place in order], axis=-1)


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda one, other: np.concatenate([one, other], axis=-1),
    "sum": lambda one, other: one + other,
    "mul": lambda one, other: one * other,
    "ave": lambda one, other: (one + other) / 2.0,
}


@dataclass(frozen=True, slots=True)
class Bidirectional:
    forward: Recurrent
    backward: Recurrent
    merge: str

    def apply(self, x: Array) -> Array:
        one, other = self.forward.apply(x), self.backward.apply(x)
        if self.backward.sequences:
            other = other[:, ::-1]
        return MERGES[self.merge](one, other)

    def nodes(self, graph: Writer) -> None:
        source = graph.last
        one, other = self.forward.read(graph, source), self.backward.read(graph, source)
        if self.backward.sequences:
            ends = [graph.constant(np.array([number]), np.int64) for number in (-1, np.iinfo(np.int64).min, 1, -1)]
            other = graph.put("Slice", other, *ends)
        if self.merge == "concat":
            graph.put("Concat", one, other, axis=-1)
        else:
            graph.put("Mul" if self.merge == "mul" else "Add", one, other)
        if self.merge == "ave":
            graph.put("Mul", graph.last, graph.constant(np.array(0.5)))


Layer = Dense | Activate | Scale | Flatten | Recurrent | Bidirectional


# --- files to layers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Network:
    """Layers in a row, and the shape of one row of inputs."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    last: str

    def apply(self, x: Array) -> Array:
        """(rows, *shape) to (rows, outputs), in 64 bits."""
        for layer in self.layers:
            x = layer.apply(x)
        return x


def read_keras(data: bytes, target: str, classes: tuple[str, ...]) -> Foreign:
    """A file of `model.save`, either kind. Raises Refusal."""
    network = read_network(data)
    count = int(np.prod(network.shape))
    encoder = plain_encoder([Column(name, "number") for name in _names(network.shape)])
    outputs = network.apply(np.zeros((1, *network.shape))).shape
    if len(outputs) != 2:
        raise Refusal("the network answers with a sequence; one answer a row is served")
    chance = network.last == "Sigmoid" and outputs[1] == 1
    if not chance and outputs[1] > 1 and network.last != "Softmax":
        raise Refusal(f"the network has {outputs[1]} outputs that are no probabilities; one number or classes are served")
    labels = range(max(2, outputs[1])) if chance or outputs[1] > 1 else None

    def original(frame: pd.DataFrame) -> Matrix:
        found = network.apply(frame.to_numpy(dtype=float).reshape(-1, *network.shape))
        return np.hstack([1.0 - found, found]) if chance else found

    scorer = Graph(to_onnx(network), (Feed("x", "float32", 0, network.shape),), "y", count, chance)
    return Foreign("Keras", encoder, [(encoder, scorer, SINGLE)], target_of(target, labels, classes), original)


def _names(shape: tuple[int, ...]) -> list[str]:
    """x1, x2 …; step1_x1 … for a sequence."""
    if len(shape) == 1:
        return [f"x{place}" for place in range(1, shape[0] + 1)]
    return [f"step{step}_x{place}" for step in range(1, shape[0] + 1) for place in range(1, shape[1] + 1)]


def to_onnx(network: Network) -> bytes:
    """The network in 32 bits, from `x` (rows, *shape) to `y`."""
    graph = Writer("x")
    for layer in network.layers:
        layer.nodes(graph)
    graph.nodes.append(helper.make_node("Identity", [graph.last], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *network.shape])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    body = helper.make_graph(graph.nodes, "network", inputs, outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    return model.SerializeToString()


def read_network(data: bytes) -> Network:
    """Raises Refusal."""
    try:
        config, weights, keras = _read_zip(data) if data.startswith(b"PK") else _read_h5(data)
        return _network(config, weights, keras)
    except Refusal:
        raise
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise Refusal(f"the file is no whole Keras network ({type(error).__name__})") from error


WeightsOf = Callable[[str, str], list[Array]]
"""From a layer's class and name to its weights in Keras's order; asked once a layer, in their order."""


def _read_h5(data: bytes) -> tuple[dict[str, Any], WeightsOf, int]:
    file = h5py.File(io.BytesIO(data))
    if "model_config" not in file.attrs:
        raise Refusal("the file holds weights without the network: save the whole model")
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
            raise Refusal("the weights lie in another file: save the model with its weights inside")
        place = place[part]
    if place.external or place.is_virtual:
        raise Refusal("the weights lie in another file: save the model with its weights inside")
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
        raise Refusal(f"a {kind} of Keras is not taken: only layers in a row are")
    if kind == "Sequential":
        return
    before = None
    for layer in layers:
        sources = list(_sources(layer.get("inbound_nodes", [])))
        if sources != ([before] if before else []):
            raise Refusal("the network branches: only layers in a row are taken")
        before = layer["config"]["name"]


def _sources(nodes: Any) -> Iterator[str]:
    """The layers that a layer reads, in the notation of Keras 2 and of Keras 3."""
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
        raise Refusal("the shape of the inputs must be fixed: (columns) or (steps, columns)")
    return tuple(shape[1:])


def _layer(kind: str, config: Mapping[str, Any], weights: Callable[[], list[Array]], keras: int, rank: int) -> list[Layer]:
    """What a layer over an input of so many axes becomes; nothing for those that only act in training. Raises Refusal."""
    if kind == "Masking":
        raise Refusal("the network masks steps, which is not taken")
    if kind in IGNORED:
        return []
    if kind == "Dense":
        kernel, *bias = weights()
        return [Dense(kernel, bias[0] if bias else np.zeros(kernel.shape[1]), _activation(config["activation"], keras))]
    if kind == "Activation":
        return [Activate(_activation(config["activation"], keras))]
    if kind == "ReLU" and not any(config.get(key) for key in ("max_value", "negative_slope", "threshold")):
        return [Activate(_activation("relu", keras))]
    if kind == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return [Activate(_activation("softmax", keras))]
    if kind == "Flatten":
        return [Flatten()]
    if kind == "BatchNormalization":
        if config.get("axis", -1) not in (-1, [-1], rank - 1, [rank - 1]):
            raise Refusal("a BatchNormalization over another axis than the last is not taken")
        return [_scale(config, weights())]
    if kind in ("GRU", "LSTM"):
        return [_recurrent(kind, config, weights(), keras, bool(config.get("go_backwards")))]
    if kind == "Bidirectional":
        return [_both_ways(config, weights(), keras)]
    raise Refusal(
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
        raise Refusal("a stateful layer's answer depends on the rows before, which a service cannot give")
    bias = np.zeros((2, kernel.shape[1]))
    if biases:
        bias[: np.atleast_2d(biases[0]).shape[0]] = biases[0]
    return Recurrent(
        kind,
        kernel,
        recurrent,
        bias,
        _activation(config["recurrent_activation"], keras),
        _activation(config["activation"], keras),
        bool(config.get("reset_after", False)),
        backwards,
        bool(config["return_sequences"]),
    )


def _both_ways(config: Mapping[str, Any], weights: list[Array], keras: int) -> Bidirectional:
    inner, merge = config["layer"], config["merge_mode"]
    if inner["class_name"] not in ("GRU", "LSTM") or merge not in MERGES:
        raise Refusal("a Bidirectional layer of this form is not taken: GRU or LSTM; concat, sum, mul or ave")
    half = len(weights) // 2
    one, other = (
        _recurrent(inner["class_name"], inner["config"], part, keras, backwards)
        for part, backwards in ((weights[:half], False), (weights[half:], True))
    )
    return Bidirectional(one, other, merge)

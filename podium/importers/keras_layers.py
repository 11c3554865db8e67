"""The layers of a Keras network: their formulas in 64 bits (`apply`), and the same as ONNX operators (`nodes`).

Keras 2's hard_sigmoid is clip(0.2 x + 0.5, 0, 1), Keras 3's clip(x / 6 + 0.5, 0, 1); the release that saved the file decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from podium.importers.errors import ImportRefused

Array = np.ndarray

OPSET = 18


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


def activation(config: Any, keras: int) -> Activation:
    """Raises Refusal."""
    if isinstance(config, dict) and config.get("class_name") == "function":
        config = config.get("config")
    if config is not None and not isinstance(config, str):
        raise ImportRefused("an activation with settings of its own is not taken: use one by its name")
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
        raise ImportRefused(f"the activation {name} is not among those that are taken: {', '.join(known)}")
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

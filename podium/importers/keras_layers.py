"""The layers of a Keras network as float64 formulas (`apply`) and as ONNX operators (`add_to`).

In Keras 2, hard_sigmoid is clip(0.2 x + 0.5, 0, 1); in Keras 3, it is clip(x / 6 + 0.5, 0, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import GraphBuilder

Array = np.ndarray


def _softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


@dataclass(frozen=True, slots=True)
class Activation:
    """A function and its ONNX operator; recurrent operators take the operator's name as an attribute."""

    apply: Callable[[Array], Array]
    operator: str
    attributes: Mapping[str, Any]


def activation(config: Any, keras_major: int) -> Activation:
    """Return the activation of a layer configuration. Raises ImportRefused."""
    if isinstance(config, dict) and config.get("class_name") == "function":
        config = config.get("config")
    if config is not None and not isinstance(config, str):
        raise ImportRefused("custom activations are not supported: use the name of a built-in activation")
    name = config or "linear"
    slope = 0.2 if keras_major < 3 else 1 / 6
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
        raise ImportRefused(f"the activation {name} is not supported: use one of {', '.join(known)}")
    return known[name]


@dataclass(frozen=True, slots=True)
class Dense:
    kernel: Array
    bias: Array
    activation: Activation

    def apply(self, x: Array) -> Array:
        return self.activation.apply(x @ self.kernel + self.bias)

    def add_to(self, graph: GraphBuilder) -> None:
        product = graph.add("MatMul", graph.output, graph.constant(self.kernel))
        graph.add("Add", product, graph.constant(self.bias))
        graph.add(self.activation.operator, graph.output, **self.activation.attributes)


@dataclass(frozen=True, slots=True)
class Activate:
    activation: Activation

    def apply(self, x: Array) -> Array:
        return self.activation.apply(x)

    def add_to(self, graph: GraphBuilder) -> None:
        graph.add(self.activation.operator, graph.output, **self.activation.attributes)


@dataclass(frozen=True, slots=True)
class Normalize:
    """Batch normalization with the moving mean and variance."""

    factor: Array
    shift: Array

    def apply(self, x: Array) -> Array:
        return x * self.factor + self.shift

    def add_to(self, graph: GraphBuilder) -> None:
        graph.add("Mul", graph.output, graph.constant(self.factor))
        graph.add("Add", graph.output, graph.constant(self.shift))


@dataclass(frozen=True, slots=True)
class Flatten:
    def apply(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def add_to(self, graph: GraphBuilder) -> None:
        graph.add("Flatten", graph.output)


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A GRU or LSTM over (rows, steps, inputs); `bias` is (2, gates × units) for inputs and state.

    Keras orders the gates of a GRU as update, reset, new, and of an LSTM as input, forget, new, output. ONNX orders those of an
    LSTM as input, output, forget, new. With `reset_after`, as in cuDNN, the reset gate applies to the product with the state.
    """

    kind: str
    kernel: Array
    recurrent_kernel: Array
    bias: Array
    gate_activation: Activation
    state_activation: Activation
    reset_after: bool
    backwards: bool
    return_sequences: bool

    def apply(self, x: Array) -> Array:
        steps = range(x.shape[1])
        state = cell_state = np.zeros((len(x), len(self.recurrent_kernel)))
        outputs = []
        step_function = self._gru if self.kind == "GRU" else self._lstm
        for step in reversed(steps) if self.backwards else steps:
            state, cell_state = step_function(x[:, step], state, cell_state)
            outputs.append(state)
        return np.stack(outputs, axis=1) if self.return_sequences else state

    def _gru(self, x: Array, state: Array, cell_state: Array) -> tuple[Array, Array]:
        size = state.shape[1]
        inputs = x @ self.kernel + self.bias[0]
        gate_kernel, kernel = np.split(self.recurrent_kernel, [2 * size], axis=1)
        gate_bias, bias = np.split(self.bias[1], [2 * size])
        gates = self.gate_activation.apply(inputs[:, : 2 * size] + state @ gate_kernel + gate_bias)
        update, reset = gates[:, :size], gates[:, size:]
        past = reset * (state @ kernel + bias) if self.reset_after else (reset * state) @ kernel + bias
        return update * state + (1.0 - update) * self.state_activation.apply(inputs[:, 2 * size :] + past), cell_state

    def _lstm(self, x: Array, state: Array, cell_state: Array) -> tuple[Array, Array]:
        gates = x @ self.kernel + self.bias[0] + state @ self.recurrent_kernel + self.bias[1]
        input_gate, forget, new, output = np.split(gates, 4, axis=1)
        gate = self.gate_activation.apply
        cell_state = gate(forget) * cell_state + gate(input_gate) * self.state_activation.apply(new)
        return gate(output) * self.state_activation.apply(cell_state), cell_state

    def add_to(self, graph: GraphBuilder) -> None:
        self.add_reading(graph, graph.output)

    def add_reading(self, graph: GraphBuilder, source: str) -> str:
        """Add the operator that reads `source` (rows, steps, inputs); return its output."""
        order = (0, 1, 2) if self.kind == "GRU" else (0, 3, 1, 2)
        attributes: dict[str, Any] = {"hidden_size": len(self.recurrent_kernel)}
        attributes |= {"direction": "reverse" if self.backwards else "forward"}
        functions = [self.gate_activation] + [self.state_activation] * (1 if self.kind == "GRU" else 2)
        attributes["activations"] = [function.operator for function in functions]
        attributes["activation_alpha"] = [float(f.attributes["alpha"]) for f in functions if "alpha" in f.attributes]
        attributes["activation_beta"] = [float(f.attributes["beta"]) for f in functions if "beta" in f.attributes]
        attributes = {name: value for name, value in attributes.items() if value != []}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = int(self.reset_after)
        by_step = graph.add("Transpose", source, perm=[1, 0, 2])
        weights = [graph.constant(_reorder_gates(kernel, order).T[None]) for kernel in (self.kernel, self.recurrent_kernel)]
        biases = [_reorder_gates(bias, order) for bias in (self.bias[:1], self.bias[1:])]
        bias = graph.constant(np.concatenate(biases, axis=1))
        if not self.return_sequences:
            last = graph.add(self.kind, by_step, *weights, bias, outputs=2, which=1, **attributes)
            return graph.add("Squeeze", last, graph.constant(np.array([0]), np.int64))
        steps = graph.add(self.kind, by_step, *weights, bias, outputs=2, **attributes)
        flat = graph.add("Squeeze", steps, graph.constant(np.array([1]), np.int64))
        if self.backwards:  # Keras returns the steps in reading order
            ends = [graph.constant(np.array([number]), np.int64) for number in (-1, np.iinfo(np.int64).min, 0, -1)]
            flat = graph.add("Slice", flat, *ends)
        return graph.add("Transpose", flat, perm=[1, 0, 2])


def _reorder_gates(weights: Array, order: Sequence[int]) -> Array:
    parts = np.split(weights, len(order), axis=-1)
    return np.concatenate([parts[gate] for gate in order], axis=-1)


MERGE_FUNCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2.0,
}


@dataclass(frozen=True, slots=True)
class Bidirectional:
    forward: Recurrent
    backward: Recurrent
    merge: str

    def apply(self, x: Array) -> Array:
        forward, backward = self.forward.apply(x), self.backward.apply(x)
        if self.backward.return_sequences:
            backward = backward[:, ::-1]
        return MERGE_FUNCTIONS[self.merge](forward, backward)

    def add_to(self, graph: GraphBuilder) -> None:
        source = graph.output
        forward, backward = self.forward.add_reading(graph, source), self.backward.add_reading(graph, source)
        if self.backward.return_sequences:
            ends = [graph.constant(np.array([number]), np.int64) for number in (-1, np.iinfo(np.int64).min, 1, -1)]
            backward = graph.add("Slice", backward, *ends)
        if self.merge == "concat":
            graph.add("Concat", forward, backward, axis=-1)
        else:
            graph.add("Mul" if self.merge == "mul" else "Add", forward, backward)
        if self.merge == "ave":
            graph.add("Mul", graph.output, graph.constant(np.array(0.5)))


Layer = Dense | Activate | Normalize | Flatten | Recurrent | Bidirectional


@dataclass(frozen=True, slots=True)
class Network:
    """A sequence of layers; `shape` is the shape of one row of inputs."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    last_activation: str

    def apply(self, x: Array) -> Array:
        """Map (rows, *shape) to (rows, outputs) in float64."""
        for layer in self.layers:
            x = layer.apply(x)
        return x


def to_onnx(network: Network) -> bytes:
    """Return the network in float32, from `x` (rows, *shape) to `y`."""
    graph = GraphBuilder("x", np.float32)
    for layer in network.layers:
        layer.add_to(graph)
    return graph.model("x", network.shape, graph.output)

"""GRU and LSTM layers of a Keras network as float64 formulas (`apply`) and as ONNX operators (`tensor`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import Tensor
from podium.importers.keras_formulas import Activation, Array, Layer, activation, apply
from podium.importers.keras_layer_config import REMEDY, LayerConfig, is_of_keras

GATE_OPERATORS = ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")
"""The activations that ONNX's recurrent operators have."""
MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda x, y: apply("Concat", x, y, axis=-1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda x, y: (x + y) * 0.5,
}
"""The ways to merge both directions."""


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A GRU or LSTM over (rows, steps, inputs); `bias` is (2, gates × units) for inputs and state.

    Keras orders the gates of a GRU as update, reset, new, and of an LSTM as input, forget, new, output. ONNX orders those of an
    LSTM as input, output, forget, new. With `reset_after`, as in cuDNN, the reset gate applies to the product with the state.
    A layer that reads `backwards` returns the steps `in_reading_order`, except within Bidirectional.
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
    in_reading_order: bool = True

    def __call__(self, x: Any) -> Any:
        return self.tensor(x) if isinstance(x, Tensor) else self.apply(x)

    def apply(self, x: Array) -> Array:
        steps = range(x.shape[1])
        state = cell_state = np.zeros((len(x), len(self.recurrent_kernel)))
        outputs = []
        step_function = self._gru if self.kind == "GRU" else self._lstm
        for step in reversed(steps) if self.backwards else steps:
            state, cell_state = step_function(x[:, step], state, cell_state)
            outputs.append(state)
        if self.backwards and not self.in_reading_order:
            outputs.reverse()
        return np.stack(outputs, axis=1) if self.return_sequences else state

    def _gru(self, x: Array, state: Array, cell_state: Array) -> tuple[Array, Array]:
        size = state.shape[1]
        inputs = x @ self.kernel + self.bias[0]
        gate_kernel, kernel = np.split(self.recurrent_kernel, [2 * size], axis=1)
        gate_bias, bias = np.split(self.bias[1], [2 * size])
        gates = self.gate_activation(inputs[:, : 2 * size] + state @ gate_kernel + gate_bias)
        update, reset = gates[:, :size], gates[:, size:]
        past = reset * (state @ kernel + bias) if self.reset_after else (reset * state) @ kernel + bias
        return update * state + (1.0 - update) * self.state_activation(inputs[:, 2 * size :] + past), cell_state

    def _lstm(self, x: Array, state: Array, cell_state: Array) -> tuple[Array, Array]:
        gates = x @ self.kernel + self.bias[0] + state @ self.recurrent_kernel + self.bias[1]
        input_gate, forget, new, output = np.split(gates, 4, axis=1)
        input_gate, forget, output = (self.gate_activation(gate) for gate in (input_gate, forget, output))
        cell_state = forget * cell_state + input_gate * self.state_activation(new)
        return output * self.state_activation(cell_state), cell_state

    def tensor(self, source: Tensor) -> Tensor:
        graph = source.graph
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
        by_step = source.apply("Transpose", perm=[1, 0, 2])
        weights = [graph.constant(_reorder_gates(kernel, order).T[None]) for kernel in (self.kernel, self.recurrent_kernel)]
        biases = [_reorder_gates(bias, order) for bias in (self.bias[:1], self.bias[1:])]
        bias = graph.constant(np.concatenate(biases, axis=1))
        steps, last = graph.add_with_outputs(2, self.kind, by_step, *weights, bias, **attributes)
        if not self.return_sequences:
            return last.apply("Squeeze", [0])
        flat = steps.apply("Squeeze", [1])
        if self.backwards and self.in_reading_order:
            flat = flat.apply("Slice", *([number] for number in (-1, np.iinfo(np.int64).min, 0, -1)))
        return flat.apply("Transpose", perm=[1, 0, 2])


def _reorder_gates(weights: Array, order: Sequence[int]) -> Array:
    parts = np.split(weights, len(order), axis=-1)
    return np.concatenate([parts[gate] for gate in order], axis=-1)


def gru_or_lstm(layer: LayerConfig) -> Layer:
    """Convert a layer that reads the steps in one direction. Raises ImportRefused."""
    layer.require("time_major", False)
    weights = layer.weights(2 + bool(layer.config.get("use_bias", True)))
    return _recurrent(layer, layer.kind, layer.config, weights, bool(layer.config.get("go_backwards")))


def bidirectional(layer: LayerConfig) -> Layer:
    """Convert two layers that read the steps in both directions. Raises ImportRefused."""
    inner, merge = layer.config["layer"], layer.config["merge_mode"]
    both = inner, layer.config.get("backward_layer") or inner
    is_known = all(each["class_name"] in ("GRU", "LSTM") and is_of_keras(each) for each in both)
    if not is_known or inner["config"].get("go_backwards") or merge not in MERGES:
        raise ImportRefused(
            f"Bidirectional is supported for GRU and LSTM with the merge modes {', '.join(MERGES)} only: {REMEDY}"
        )
    counts = [2 + bool(each["config"].get("use_bias", True)) for each in both]
    weights = layer.weights(sum(counts))
    forward = _recurrent(layer, inner["class_name"], inner["config"], weights[: counts[0]], False)
    backward = _recurrent(layer, both[1]["class_name"], both[1]["config"], weights[counts[0] :], True)
    backward = replace(backward, in_reading_order=False)
    return lambda x: MERGES[merge](forward(x), backward(x))


def _recurrent(layer: LayerConfig, kind: str, config: Mapping[str, Any], weights: list[Array], backwards: bool) -> Recurrent:
    kernel, recurrent_kernel, *biases = weights
    if config.get("stateful"):
        raise ImportRefused("a stateful layer depends on earlier rows: train the network with stateful=False")
    gates, state = (activation(config[key], layer.keras_major) for key in ("recurrent_activation", "activation"))
    if any(function.operator not in GATE_OPERATORS or function.gate for function in (gates, state)):
        raise ImportRefused(f"an activation of {kind} is not supported in a recurrent layer: {REMEDY}")
    bias = np.zeros((2, kernel.shape[1]))
    if biases:
        bias[: np.atleast_2d(biases[0]).shape[0]] = biases[0]
    reset_after, sequences = bool(config.get("reset_after", False)), bool(config["return_sequences"])
    return Recurrent(kind, kernel, recurrent_kernel, bias, gates, state, reset_after, backwards, sequences)

"""The operators of Keras's layers, as operators of a graph and as float64 formulas, and the activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import Tensor

Array = np.ndarray
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


Layer = Callable[..., Any]
"""Takes the tensors (rows, …) that a layer reads, or their values, and returns its result."""


def apply(operator: str, *inputs: Any, **attributes: Any) -> Any:
    """Apply an operator: add it to the graph of a tensor, or compute it for arrays."""
    tensor = next((value for value in inputs if isinstance(value, Tensor)), None)
    return FORMULAS[operator](*inputs, **attributes) if tensor is None else tensor.graph.add(operator, *inputs, **attributes)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _leaky_relu(x: Array, alpha: float | Array) -> Array:
    return np.where(x > 0, x, alpha * x)


def _softmax(x: Array, axis: int) -> Array:
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def _layer_normalization(x: Array, factor: Array, shift: Array, axis: int, epsilon: float) -> Array:
    centered = x - x.mean(axis=axis, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=axis, keepdims=True) + epsilon) * factor + shift


def _label_encoder(x: Array, domain: str, keys_floats: Array, values_floats: Array, default_float: float) -> Array:
    table = dict(zip(keys_floats, values_floats, strict=True))
    return np.array([table.get(value, default_float) for value in x.ravel().tolist()]).reshape(x.shape)


FORMULAS: dict[str, Callable[..., Array]] = {
    "Cast": lambda x, to: x.astype(int if to == TensorProto.INT64 else float),
    "Concat": lambda *x, axis: np.concatenate(x, axis=axis),
    "Elu": _elu,
    "Exp": np.exp,
    "Gather": lambda x, indices: x[indices],
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0),
    "LabelEncoder": _label_encoder,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "PRelu": _leaky_relu,
    "ReduceMax": lambda x, axes, keepdims: x.max(axis=tuple(axes), keepdims=bool(keepdims)),
    "ReduceMean": lambda x, axes, keepdims: x.mean(axis=tuple(axes), keepdims=bool(keepdims)),
    "ReduceSum": lambda x, axes, keepdims: x.sum(axis=tuple(axes), keepdims=bool(keepdims)),
    "Relu": lambda x: np.maximum(x, 0.0),
    "Reshape": lambda x, shape: x.reshape(shape),
    "Selu": lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "Sigmoid": lambda x: 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0))),
    "Softmax": _softmax,
    "Softplus": lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Tanh": np.tanh,
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(axes)),
    "Where": np.where,
}


@dataclass(frozen=True, slots=True)
class Activation:
    """An operator of one tensor, whose result a `gate` multiplies by its input. No operator returns the input."""

    operator: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    gate: bool = False

    def __call__(self, x: Any) -> Any:
        if not self.operator:
            return x
        result = apply(self.operator, x, **self.attributes)
        return x * result if self.gate else result


def activation(config: Any, keras_major: int) -> Activation:
    """Return the activation of a layer configuration. Raises ImportRefused.

    In Keras 2, hard_sigmoid is clip(0.2 x + 0.5, 0, 1); in Keras 3, it is clip(x / 6 + 0.5, 0, 1).
    """
    name = activation_name(config)
    slope = 0.2 if keras_major < 3 else 1 / 6
    known = {
        "linear": Activation(),
        "elu": Activation("Elu", {"alpha": 1.0}),
        "exponential": Activation("Exp"),
        "hard_sigmoid": Activation("HardSigmoid", {"alpha": slope, "beta": 0.5}),
        "leaky_relu": Activation("LeakyRelu", {"alpha": 0.2}),
        "relu": Activation("Relu"),
        "selu": Activation("Selu"),
        "sigmoid": Activation("Sigmoid"),
        "silu": Activation("Sigmoid", gate=True),
        "softmax": Activation("Softmax", {"axis": -1}),
        "softplus": Activation("Softplus"),
        "softsign": Activation("Softsign"),
        "swish": Activation("Sigmoid", gate=True),
        "tanh": Activation("Tanh"),
    }
    if name not in known:
        raise ImportRefused(f"the activation {name[:80]} is not supported: use one of {', '.join(known)}")
    return known[name]


def activation_name(config: Any) -> str:
    """Return the name of an activation, which newer files write as a function. Raises ImportRefused."""
    if isinstance(config, dict) and config.get("class_name") == "function":
        config = config.get("config")
    if config is not None and not isinstance(config, str):
        raise ImportRefused("custom activations are not supported: use the name of a built-in activation")
    return config or "linear"

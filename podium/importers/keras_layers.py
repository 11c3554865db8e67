"""Convert the layers of a Keras network to operators, each from its configuration and its weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.keras_codes import category_encoding, embedding, lookup
from podium.importers.keras_formulas import Activation, Array, Layer, apply
from podium.importers.keras_layer_config import REMEDY, LayerConfig, Shape, check_size
from podium.importers.keras_recurrent import bidirectional, gru_or_lstm


def _dense(layer: LayerConfig) -> Layer:
    has_bias, activation = bool(layer.config.get("use_bias", True)), layer.activation()
    kernel, *biases = layer.weights(1 + has_bias)
    bias = biases[0] if biases else np.zeros(kernel.shape[1])
    check_size((*layer.shape[:-1], kernel.shape[1]))
    return lambda x: activation(x @ kernel + bias)


def _activation(layer: LayerConfig) -> Layer:
    return layer.activation()


def _relu(layer: LayerConfig) -> Layer:
    layer.require("threshold", 0, None)
    layer.require("max_value", None)
    slope = float(layer.config.get("negative_slope") or 0.0)
    return Activation("LeakyRelu", {"alpha": slope}) if slope else Activation("Relu")


def _leaky_relu(layer: LayerConfig) -> Layer:
    return Activation("LeakyRelu", {"alpha": float(layer.config.get("negative_slope", layer.config.get("alpha")))})


def _elu(layer: LayerConfig) -> Layer:
    return Activation("Elu", {"alpha": float(layer.config["alpha"])})


def _parametric_relu(layer: LayerConfig) -> Layer:
    (slope,) = layer.weights(1)
    return lambda x: apply("PRelu", x, slope)


def _softmax(layer: LayerConfig) -> Layer:
    layer.require_last_axis()
    return Activation("Softmax", {"axis": -1})


def _reshape(layer: LayerConfig) -> Layer:
    sizes = [int(size) for size in layer.config["target_shape"]]
    known = math.prod(size for size in sizes if size != -1)
    return _reshaped(layer, tuple(math.prod(layer.shape) // max(known, 1) if size == -1 else size for size in sizes))


def _flatten(layer: LayerConfig) -> Layer:
    layer.require("data_format", "channels_last", None)
    return _reshaped(layer, (math.prod(layer.shape),))


def _reshaped(layer: LayerConfig, shape: Shape) -> Layer:
    if math.prod(shape) != math.prod(layer.shape) or not all(size > 0 for size in shape):
        raise ImportRefused(f"a {layer.kind} changes the number of values: save the model again")
    return lambda x: apply("Reshape", x, [-1, *shape])


def _affine(factor: Array, shift: Array) -> Layer:
    return lambda x: x * factor + shift


def _rescaling(layer: LayerConfig) -> Layer:
    return _affine(np.asarray(layer.config["scale"], dtype=float), np.asarray(layer.config["offset"], dtype=float))


def _batch_normalization(layer: LayerConfig) -> Layer:
    """Use the moving mean and variance."""
    layer.require_last_axis()
    gamma, beta, mean, variance = _scaled_weights(layer, 2)
    factor = gamma / np.sqrt(variance + layer.config["epsilon"])
    return _affine(factor, beta - mean * factor)


def _layer_normalization(layer: LayerConfig) -> Layer:
    layer.require_last_axis()
    layer.require("rms_scaling", False)
    gamma, beta = _scaled_weights(layer, 0)
    options: dict[str, Any] = {"axis": -1, "epsilon": float(layer.config["epsilon"])}
    return lambda x: apply("LayerNormalization", x, gamma, beta, **options)


def _scaled_weights(layer: LayerConfig, others: int) -> list[Array]:
    """Return the factors and the shifts of a normalization, which are optional, and its other weights."""
    options = [bool(layer.config[key]) for key in ("scale", "center")]
    weights = layer.weights(sum(options) + others)
    defaults = np.ones(layer.shape[-1]), np.zeros(layer.shape[-1])
    return [*(weights.pop(0) if option else default for option, default in zip(options, defaults, strict=True)), *weights]


def _normalization(layer: LayerConfig) -> Layer:
    """Subtract the mean first, because large means leave no digits otherwise."""
    layer.require("invert", False)
    if layer.config.get("axis", -1) is not None:
        layer.require_last_axis()
    mean, variance = layer.config.get("mean"), layer.config.get("variance")
    if mean is None:
        mean, variance, _ = layer.weights(3)
    center, scale = np.asarray(mean, dtype=float), np.maximum(np.sqrt(np.asarray(variance, dtype=float)), 1e-7)
    return lambda x: (x - center) / scale


def _concatenate(layer: LayerConfig) -> Layer:
    rank, axis = len(layer.shapes[0]) + 1, int(layer.config["axis"])
    axis = axis + rank if axis < 0 else axis
    if not 0 < axis < rank:
        raise ImportRefused(f"Concatenate is not supported over the rows: {REMEDY}")
    check_size([sum(map(math.prod, layer.shapes))])
    return lambda *sources: apply("Concat", *sources, axis=axis)


FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Average": np.add,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Multiply": np.multiply,
    "Subtract": np.subtract,
}
"""For each layer that merges tensors one by one, the function of two tensors."""


def _fold(layer: LayerConfig) -> Layer:
    count = len(layer.shapes)
    if len(set(map(len, layer.shapes))) != 1 or count < 2 or (layer.kind == "Subtract" and count != 2):
        raise ImportRefused(f"{layer.kind} is supported for several tensors with the same number of axes only: {REMEDY}")
    check_size(np.broadcast_shapes(*layer.shapes))

    def fold(*sources: Any) -> Any:
        result = functools.reduce(FOLDS[layer.kind], sources)
        return result * (1.0 / len(sources)) if layer.kind == "Average" else result

    return fold


def _dot(layer: LayerConfig) -> Layer:
    layer.require("normalize", False)
    if layer.config["axes"] not in (1, -1, [1, 1], [-1, -1]) or [len(shape) for shape in layer.shapes] != [1, 1]:
        raise ImportRefused(f"Dot is supported for two vectors per row only: {REMEDY}")
    return lambda x, y: apply("ReduceSum", x * y, [1], keepdims=1)


def _pool(layer: LayerConfig) -> Layer:
    """Reduce the steps to their mean or their maximum."""
    layer.require("data_format", "channels_last", None)
    operator, keepdims = "ReduceMean" if "Average" in layer.kind else "ReduceMax", int(layer.config.get("keepdims", False))
    return lambda x: apply(operator, x, [1], keepdims=keepdims)


CONVERTERS: dict[str, Callable[[LayerConfig], Layer]] = {
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Bidirectional": bidirectional,
    "CategoryEncoding": category_encoding,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Dot": _dot,
    "ELU": _elu,
    "Embedding": embedding,
    "Flatten": _flatten,
    "GRU": gru_or_lstm,
    "GlobalAveragePooling1D": _pool,
    "GlobalMaxPooling1D": _pool,
    "IntegerLookup": lookup,
    "LSTM": gru_or_lstm,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _leaky_relu,
    "Normalization": _normalization,
    "PReLU": _parametric_relu,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "StringLookup": lookup,
    **dict.fromkeys(FOLDS, _fold),
}
"""For each class of layers, the function that converts it, which raises ImportRefused."""

"""Convert the layers of Keras that read codes: embeddings, encodings of categories, and lookups in a vocabulary.

A code outside the range of the layer becomes NaN, and so does a text that is unknown to a vocabulary without unknown texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from podium.importers.errors import ImportRefused
from podium.importers.keras_formulas import Layer, apply
from podium.importers.keras_layer_config import LayerConfig, check_size

MAX_CODE = 1 << 24
"""Whole numbers below this are exact in float32."""


def embedding(layer: LayerConfig) -> Layer:
    """Return the row of the weights with each code."""
    (vectors,) = layer.weights(1)
    count, width = vectors.shape
    check_size((*layer.shape, width))
    _restrict(layer, count)
    table = np.vstack([vectors, np.full(width, np.nan)])

    return lambda x: apply("Gather", table, apply("Cast", _codes(x, count, float(count)), to=TensorProto.INT64))


def category_encoding(layer: LayerConfig) -> Layer:
    """Return a column per code. Raises ImportRefused."""
    layer.require("output_mode", "multi_hot", "one_hot", "count")
    count = int(layer.config["num_tokens"])
    _restrict(layer, count)
    return _encoding(layer, count)


def _restrict(layer: LayerConfig, count: int) -> None:
    if layer.input:
        layer.input.restrict(0.0, count - 1.0, strict=True)


def _codes(x: Any, count: int, other: float) -> Any:
    """Return the codes, and `other` for numbers that are not from 0 to count - 1."""
    return apply("Where", np.logical_and(x >= 0.0, x < float(count)), x, other)


def _encoding(layer: LayerConfig, count: int) -> Layer:
    """Count how often each code occurs in a row, or whether it occurs. Raises ImportRefused."""
    mode = layer.config["output_mode"]
    if len(layer.shape) != 1 or (mode == "one_hot" and layer.shape != (1,)):
        raise ImportRefused(f"{layer.kind} with output_mode = {mode} is supported for one column only: use multi_hot")
    check_size((*layer.shape, count))

    def encode(x: Any) -> Any:
        codes = apply("Unsqueeze", _codes(x, count, math.nan), [-1])
        hits = apply("Cast", codes == np.arange(count), to=TensorProto.FLOAT) + codes * 0.0  # keeps NaN
        counts = apply("ReduceSum", hits, [1], keepdims=0)
        return counts if mode == "count" else np.minimum(counts, 1.0)

    return encode


def lookup(layer: LayerConfig) -> Layer:
    """Convert a StringLookup or an IntegerLookup: the index of each value in a vocabulary. Raises ImportRefused."""
    layer.require("invert", False)
    layer.require("num_oov_indices", 1, 0)
    layer.require("output_mode", "int", "one_hot", "multi_hot", "count")
    is_index, mask = layer.config.get("output_mode", "int") == "int", layer.config.get("mask_token")
    if not is_index:
        layer.require("mask_token", None)
    has_unknown = layer.config.get("num_oov_indices", 1) == 1
    special = ([] if mask is None else [str(mask)]) + ([str(layer.config["oov_token"])] if has_unknown else [])
    values = _vocabulary(layer, special)
    table = {value: float(index) for index, value in enumerate(values, len(special))}
    if mask is not None:
        table[str(mask)] = 0.0
    unknown = len(special) - 1.0 if has_unknown else math.nan
    find = (_find_text if layer.kind == "StringLookup" else _find_number)(layer, table, unknown)
    if is_index:
        return find
    depth = layer.config["max_tokens"] if layer.config.get("pad_to_max_tokens") else len(special) + len(values)
    encode = _encoding(layer, int(depth))
    return lambda x: encode(find(x))


def _vocabulary(layer: LayerConfig, special: Sequence[str]) -> list[str]:
    """Return the values without the special ones, as text. Raises ImportRefused."""
    listed = layer.config.get("vocabulary")
    values = [str(value) for value in listed] if isinstance(listed, list) else layer.files().vocabulary()
    if not values:
        raise ImportRefused(
            f"the vocabulary of {layer.kind} is not in the file: save the model as .keras, or pass the layer `vocabulary=[…]`"
        )
    if values[: len(special)] == special:
        values = values[len(special) :]
    if len(set(values)) != len(values):
        raise ImportRefused(f"the vocabulary of {layer.kind} has duplicates: save the model again")
    return values


def _find_text(layer: LayerConfig, table: dict[str, float], unknown: float) -> Layer:
    """Find the positions of texts among the known texts of the input. A missing text is an empty one, as in Keras."""
    if layer.input is None:
        raise ImportRefused("StringLookup is supported for a text input only: give the model an input with dtype string")
    missing, texts = table.pop("", unknown), layer.input.texts
    texts.extend(list(dict.fromkeys([*texts, *table]))[len(texts) :])
    positions = {text: float(position) for position, text in enumerate(texts)}
    return _find({positions[text]: index for text, index in table.items()}, unknown, missing)


def _find_number(layer: LayerConfig, table: dict[str, float], unknown: float) -> Layer:
    numbers = {float(int(value)): index for value, index in table.items()}
    if math.isnan(unknown) or max(map(abs, numbers)) >= MAX_CODE:
        raise ImportRefused(
            f"IntegerLookup is supported with num_oov_indices=1 for numbers below {MAX_CODE:,} only: use StringLookup"
        )
    if layer.input:
        layer.input.restrict(min(numbers), max(numbers), strict=False)
    return _find(numbers, unknown, math.nan)


def _find(numbers: dict[float, float], unknown: float, missing: float) -> Layer:
    """Return the index of each number, `unknown` for other numbers, and `missing` for NaN."""
    table: dict[str, Any] = {"keys_floats": list(numbers), "values_floats": list(numbers.values()), "default_float": unknown}
    return lambda x: apply("Where", np.isnan(x), missing, apply("LabelEncoder", x, domain="ai.onnx.ml", **table))

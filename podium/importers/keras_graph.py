"""Keras networks as graphs of layers: sequential, functional and nested ones, read from their configuration."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.keras_formulas import activation_name
from podium.importers.keras_layer_config import (
    REMEDY,
    LayerConfig,
    LayerFiles,
    NetworkInput,
    Shape,
    check_size,
    is_of_keras,
    layer_name,
)
from podium.importers.keras_layers import CONVERTERS
from podium.importers.keras_network import Network, Step

MODELS = ("Functional", "Model", "Sequential")
UNCHANGED = (
    *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity", "InputLayer"),
    "SpatialDropout1D",
)
"""Layers that return their input in predictions."""
LOOKUPS, READ_CODES = ("IntegerLookup", "StringLookup"), ("CategoryEncoding", "Embedding", "IntegerLookup")
KEEP_CODES, KEEP_PROBABILITIES = ("Flatten", "Reshape"), ("Average", "Flatten", "Reshape")
MAX_LAYERS = 1_000
Node = tuple[str, int]
"""The name of a layer and the number of its call."""


def read_graph(model: Mapping[str, Any], files: LayerFiles, keras_major: int) -> Network:
    """Return the network of a model's configuration. Raises ImportRefused."""
    reader = _Reader(keras_major)
    output = reader.model(model, files)
    return Network(tuple(reader.inputs), tuple(reader.steps), output, reader.activations[output])


@dataclass(slots=True)
class _Reader:
    """The values of a network so far: for each its shape and its activation, if that gives probabilities.

    `codes` are the values that may be whole numbers or text, with the input that they come from, or None after a lookup.
    """

    keras_major: int
    inputs: list[NetworkInput] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    activations: list[str] = field(default_factory=list)
    codes: dict[int, NetworkInput | None] = field(default_factory=dict)
    calls: int = 0

    def model(self, model: Mapping[str, Any], files: LayerFiles, sources: Sequence[int] | None = None) -> int:
        """Add a model that reads these values, or has its own inputs; return its output. Raises ImportRefused."""
        kind, content = model["class_name"], model["config"]
        if kind not in MODELS or not is_of_keras(model):
            raise ImportRefused(f"a Keras {kind[:80]} is not supported, only Sequential and functional models: {REMEDY}")
        layers = content if isinstance(content, list) else content["layers"]  # in the oldest files, Sequential is a list
        for layer in layers:
            _check_layer(layer)
        if kind != "Sequential":
            return self._functional(content, files, sources)
        value = self._input(layers[0]["config"]) if sources is None else _only(sources)
        for index in range(len(layers)):
            value = self._call(layers, index, files, [value])
        return value

    def _functional(self, config: Mapping[str, Any], files: LayerFiles, sources: Sequence[int] | None) -> int:
        layers = config["layers"]
        positions = {layer_name(layer): position for position, layer in enumerate(layers)}
        if len(positions) != len(layers):
            raise ImportRefused("two layers of the network have the same name: save the model again")
        inputs, outputs = list(_references(config["input_layers"])), list(_references(config["output_layers"]))
        if len(outputs) != 1:
            raise ImportRefused(
                f"the network has {len(outputs)} outputs, but one is supported: save "
                "`keras.Model(model.inputs, model.outputs[0])`"
            )
        if sources is None:
            sources = [self._input(layers[positions[name]]["config"]) for name, _ in inputs]
        values, nodes = dict(zip(inputs, sources, strict=True)), _nodes(layers, outputs)
        for node in TopologicalSorter(nodes).static_order():
            if node not in values:
                values[node] = self._call(layers, positions[node[0]], files, [values[source] for source in nodes[node]])
        return values[outputs[0]]

    def _input(self, config: Mapping[str, Any]) -> int:
        """Add an input of the whole network. Raises ImportRefused."""
        shape = config.get("batch_shape") or config.get("batch_input_shape") or [None, None]
        if len(shape) > 3 or not all(isinstance(size, int) and 0 < size <= 10_000 for size in shape[1:]):
            raise ImportRefused("the input shape must be fixed: build the network with (columns) or (steps, columns)")
        kind = str(config.get("dtype") or "float32")
        self.inputs.append(NetworkInput(str(config.get("name", "")), tuple(shape[1:]), kind == "string", "int" in kind))
        value = self._add(tuple(shape[1:]), "")
        self.codes[value] = self.inputs[value]
        return value

    def _add(self, shape: Shape, activation: str) -> int:
        """Add a value and return its index. Raises ImportRefused."""
        check_size([sum(map(math.prod, [*self.shapes, shape]))])
        self.shapes.append(shape)
        self.activations.append(activation)
        return len(self.shapes) - 1

    def _call(self, layers: Sequence[Mapping[str, Any]], index: int, files: LayerFiles, sources: Sequence[int]) -> int:
        """Add a layer that reads these values; return its result. Raises ImportRefused."""
        kind, config = layers[index]["class_name"], layers[index]["config"]
        stored = functools.partial(files.child, layers, index)
        self.calls += 1
        if self.calls > MAX_LAYERS:
            raise ImportRefused(f"the network has more than {MAX_LAYERS:,} layers: {REMEDY}")
        if kind in MODELS:
            return self.model(layers[index], stored(), sources)
        self._check_sources(kind, sources)
        if kind in UNCHANGED:
            return _only(sources)
        shapes, read = [self.shapes[source] for source in sources], self.codes.get(sources[0])
        step = Step(CONVERTERS[kind](LayerConfig(kind, config, stored, self.keras_major, shapes, read)), tuple(sources))
        self.steps.append(step)
        result = step.layer(*(np.zeros((1, *shape)) for shape in shapes))
        kept = {self.activations[source] for source in sources} if kind in KEEP_PROBABILITIES else {_activation(kind, config)}
        value = self._add(result.shape[1:], kept.pop() if len(kept) == 1 else "")
        if kind in LOOKUPS or (kind in KEEP_CODES and sources[0] in self.codes):
            self.codes[value] = None if kind in LOOKUPS else read
        return value

    def _check_sources(self, kind: str, sources: Sequence[int]) -> None:
        """Check that a layer can read these values. Raises ImportRefused."""
        reads_text = any(source < len(self.inputs) and self.inputs[source].is_text for source in sources)
        if reads_text != (kind == "StringLookup") and kind != "InputLayer":
            raise ImportRefused(f"{kind} reads {'text' if reads_text else 'no text'}: read text inputs with StringLookup")
        if kind in READ_CODES and not all(source in self.codes for source in sources):
            raise ImportRefused(f"{kind} is supported for inputs and lookups only: compute its codes before the network")


def _check_layer(layer: Mapping[str, Any]) -> None:
    """Check that a layer is supported. Raises ImportRefused."""
    kind = layer["class_name"]
    if kind not in (*CONVERTERS, *UNCHANGED, *MODELS) or not is_of_keras(layer):
        raise ImportRefused(f"the layer {str(kind)[:80]} is not supported ({', '.join(CONVERTERS)} are): {REMEDY}")
    if layer["config"].get("mask_zero"):
        raise ImportRefused(f"an Embedding with mask_zero=True is not supported: train without it, or {REMEDY}")


def _activation(kind: str, config: Mapping[str, Any]) -> str:
    """Return the activation of a layer if it gives probabilities, else an empty string."""
    name = activation_name(config["activation"]) if kind in ("Activation", "Dense") else kind.lower()
    return name if name in ("sigmoid", "softmax") else ""


def _only(sources: Sequence[int]) -> int:
    (source,) = sources
    return source


def _nodes(layers: Sequence[Mapping[str, Any]], outputs: Sequence[Node]) -> dict[Node, list[Node]]:
    """Return what each call reads. Keras 2 numbers the calls of a model within a model from 1. Raises ImportRefused."""
    calls = {layer_name(layer): [list(_references(node)) for node in layer.get("inbound_nodes", [])] for layer in layers}
    read = {*outputs, *(source for nodes in calls.values() for sources in nodes for source in sources)}
    first = {name: int((name, len(nodes)) in read) for name, nodes in calls.items()}
    return {(name, number): sources for name, nodes in calls.items() for number, sources in enumerate(nodes, first[name])}


def _references(value: Any) -> Iterator[Node]:
    """Yield the calls whose results a call reads, in the notation of Keras 2 or Keras 3. Raises ImportRefused."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        value = value["config"]["keras_history"]
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str):
        name, number, tensor, *arguments = value
        if tensor != 0 or not _is_unset(arguments):
            raise ImportRefused(f"{name[:80]} returns several tensors, or a layer that reads it has arguments: {REMEDY}")
        yield name, number
    elif isinstance(value, dict) and "args" in value:
        if not _is_unset(value.get("kwargs")):
            raise ImportRefused(f"a layer is called with the arguments {str(value['kwargs'])[:200]}: {REMEDY}")
        yield from _references(value["args"])
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _references(part)
    else:
        raise ImportRefused(f"a layer is called with {str(value)[:80]}, which is not a tensor: {REMEDY}")


def _is_unset(value: Any) -> bool:
    """Return whether the arguments of a call, such as `training` and `mask`, have no effect."""
    if isinstance(value, dict | list):
        return all(map(_is_unset, value.values() if isinstance(value, dict) else value))
    return value is None or value is False

"""One layer of a Keras file: its configuration, its weights and what it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from podium.importers.errors import ImportRefused
from podium.importers.keras_formulas import Activation, Array, activation

Shape = tuple[int, ...]
MAX_VALUES = 1 << 18
"""Maximum number of values of all layers for one row."""
REMEDY = "export the network to ONNX (tf2onnx) and import that"


class LayerFiles(Protocol):
    """What a file stores for one layer."""

    def weights(self) -> list[Array]:
        """Return the weights in Keras's order."""

    def vocabulary(self) -> list[str] | None:
        """Return the vocabulary that was learned from data; None if there is none."""

    def child(self, layers: Sequence[Mapping[str, Any]], index: int) -> LayerFiles:
        """Return what is stored for one of the layers of this model."""


@dataclass(slots=True)
class NetworkInput:
    """An input with the shape of one row, and what the layers that read it tell of its values.

    `texts` are the known values of a text input. A whole number outside `low` to `high` has no prediction if the input is
    `strict`.
    """

    name: str
    shape: Shape
    is_text: bool
    is_whole: bool
    texts: list[str] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    strict: bool = False

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    def restrict(self, low: float, high: float, *, strict: bool) -> None:
        """Record the whole numbers that a layer takes; strict limits come first."""
        if strict and self.strict and self.high is not None:
            high = min(high, self.high)
        if strict or not self.strict:
            self.low, self.high, self.strict = low, high, strict
        self.is_whole = True


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """A layer with the shapes of what it reads for one row, and the network's input if it reads one unchanged."""

    kind: str
    config: Mapping[str, Any]
    files: Callable[[], LayerFiles]
    keras_major: int
    shapes: Sequence[Shape]
    input: NetworkInput | None = None

    @property
    def shape(self) -> Shape:
        (shape,) = self.shapes
        return shape

    def weights(self, count: int) -> list[Array]:
        weights = self.files().weights()
        if len(weights) != count:
            raise ImportRefused(f"the layer {self.kind} has {len(weights)} weights, expected {count}: save the model again")
        return weights

    def activation(self, key: str = "activation") -> Activation:
        return activation(self.config[key], self.keras_major)

    def require(self, key: str, *values: object) -> None:
        """Require one of these values of an option; the first is the default. Raises ImportRefused."""
        value = self.config.get(key, values[0])
        if value not in values:
            raise ImportRefused(f"{self.kind} with {key} = {str(value)[:80]} is not supported: {REMEDY}")

    def require_last_axis(self) -> None:
        rank = len(self.shape)
        self.require("axis", -1, [-1], rank, [rank])


def check_size(shape: Sequence[int]) -> None:
    """Check the number of values of one row. Raises ImportRefused."""
    if math.prod(shape) > MAX_VALUES:
        raise ImportRefused(f"the network computes more than {MAX_VALUES:,} values for one row: {REMEDY}")


def layer_name(layer: Mapping[str, Any]) -> str:
    """Return the name of a layer; the layers of Sequential have it in their inner configuration only."""
    return str(layer.get("name") or layer["config"]["name"])


def is_of_keras(layer: Mapping[str, Any]) -> bool:
    """Return whether a class is a layer of Keras itself; older files do not name its module."""
    module, registered = str(layer.get("module") or "keras"), str(layer.get("registered_name") or "")
    return module.split(".")[0] in ("keras", "tf_keras") and ".ops." not in module and ">" not in registered

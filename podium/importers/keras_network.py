"""A Keras network as steps between values, computed by its formulas or converted to an ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from podium.importers.graph_builder import GraphBuilder
from podium.importers.keras_formulas import Array, Layer
from podium.importers.keras_layer_config import NetworkInput
from podium.models.onnx_scorer import OnnxScorer

BLOCK_ROWS = 256
"""Rows whose values are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Step:
    """A layer and the indices of the values that it reads."""

    layer: Layer
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """The values are the inputs, then the result of each step; `output` is the index of the result.

    `activation` is "sigmoid" or "softmax" if the result has it, else empty.
    """

    inputs: tuple[NetworkInput, ...]
    steps: tuple[Step, ...]
    output: int
    activation: str

    def apply(self, rows: Array) -> Array:
        """Map rows with the columns of all inputs to (rows, outputs) in float64."""
        matrix = rows.reshape(len(rows), -1)
        return np.concatenate([self._apply(matrix[first : first + BLOCK_ROWS]) for first in range(0, len(rows), BLOCK_ROWS)])

    def _apply(self, matrix: Array) -> Array:
        ends = np.cumsum([each.width for each in self.inputs])
        parts = zip(np.split(matrix, ends[:-1], axis=1), self.inputs, strict=True)
        values = [part.reshape(len(matrix), *each.shape) for part, each in parts]
        for step in self.steps:
            values.append(step.layer(*(values[source] for source in step.sources)))
        return values[self.output]


def to_scorer(network: Network, *, binary_probability: bool = False) -> OnnxScorer:
    """Return the network in float32; with `binary_probability`, its output is the probability of the second class."""
    graph = GraphBuilder(np.float32)
    widths = [each.width for each in network.inputs]
    values = [graph.source]
    if len(widths) > 1:
        values = graph.add_with_outputs(len(widths), "Split", graph.source, widths, axis=1)
    for index, each in enumerate(network.inputs):
        if len(each.shape) != 1:
            values[index] = values[index].apply("Reshape", [-1, *each.shape])
    for step in network.steps:
        values.append(step.layer(*(values[source] for source in step.sources)))
    return graph.scorer(sum(widths), values[network.output], binary_probability=binary_probability)

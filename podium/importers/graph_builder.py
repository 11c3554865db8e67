"""Build ONNX graphs from operators and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray
OPSETS = {"": 18, "ai.onnx.ml": 5}
Operand = str | Array | float
"""The name of a tensor, or a constant."""


class GraphBuilder:
    """Collects operators and constants of one element type; `output` is the output of the last operator."""

    def __init__(self, source: str, dtype: type = np.float64) -> None:
        self.output, self.dtype = source, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: Operand, outputs: int = 1, which: int = 0, **attributes: Any) -> str:
        """Add an operator and return the name of one of its outputs; constant inputs get the element type of the graph."""
        names = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        sources = [source if isinstance(source, str) else self.constant(np.asarray(source)) for source in inputs]
        self.nodes.append(helper.make_node(operator, sources, names, **attributes))
        self.output = names[which]
        return self.output

    def constant(self, values: Array, dtype: type | None = None) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self.constants)}"
        array: Array = np.array(values, dtype=dtype or self.dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def constant_rows(self, source: str, values: Array) -> str:
        """Return the same (1, outputs) values for every row of a (rows, columns) tensor, whatever it holds."""
        first = self.add("Gather", source, self.integers([0]), axis=1)
        zero = self.add("Mul", self.add("Cast", self.add("IsNaN", first), to=onnx.TensorProto.DOUBLE), 0.0)
        return self.add("Add", zero, values.reshape(1, -1))

    def integers(self, values: Sequence[int] | Array) -> str:
        """Add a constant of indices or of a shape."""
        return self.constant(np.asarray(values), np.int64)

    def model(self, source: str, shape: Sequence[int], output: str) -> bytes:
        """Return the graph from `source` (rows, *shape) to `y`."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        nodes = [*self.nodes, helper.make_node("Identity", [output], ["y"])]
        inputs = [helper.make_tensor_value_info(source, kind, [None, *shape])]
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        body = helper.make_graph(nodes, "model", inputs, outputs, self.constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()])
        model.ir_version = 10
        data: bytes = model.SerializeToString()
        return data

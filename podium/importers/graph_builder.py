"""Build ONNX graphs from operators and constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.mixins import NDArrayOperatorsMixin
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit

from podium.models.onnx_scorer import OnnxInput, OnnxScorer

Array = np.ndarray
OPSETS = {"": 18, "ai.onnx.ml": 5}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor(NDArrayOperatorsMixin):
    """The result of an operator; arithmetic, comparisons and numpy's functions of `UFUNCS` add further operators.

    A comparison returns truth values, which `number` converts.
    """

    graph: GraphBuilder
    name: str

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or function not in UFUNCS or options:
            return NotImplemented
        operator = UFUNCS[function]
        return self.graph.add(operator, *inputs) if isinstance(operator, str) else operator(*inputs)

    def map(self, function: Any) -> Tensor:
        """Return a function of numpy or scipy of each number, or of each cell whether it is missing."""
        result: Tensor = function(self)
        return result

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """Return the numbers within these limits."""
        above = self if low is None else self.apply("Max", low)
        return above if high is None else above.apply("Min", high)

    def apply(self, operator: str, *others: Operand, **attributes: Any) -> Tensor:
        """Add an operator whose first input is this tensor."""
        return self.graph.add(operator, self, *others, **attributes)

    def reduce(self, operator: str, axis: int = 1, *, keepdims: bool = True) -> Tensor:
        """Reduce an axis by an operator such as ReduceSum."""
        return self.apply(operator, [axis], keepdims=int(keepdims))

    def select(self, indices: Sequence[int] | Array) -> Tensor:
        """Return columns of a (rows, columns) tensor."""
        return self.apply("Gather", list(indices), axis=1)

    def column(self, index: int) -> Tensor:
        """Return a column of a (rows, columns) tensor as (rows, 1)."""
        return self.select([index])

    def expand(self, axis: int) -> Tensor:
        """Insert an axis of size 1."""
        return self.apply("Unsqueeze", [axis])

    def number(self) -> Tensor:
        """Return 1 and 0 for truth values, or float64 numbers."""
        return self.apply("Cast", to=TensorProto.DOUBLE)

    def rounded(self) -> Tensor:
        """Return the numbers rounded to float32, as float64."""
        return self.apply("Cast", to=TensorProto.FLOAT).number()

    def largest(self, values: Array) -> Tensor:
        """Return the row of `values` at the position of the largest number of each row."""
        return self.graph.look_up(values, self.apply("ArgMax", axis=1, keepdims=0))

    def constant_rows(self, values: Array) -> Tensor:
        """Return the same (1, outputs) values for every row, whatever this (rows, columns) tensor holds."""
        return self.column(0).map(np.isnan).number() * 0.0 + values.reshape(1, -1)


Operand = Tensor | Array | float | Sequence[int]
"""A tensor, a constant, or indices or a shape."""

UFUNCS: dict[np.ufunc, str | Callable[..., Tensor]] = {
    np.absolute: "Abs",
    np.add: "Add",
    np.cbrt: lambda x: x.map(np.sign) * x.map(np.absolute) ** (1.0 / 3.0),
    np.ceil: "Ceil",
    np.cos: "Cos",
    np.divide: "Div",
    np.equal: "Equal",
    np.exp: "Exp",
    np.exp2: lambda x: 2.0**x,
    np.expm1: lambda x: x.map(np.exp) - 1.0,
    np.fabs: "Abs",
    np.floor: "Floor",
    np.greater: "Greater",
    np.greater_equal: "GreaterOrEqual",
    np.isnan: "IsNaN",
    np.less: "Less",
    np.less_equal: "LessOrEqual",
    np.log: "Log",
    np.log10: lambda x: x.map(np.log) / float(np.log(10.0)),
    np.log1p: lambda x: (x + 1.0).map(np.log),
    np.log2: lambda x: x.map(np.log) / float(np.log(2.0)),
    np.logical_and: "And",
    np.matmul: "MatMul",
    np.maximum: "Max",
    np.minimum: "Min",
    np.multiply: "Mul",
    np.negative: "Neg",
    np.positive: lambda x: x,
    np.power: "Pow",
    np.reciprocal: "Reciprocal",
    np.rint: "Round",
    np.sign: "Sign",
    np.sin: "Sin",
    np.sqrt: "Sqrt",
    np.square: lambda x: x * x,
    np.subtract: "Sub",
    np.tanh: "Tanh",
    expit: "Sigmoid",
}
"""The operator of each function of numpy and scipy, or a function that adds several."""


def concat(parts: Sequence[Tensor]) -> Tensor:
    """Return the columns of all parts."""
    return parts[0].graph.add("Concat", *parts, axis=1)


def where(condition: Tensor, yes: Operand, no: Operand) -> Tensor:
    """Return one of two values by a truth value."""
    return condition.apply("Where", yes, no)


class GraphBuilder:
    """Collects operators and constants of one element type."""

    def __init__(self, dtype: type = np.float64) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    @property
    def source(self) -> Tensor:
        """The input of the graph."""
        return Tensor(self, "x")

    def add(self, operator: str, *inputs: Operand, **attributes: Any) -> Tensor:
        """Add an operator and return its output; constant inputs get the element type of the graph."""
        return self.add_with_outputs(1, operator, *inputs, **attributes)[0]

    def add_with_outputs(self, count: int, operator: str, *inputs: Operand, **attributes: Any) -> list[Tensor]:
        """Add an operator with several outputs and return them."""
        names = [f"v{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, list(map(self._name, inputs)), names, **attributes))
        return [Tensor(self, name) for name in names]

    def _name(self, operand: Operand) -> str:
        if isinstance(operand, list):
            return self.integers(operand).name
        return (operand if isinstance(operand, Tensor) else self.constant(np.asarray(operand))).name

    def constant(self, values: Array, dtype: type | None = None) -> Tensor:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        array: Array = np.array(values, dtype=dtype or self.dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return Tensor(self, name)

    def integers(self, values: Sequence[int] | Array) -> Tensor:
        """Add a constant of indices or of a shape."""
        return self.constant(np.asarray(values), np.int64)

    def look_up(self, values: Array, positions: Tensor) -> Tensor:
        """Return the rows of a table at these positions."""
        return self.add("Gather", values, positions, axis=0)

    def model(self, shape: Sequence[int], output: Tensor) -> bytes:
        """Return the graph from `x` (rows, *shape) to `y`."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        nodes = [*self.nodes, helper.make_node("Identity", [output.name], ["y"])]
        inputs = [helper.make_tensor_value_info("x", kind, [None, *shape])]
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        body = helper.make_graph(nodes, "model", inputs, outputs, self.constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()])
        model.ir_version = 10
        data: bytes = model.SerializeToString()
        return data

    def scorer(self, columns: int, output: Tensor, *, binary_probability: bool = False) -> OnnxScorer:
        """Return the graph as the scorer of rows of this many columns."""
        inputs = (OnnxInput("x", np.dtype(self.dtype).name, 0, (columns,)),)
        return OnnxScorer(self.model((columns,), output), inputs, "y", columns, binary_probability)

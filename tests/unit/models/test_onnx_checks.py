"""Checks of ONNX graphs reject what would make memory use depend on input values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.models.serialization import UnsafePickle, dump, load
from podium.registry.warm_up import FEATURES, small_model

COUNT = len(FEATURES)
Weights = dict[str, Any]


def graph(
    nodes: Sequence[Any], weights: Weights | None = None, output: str = "y", domains: Sequence[str] = ("",), **more: Any
) -> bytes:
    """A graph from `x` (rows, COUNT) to `y`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, COUNT])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    made = helper.make_graph(list(nodes), "g", inputs, outputs, tensors, **more)
    opsets = [helper.make_opsetid(domain, 3 if domain else 18) for domain in domains]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(","), outputs.split(","), **attributes)


TO_LENGTH = [
    node("Abs", "x", "a"),
    node("ReduceSum", "a", "s", keepdims=0),
    node("Mul", "s,million", "m"),
    node("Cast", "m", "i", to=TensorProto.INT64),
    node("Reshape", "i,one", "n"),
]
"""Nodes that compute a length `n` from input values."""

NUMBERS: Weights = {
    "million": np.float32(1e6), "one": np.array([1]), "zero": np.array([0]), "scalar": np.int64(0), "step": np.int64(1),
    "five": np.array([COUNT]), "pads": np.array([0, 0]), "ends": np.array([10**9]), "many": np.array([40_000_000]),
    "big": np.array([1000, 1000, 1000]), "value": np.array([0, 1], np.float32), "steps": np.array([10, 10**7]),
    "none": np.array([], np.float32),
}  # fmt: skip


def sums(*nodes: Any) -> list[Any]:
    return [*TO_LENGTH, *nodes, node("ReduceSum", "t", "y", keepdims=0)]


def doubled(count: int) -> list[Any]:
    """Return nodes that repeatedly concatenate a tensor with itself."""
    names = ["x", *(f"d{place}" for place in range(count))]
    return [
        *(node("Concat", f"{one},{one}", other, axis=1) for one, other in itertools.pairwise(names)),
        node("ReduceSum", names[-1], "y"),
    ]


def loop() -> Any:
    body = helper.make_graph(
        [node("Identity", "c", "d")],
        "b",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, [])],
    )
    return node("Loop", "n,", "", body=body)


OF_VALUES: dict[str, Callable[[], bytes]] = {
    "ConstantOfShape": lambda: graph(sums(node("ConstantOfShape", "n", "t")), NUMBERS),
    "Expand": lambda: graph(sums(node("Expand", "million,n", "t")), NUMBERS),
    "Tile": lambda: graph(sums(node("Reshape", "x,five", "f"), node("Tile", "f,n", "t")), NUMBERS),
    "Range": lambda: graph(
        sums(node("Squeeze", "n", "l"), node("Range", "scalar,l,step", "r"), node("Cast", "r", "t", to=1)), NUMBERS
    ),
    "Pad": lambda: graph(
        sums(node("Concat", "zero,n", "p", axis=0), node("Reshape", "x,five", "f"), node("Pad", "f,p", "t")), NUMBERS
    ),
    "Resize": lambda: graph(sums(node("Reshape", "x,five", "f"), node("Resize", "f,,,n", "t")), NUMBERS),
    "OneHot": lambda: graph(sums(node("OneHot", "zero,n,value", "t")), NUMBERS),
    "Reshape": lambda: graph(sums(node("Reshape", "x,n", "t")), NUMBERS),
    "Slice": lambda: graph(sums(node("Reshape", "x,five", "f"), node("Slice", "f,zero,n", "t")), NUMBERS),
    "TopK": lambda: graph(sums(node("TopK", "x,n", "t,u")), NUMBERS),
    "NonZero": lambda: graph(sums(node("NonZero", "x", "z"), node("Cast", "z", "t", to=1)), NUMBERS),
    "Compress": lambda: graph(sums(node("Cast", "x", "c", to=9), node("Compress", "x,c", "t")), NUMBERS),
    "Unique": lambda: graph(sums(node("Unique", "x", "t")), NUMBERS),
    "RandomNormal": lambda: graph([node("RandomNormal", "", "y", shape=[10])]),
    "RandomUniformLike": lambda: graph([node("RandomUniformLike", "x", "y")]),
    "Loop": lambda: graph([*TO_LENGTH, loop(), node("ReduceSum", "x", "y")], NUMBERS),
    "SequenceConstruct": lambda: graph([node("SequenceConstruct", "x", "q"), node("ConcatFromSequence", "q", "y", axis=0)]),
    "StringSplit": lambda: graph([node("StringSplit", "x", "y,z")]),
    "CDist": lambda: graph(
        [helper.make_node("CDist", ["x", "x"], ["y"], domain="com.microsoft")], domains=("", "com.microsoft")
    ),
}
"""Operators whose output size depends on input values, and other unsupported ones."""

LARGE: dict[str, Callable[[], bytes]] = {
    "ConstantOfShape": lambda: graph(sums(node("ConstantOfShape", "many", "t")), NUMBERS),
    "Expand": lambda: graph(sums(node("Expand", "million,big", "t")), NUMBERS),
    "Tile": lambda: graph(sums(node("Tile", "x,steps", "t")), NUMBERS),
    "Concat": lambda: graph(doubled(40)),
    "MatMul": lambda: graph(
        [
            node("ConstantOfShape", "long", "c"),
            node("Transpose", "c", "t"),
            node("MatMul", "t,c", "m"),
            node("ReduceSum", "m", "y"),
        ],
        {"long": np.array([1, 10_000])},
    ),
}
"""Tensors of a fixed size that is too large."""


@pytest.mark.parametrize("operator", OF_VALUES)
def test_an_operator_with_a_data_dependent_shape_is_rejected_by_name(operator: str) -> None:
    data = OF_VALUES[operator]()
    with pytest.raises(
        UnsafePickle, match=rf"the operator (com\.microsoft\.)?{operator} .*(export|supported)|{operator} returns"
    ):
        load(dump(small_model(of(data))))
    with pytest.raises(ImportRefused):
        convert(ImportRequest("x.onnx", data, "m", "y"))


@pytest.mark.parametrize("operator", LARGE)
def test_a_too_large_tensor_is_rejected(operator: str) -> None:
    data = LARGE[operator]()
    with pytest.raises(UnsafePickle, match=r"for one row; the maximum is|contradict"):
        load(dump(small_model(of(data))))
    with pytest.raises(ImportRefused):
        convert(ImportRequest("x.onnx", data, "m", "y"))


def of(data: bytes, **changes: Any) -> OnnxScorer:
    return OnnxScorer(data, changes.get("feeds", (OnnxInput("x", "float32", 0, (COUNT,)),)), "y", COUNT)


def test_shapes_computed_from_other_shapes_are_accepted() -> None:
    """Network exporters write a flatten layer like this."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s,zero", "rows"),
        node("Concat", "rows,five", "to", axis=0),
        node("Reshape", "x,to", "f"),
        node("Expand", "f,to", "e"),
        node("ReduceSum", "e", "y"),
    ]
    assert load(dump(small_model(of(graph(nodes, NUMBERS))))).family == "m"


def test_sparse_and_external_weights_are_rejected() -> None:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("p", TensorProto.INT64, [1], [7])
    sparse = helper.make_sparse_tensor(values, places, [1 << 40])
    elsewhere = onnx.ModelProto.FromString(graph([node("Mul", "x,w", "m"), node("ReduceSum", "m", "y")], {"w": np.float32(2)}))
    tensor = elsewhere.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    for data in (
        graph([node("ReduceSum", "x", "y")], sparse_initializer=[sparse]),
        graph([helper.make_node("Constant", [], ["y"], sparse_value=sparse)]),
        elsewhere.SerializeToString(),
    ):
        with pytest.raises(UnsafePickle, match=r"sparse weights|weights are in another file"):
            load(dump(small_model(of(data))))


def ensemble(**changes: Any) -> bytes:
    table: dict[str, Any] = {
        "n_targets": 1, "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_values": [0.5, 0.0, 0.0], "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }  # fmt: skip
    made = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **(table | changes))
    return graph([made], domains=("", "ai.onnx.ml"))


FORGED: list[dict[str, Any]] = [
    {"nodes_truenodeids": [400_000_000, 0, 0]},
    {"nodes_truenodeids": [0, 0, 0]},
    {"nodes_truenodeids": [2, 0, 0]},
    {"nodes_featureids": [400_000_000, 0, 0]},
    {"nodes_featureids": [-1, 0, 0]},
    {"nodes_values": [0.5]},
    {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"]},
    {"nodes_nodeids": [0, 1, 1]},
    {"target_ids": [400_000_000, 0]},
    {"target_ids": [-1, 0]},
    {"target_nodeids": [1, 77]},
    {"target_weights": [1.0]},
    {"n_targets": 0},
]


def test_a_forged_tree_ensemble_is_rejected() -> None:
    assert load(dump(small_model(of(ensemble())))).family == "m"
    for changes in FORGED:
        with pytest.raises(UnsafePickle, match="TreeEnsembleRegressor"):
            load(dump(small_model(of(ensemble(**changes)))))


def test_inputs_that_read_beyond_the_features_are_rejected() -> None:
    data = graph([node("ReduceSum", "x", "y")])
    for feed in (
        OnnxInput("x", "float32", 1, (COUNT,)),
        OnnxInput("x", "float32", -1, (COUNT,)),
        OnnxInput("x", "object", 0, (COUNT,)),
        OnnxInput("x", "float32", 0, (COUNT, 1 << 40)),
        OnnxInput("x", "float32", 0, (-COUNT,)),
    ):
        with pytest.raises(UnsafePickle, match="input x"):
            load(dump(small_model(of(data, feeds=(feed,)))))


@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize("divisor", ["row", "minus"])
@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_integers_may_be_divided_by_safe_constants_only(operator: str, divisor: str, kind: int) -> None:
    """Dividing the smallest integer by -1 would crash the process."""
    weights = {"minus": np.array([-1]), "three": np.array([3])}
    nodes = [
        node("Cast", "x", "row", to=kind),
        node("Cast", "x", "whole", to=kind),
        node(operator, f"whole,{divisor}" if divisor == "row" or kind == TensorProto.INT64 else "whole,row", "q"),
        node("Cast", "q", "f", to=TensorProto.FLOAT),
        node("ReduceSum", "f", "y"),
    ]
    with pytest.raises(UnsafePickle, match="divides integers"):
        load(dump(small_model(of(graph(nodes, weights)))))
    harmless = [node("Cast", "x", "whole", to=TensorProto.INT64), node(operator, "whole,three", "q"), *nodes[3:]]
    assert load(dump(small_model(of(graph(harmless, weights)))))


def test_an_input_that_overwrites_weights_is_rejected() -> None:
    nodes = [node("Expand", "x,k", "e"), node("ReduceSum", "e", "y")]
    feeds = (OnnxInput("x", "float32", 0, (COUNT,)), OnnxInput("k", "float64", 0, ()))
    with pytest.raises(UnsafePickle, match="has the same name as a weight"):
        load(dump(small_model(of(graph(nodes, {"k": np.array([1, COUNT])}), feeds=feeds))))

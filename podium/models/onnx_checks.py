"""Checks of ONNX graphs: standard operators only, whose memory does not depend on the values that a request sends.

The shape of every tensor then follows from the shapes of the inputs. So what one row takes is known before a version serves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podium.models.onnx_scorer import OnnxInput

MAX_ELEMENTS, MAX_TOTAL, MAX_DEPTH = 1 << 24, 1 << 26, 4
"""Bounds of one tensor's elements, of all together for one row, and of nested bodies."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")

OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu Clip
        Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
        DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu
        Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity
        InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
        LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot
        Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Scan
        ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
        Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
        ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
        Normalizer OneHotEncoder Scaler SVMClassifier SVMRegressor TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
        """,
    )
)
"""Operators that skl2onnx, onnxmltools and exporters of networks write; none is random, endless or of unknown output size."""

SHAPES: dict[str, Sequence[int]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,),
    "Upsample": (1,), **{name: (1,) for name in OPERATORS if name.startswith("Reduce")},
}  # fmt: skip
"""Inputs that decide the shape of an output."""

DIVISIONS = ("Div", "Mod")

MAKES_CONSTANTS = ("Shape", "Size")
"""Operators whose output depends on the shape of their input, not on its values."""

REMEDY = "export the model with fixed shapes and standard operators, or import it from its own library"


def check_graph(data: bytes, feeds: Sequence[OnnxInput], output: str) -> int | None:
    """Check a model that is fed one row; returns the size of `output` where it is known. Raises ValueError."""
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own DecodeError
        raise ValueError("the graph is no ONNX model") from error
    check_operators(model)
    shapes = {feed.name: (1, *feed.shape) for feed in feeds}
    for each in model.graph.input:
        if each.name in shapes:
            kind = each.type.tensor_type.elem_type
            each.CopyFrom(onnx.helper.make_tensor_value_info(each.name, kind, shapes[each.name]))
    for each in model.graph.output:  # an exporter's names of sizes say nothing
        each.type.tensor_type.ClearField("shape")
    if any(tensor.name in shapes for tensor in model.graph.initializer):
        raise ValueError("an input of the graph stands for its weights")
    try:
        found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # onnx raises errors of its own
        raise ValueError("the shapes of the graph contradict each other") from error
    _check_divisions(found)
    widths = {value.name: _width(value) for value in (*found.input, *found.value_info)}
    for node in found.node:
        if node.op_type in _CHECKS:
            _CHECKS[node.op_type](node, widths.get(node.input[0]))
    return _check_sizes(found, output)


def _check_divisions(graph: Any) -> None:
    """Whole numbers are divided by constants other than 0 and -1 only: the processor traps on the others. Raises ValueError."""
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in DIVISIONS and kinds.get(node.input[0]) not in floats:
            divisor = constants.get(node.input[1])
            if divisor is None or not {0, -1}.isdisjoint(onnx.numpy_helper.to_array(divisor).ravel().tolist()):
                raise ValueError(f"the operator {node.op_type} divides whole numbers by what is no constant: {REMEDY}")


def check_operators(model: Any) -> None:
    """Check what a graph is made of. Raises ValueError."""
    if model.functions or model.training_info:
        raise ValueError(f"the graph has functions or training steps of its own: {REMEDY}")
    _check_body(model.graph, frozenset(), 0)


def _check_body(graph: Any, outer: frozenset[str], depth: int) -> None:
    """`outer` are values of the enclosing graph that do not depend on the inputs."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the graph is nested deeper than {MAX_DEPTH}: {REMEDY}")
    if graph.sparse_initializer:
        raise ValueError("the graph has sparse weights: save them as dense tensors")
    inputs = {each.name for each in graph.input} if depth else set()
    constants = {tensor.name for tensor in graph.initializer} | (outer - inputs)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node, frozenset(constants), depth)
        if node.op_type in MAKES_CONSTANTS or (
            node.op_type != "Scan" and all(name in constants for name in node.input if name)
        ):
            constants |= set(node.output)


def _check_node(node: Any, constants: frozenset[str], depth: int) -> None:
    if node.domain not in DOMAINS or node.op_type not in OPERATORS:
        name = f"{node.domain}.{node.op_type}"[:80].lstrip(".")
        raise ValueError(f"the operator {name} is not among those that are served: {REMEDY}")
    if depth and node.op_type in DIVISIONS:
        raise ValueError(f"the operator {node.op_type} in the body of another is not served: {REMEDY}")
    for place in SHAPES.get(node.op_type, ()):
        if place < len(node.input) and node.input[place] and node.input[place] not in constants:
            raise ValueError(f"the shape that the operator {node.op_type} gives depends on the values of a row: {REMEDY}")
    for attribute in node.attribute:
        for tensor in (attribute.t, *attribute.tensors):
            _check_tensor(tensor)
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise ValueError(f"the operator {node.op_type} has sparse weights: save them as dense tensors")
        bodies = ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
        if bodies and node.op_type != "Scan":
            raise ValueError(f"the operator {node.op_type} has a body: {REMEDY}")
        for body in bodies:
            _check_body(body, constants, depth + 1)


def _check_tensor(tensor: Any) -> None:
    if tensor.external_data or tensor.data_location:
        raise ValueError("the weights lie in another file: save the model with its weights inside")
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_TOTAL:
        raise ValueError("the graph has a tensor of weights that is too large")


def _check_sizes(graph: Any, output: str) -> int | None:
    """Every tensor whose shape is known is small. Raises ValueError."""
    total, found = 0, None
    for value in (*graph.value_info, *graph.output):
        size = _size(value.type.tensor_type.shape.dim) if value.type.tensor_type.HasField("shape") else None
        if size is not None and size > MAX_ELEMENTS:
            node = next((node.op_type for node in graph.node if value.name in node.output), "?")
            raise ValueError(
                f"the operator {node} gives a tensor of {size} numbers for one row, at most {MAX_ELEMENTS} are served"
            )
        total += size or 0
        found = size if value.name == output else found
    if total > MAX_TOTAL:
        raise ValueError(f"the graph takes {total} numbers for one row, at most {MAX_TOTAL} are served")
    return found


def _width(value: Any) -> int | None:
    """The number of columns of a table, where it is known."""
    dims = value.type.tensor_type.shape.dim
    return dims[-1].dim_value if dims and dims[-1].HasField("dim_value") else None


def _size(dims: Iterable[Any]) -> int | None:
    sizes = [dim.dim_value for dim in dims if dim.HasField("dim_value")]
    return math.prod(sizes) if len(sizes) == len(list(dims)) else None


# --- operators that keep tables in their attributes ----------------------------------------------------------------------


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _check_ensemble(node: Any, width: int | None) -> None:
    """The tables of a tree ensemble have one length each, and each node but a root has one parent."""
    table = _attributes(node)
    trees, ids = table.get("nodes_treeids", []), table.get("nodes_nodeids", [])
    columns = ("nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids")
    if any(len(table.get(name, [])) != len(trees) for name in columns):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    values = table.get("nodes_values") or table.get("nodes_values_as_tensor")
    if isinstance(values, list) and len(values) != len(trees):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    places = set(zip(trees, ids, strict=True))
    children = {
        (tree, place): [] if mode == b"LEAF" else [(tree, end) for end in ends]
        for tree, place, mode, *ends in zip(
            trees, ids, table["nodes_modes"], table["nodes_truenodeids"], table["nodes_falsenodeids"], strict=True
        )
    }
    if len(places) != len(trees) or not _is_forest(children, len(set(trees))):
        raise ValueError(f"a tree of the operator {node.op_type} leads nowhere, or to one node twice")
    if any(feature < 0 for feature in table["nodes_featureids"]):
        raise ValueError(f"a tree of the operator {node.op_type} reads a feature that is not there")
    if width is not None and any(number >= width for number in table["nodes_featureids"]):
        raise ValueError(f"a tree of the operator {node.op_type} reads a feature that is not there")
    _check_leaves(node, table, places)


def _is_forest(children: dict[tuple[int, int], list[tuple[int, int]]], count: int) -> bool:
    """Whether so many roots reach every node once."""
    ends = [end for own in children.values() for end in own]
    waiting = list(children.keys() - set(ends))
    if len(ends) != len(set(ends)) or not set(ends) <= children.keys() or len(waiting) != count:
        return False
    reached = 0
    while waiting:
        reached += 1
        waiting += children[waiting.pop()]
    return reached == len(children)


def _check_leaves(node: Any, table: dict[str, Any], places: set[tuple[int, int]]) -> None:
    kind = "class" if node.op_type.endswith("Classifier") else "target"
    leaves = list(zip(table.get(f"{kind}_treeids", []), table.get(f"{kind}_nodeids", []), strict=True))
    numbers = table.get(f"{kind}_ids", [])
    classes = len(table.get("classlabels_strings") or table.get("classlabels_int64s") or ())
    count = max(classes, 1) if kind == "class" else table.get("n_targets", 1)
    weights = table.get(f"{kind}_weights") or table.get(f"{kind}_weights_as_tensor")
    if count < 1 or (isinstance(weights, list) and len(weights) != len(numbers)):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    if len(leaves) != len(numbers) or not set(leaves) <= places or not all(0 <= number < count for number in numbers):
        raise ValueError(f"the operator {node.op_type} has leaves that are not there")


def _check_linear(node: Any, width: int | None) -> None:
    table = _attributes(node)
    outputs = len(table.get("intercepts", [])) or max(int(table.get("targets", 1)), 1)
    coefficients = len(table.get("coefficients", []))
    if coefficients % outputs or (width is not None and coefficients != outputs * width):
        raise ValueError(f"the operator {node.op_type} has a wrong number of coefficients")


def _check_vectors(node: Any, width: int | None) -> None:
    """The tables of a support vector machine fit the number of its vectors and classes."""
    table = _attributes(node)
    per_class = table.get("vectors_per_class", [])
    vectors = sum(per_class) if node.op_type == "SVMClassifier" else int(table.get("n_supports", 0))
    supports, coefficients = len(table.get("support_vectors", [])), len(table.get("coefficients", []))
    classes = len(per_class)
    pairs = classes * (classes - 1) // 2
    wanted = vectors * (classes - 1) if node.op_type == "SVMClassifier" else vectors
    if any(count < 0 for count in per_class) or vectors < 0:
        raise ValueError(f"the operator {node.op_type} has a negative number of vectors")
    if vectors and (supports % vectors or (width is not None and supports != vectors * width) or coefficients != wanted):
        raise ValueError(f"the operator {node.op_type} has tables of wrong length")
    if vectors and node.op_type == "SVMClassifier" and len(table.get("rho", [])) < pairs:
        raise ValueError(f"the operator {node.op_type} has tables of wrong length")


_CHECKS = {
    "TreeEnsembleClassifier": _check_ensemble,
    "TreeEnsembleRegressor": _check_ensemble,
    "LinearClassifier": _check_linear,
    "LinearRegressor": _check_linear,
    "SVMClassifier": _check_vectors,
    "SVMRegressor": _check_vectors,
}

"""Checks of ONNX graphs: standard operators only, with tensor shapes that do not depend on the input values.

The memory and time needed for one row are therefore known before a version serves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podium.models.onnx_scorer import OnnxInput

MAX_ELEMENTS, MAX_TOTAL_ELEMENTS, MAX_DEPTH = 1 << 24, 1 << 26, 4
"""Limits on the number of elements of one tensor and of all tensors for one row, and on the nesting of graphs."""

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
        Normalizer OneHotEncoder Scaler SVMClassifier SVMRegressor TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor
        ZipMap
        """,
    )
)
"""Operators written by skl2onnx, onnxmltools and network exporters. None is random, unbounded or of unknown output size."""

SHAPE_INPUTS: dict[str, Sequence[int]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,),
    "Upsample": (1,), **{name: (1,) for name in OPERATORS if name.startswith("Reduce")},
}  # fmt: skip
"""For each operator, the indices of the inputs that determine the output's shape; these must be constant."""

DIVISIONS = ("Div", "Mod")

SHAPE_OPERATORS = ("Shape", "Size")
"""Operators whose output depends only on the shape of their input."""

REMEDY = "export the model with fixed shapes and standard operators, or import it from its original library"


def check_graph(data: bytes, inputs: Sequence[OnnxInput], output: str) -> int | None:
    """Check a model for one-row inputs; return the size of `output`, or None if unknown. Raises ValueError."""
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError
        raise ValueError("the file is not an ONNX model") from error
    check_operators(model)
    shapes = {tensor.name: (1, *tensor.shape) for tensor in inputs}
    for value in model.graph.input:
        if value.name in shapes:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    for value in model.graph.output:  # exporters write symbolic sizes here
        value.type.tensor_type.ClearField("shape")
    if any(tensor.name in shapes for tensor in model.graph.initializer):
        raise ValueError("an input of the graph has the same name as a weight")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # onnx raises its own errors
        raise ValueError("the shapes of the graph contradict each other") from error
    _check_divisions(inferred)
    widths = {value.name: _width(value) for value in (*inferred.input, *inferred.value_info)}
    for node in inferred.node:
        if node.op_type in TABLE_CHECKS:
            TABLE_CHECKS[node.op_type](node, widths.get(node.input[0]))
    return _check_sizes(inferred, output)


def _check_divisions(graph: Any) -> None:
    """Allow integer division only by constants other than 0 and -1, since the processor traps on these. Raises ValueError."""
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in DIVISIONS and kinds.get(node.input[0]) not in floats:
            divisor = constants.get(node.input[1])
            if divisor is None or not {0, -1}.isdisjoint(onnx.numpy_helper.to_array(divisor).ravel().tolist()):
                raise ValueError(
                    f"the operator {node.op_type} divides integers by a value that is not a constant, or is 0 or -1: {REMEDY}"
                )


def check_operators(model: Any) -> None:
    """Check the operators and weights of a graph. Raises ValueError."""
    if model.functions or model.training_info:
        raise ValueError(f"the graph contains functions or training steps: {REMEDY}")
    _check_body(model.graph, frozenset(), 0)


def _check_body(graph: Any, outer: frozenset[str], depth: int) -> None:
    """Check a graph. `outer` names the constants of the enclosing graph."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the graph is nested deeper than {MAX_DEPTH}: {REMEDY}")
    if graph.sparse_initializer:
        raise ValueError("the graph has sparse weights: save them as dense tensors")
    inputs = {value.name for value in graph.input} if depth else set()
    constants = {tensor.name for tensor in graph.initializer} | (outer - inputs)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node, frozenset(constants), depth)
        if node.op_type in SHAPE_OPERATORS or (
            node.op_type != "Scan" and all(name in constants for name in node.input if name)
        ):
            constants |= set(node.output)


def _check_node(node: Any, constants: frozenset[str], depth: int) -> None:
    if node.domain not in DOMAINS or node.op_type not in OPERATORS:
        name = f"{node.domain}.{node.op_type}"[:80].lstrip(".")
        raise ValueError(f"the operator {name} is not supported: {REMEDY}")
    if depth and node.op_type in DIVISIONS:
        raise ValueError(f"the operator {node.op_type} is not supported inside another operator: {REMEDY}")
    for index in SHAPE_INPUTS.get(node.op_type, ()):
        if index < len(node.input) and node.input[index] and node.input[index] not in constants:
            raise ValueError(f"the output shape of the operator {node.op_type} depends on input values: {REMEDY}")
    for attribute in node.attribute:
        for tensor in (attribute.t, *attribute.tensors):
            _check_tensor(tensor)
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise ValueError(f"the operator {node.op_type} has sparse weights: save them as dense tensors")
        bodies = ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
        if bodies and node.op_type != "Scan":
            raise ValueError(f"the operator {node.op_type} contains a graph: {REMEDY}")
        for body in bodies:
            _check_body(body, constants, depth + 1)


def _check_tensor(tensor: Any) -> None:
    if tensor.external_data or tensor.data_location:
        raise ValueError("the weights are in another file: save the model with embedded weights")
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_TOTAL_ELEMENTS:
        raise ValueError("a weight tensor is too large")


def _check_sizes(graph: Any, output: str) -> int | None:
    """Check the sizes of all tensors of known shape; return the size of `output`. Raises ValueError."""
    total, output_size = 0, None
    for value in (*graph.value_info, *graph.output):
        size = _size(value.type.tensor_type.shape.dim) if value.type.tensor_type.HasField("shape") else None
        if size is not None and size > MAX_ELEMENTS:
            node = next((node.op_type for node in graph.node if value.name in node.output), "?")
            raise ValueError(
                f"the operator {node} returns a tensor of {size} numbers for one row; the maximum is {MAX_ELEMENTS}"
            )
        total += size or 0
        output_size = size if value.name == output else output_size
    if total > MAX_TOTAL_ELEMENTS:
        raise ValueError(f"the graph needs {total} numbers for one row; the maximum is {MAX_TOTAL_ELEMENTS}")
    return output_size


def _width(value: Any) -> int | None:
    """Return the size of the last dimension, or None if unknown."""
    dims = value.type.tensor_type.shape.dim
    return dims[-1].dim_value if dims and dims[-1].HasField("dim_value") else None


def _size(dims: Iterable[Any]) -> int | None:
    """Return the number of elements, or None if unknown."""
    sizes = [dim.dim_value for dim in dims if dim.HasField("dim_value")]
    return math.prod(sizes) if len(sizes) == len(list(dims)) else None


# --- operators with tables in their attributes ---------------------------------------------------------------------------


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _check_ensemble(node: Any, width: int | None) -> None:
    """Check that the tables of a tree ensemble have equal lengths and form trees. Raises ValueError."""
    table = _attributes(node)
    trees, ids = table.get("nodes_treeids", []), table.get("nodes_nodeids", [])
    columns = ("nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids")
    if any(len(table.get(name, [])) != len(trees) for name in columns):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    values = table.get("nodes_values") or table.get("nodes_values_as_tensor")
    if isinstance(values, list) and len(values) != len(trees):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    nodes = set(zip(trees, ids, strict=True))
    children = {
        (tree, node_id): [] if mode == b"LEAF" else [(tree, end) for end in ends]
        for tree, node_id, mode, *ends in zip(
            trees, ids, table["nodes_modes"], table["nodes_truenodeids"], table["nodes_falsenodeids"], strict=True
        )
    }
    if len(nodes) != len(trees) or not _is_forest(children, len(set(trees))):
        raise ValueError(f"a tree of the operator {node.op_type} has a missing child or a node with two parents")
    if any(feature < 0 for feature in table["nodes_featureids"]):
        raise ValueError(f"a tree of the operator {node.op_type} reads a feature that does not exist")
    if width is not None and any(number >= width for number in table["nodes_featureids"]):
        raise ValueError(f"a tree of the operator {node.op_type} reads a feature that does not exist")
    _check_leaves(node, table, nodes)


def _is_forest(children: dict[tuple[int, int], list[tuple[int, int]]], roots: int) -> bool:
    """Return whether the nodes form a forest with this many roots."""
    ends = [end for node_children in children.values() for end in node_children]
    waiting = list(children.keys() - set(ends))
    if len(ends) != len(set(ends)) or not set(ends) <= children.keys() or len(waiting) != roots:
        return False
    reached = 0
    while waiting:
        reached += 1
        waiting += children[waiting.pop()]
    return reached == len(children)


def _check_leaves(node: Any, table: dict[str, Any], nodes: set[tuple[int, int]]) -> None:
    kind = "class" if node.op_type.endswith("Classifier") else "target"
    leaves = list(zip(table.get(f"{kind}_treeids", []), table.get(f"{kind}_nodeids", []), strict=True))
    numbers = table.get(f"{kind}_ids", [])
    classes = len(table.get("classlabels_strings") or table.get("classlabels_int64s") or ())
    count = max(classes, 1) if kind == "class" else table.get("n_targets", 1)
    weights = table.get(f"{kind}_weights") or table.get(f"{kind}_weights_as_tensor")
    if count < 1 or (isinstance(weights, list) and len(weights) != len(numbers)):
        raise ValueError(f"the tables of the operator {node.op_type} differ in length")
    if len(leaves) != len(numbers) or not set(leaves) <= nodes or not all(0 <= number < count for number in numbers):
        raise ValueError(f"the operator {node.op_type} refers to leaves that do not exist")


def _check_general_ensemble(node: Any, width: int | None) -> None:
    """Check the operator TreeEnsemble: its nodes and leaves exist, and paths lead to later nodes. Raises ValueError."""
    import onnx

    table = _attributes(node)
    count, leaves = len(table["nodes_featureids"]), len(table["leaf_targetids"])
    splits, modes, weights = (
        onnx.numpy_helper.to_array(table[name]).ravel() for name in ("nodes_splits", "nodes_modes", "leaf_weights")
    )
    ends = [(table[f"nodes_{side}nodeids"], table[f"nodes_{side}leafs"]) for side in ("true", "false")]
    missing = table.get("nodes_missing_value_tracks_true") or [0] * count
    if any(len(column) != count for column in (splits, modes, missing, *(part for end in ends for part in end))):
        raise ValueError("the tables of the operator TreeEnsemble differ in length")
    if len(weights) != leaves or not all(0 <= target < table.get("n_targets", 0) for target in table["leaf_targetids"]):
        raise ValueError("the operator TreeEnsemble refers to leaves or targets that do not exist")
    limit = width if width is not None else MAX_ELEMENTS
    if not all(0 <= feature < limit for feature in table["nodes_featureids"]):
        raise ValueError("a tree of the operator TreeEnsemble reads a feature that does not exist")
    children = [end for ids, leafs in ends for end in zip(range(count), ids, leafs, strict=True)]
    if not all(0 <= end < leaves if is_leaf else node < end < count for node, end, is_leaf in children):
        raise ValueError("a tree of the operator TreeEnsemble has a missing child, or one that precedes its parent")
    inner = [end for _, end, is_leaf in children if not is_leaf]
    if (
        len(inner) != len(set(inner))
        or set(inner) & set(table["tree_roots"])
        or not set(table["tree_roots"]) <= set(range(count))
    ):
        raise ValueError("a tree of the operator TreeEnsemble has a node with two parents")
    _check_members(table, modes)


def _check_members(table: dict[str, Any], modes: Any) -> None:
    """Check that there is one set of values, ended by NaN, for each node that tests membership. Raises ValueError."""
    import onnx

    members = onnx.numpy_helper.to_array(table["membership_values"]).ravel() if "membership_values" in table else modes[:0]
    if not set(modes.tolist()) <= set(range(7)) or (modes == 6).sum() != (members != members).sum():
        raise ValueError("the operator TreeEnsemble has unknown modes, or sets that do not fit its nodes")
    if len(members) and members[-1] == members[-1]:
        raise ValueError("the operator TreeEnsemble has a set without an end")


def _check_linear(node: Any, width: int | None) -> None:
    table = _attributes(node)
    outputs = len(table.get("intercepts", [])) or max(int(table.get("targets", 1)), 1)
    coefficients = len(table.get("coefficients", []))
    if coefficients % outputs or (width is not None and coefficients != outputs * width):
        raise ValueError(f"the operator {node.op_type} has the wrong number of coefficients")


def _check_vectors(node: Any, width: int | None) -> None:
    """Check that the tables of a support vector machine match its number of vectors and classes. Raises ValueError."""
    table = _attributes(node)
    per_class = table.get("vectors_per_class", [])
    vectors = sum(per_class) if node.op_type == "SVMClassifier" else int(table.get("n_supports", 0))
    supports, coefficients = len(table.get("support_vectors", [])), len(table.get("coefficients", []))
    classes = len(per_class)
    pairs = classes * (classes - 1) // 2
    expected = vectors * (classes - 1) if node.op_type == "SVMClassifier" else vectors
    if any(count < 0 for count in per_class) or vectors < 0:
        raise ValueError(f"the operator {node.op_type} has a negative number of vectors")
    if vectors and (supports % vectors or (width is not None and supports != vectors * width) or coefficients != expected):
        raise ValueError(f"the operator {node.op_type} has tables of the wrong length")
    if vectors and node.op_type == "SVMClassifier" and len(table.get("rho", [])) < pairs:
        raise ValueError(f"the operator {node.op_type} has tables of the wrong length")


TABLE_CHECKS = {
    "TreeEnsemble": _check_general_ensemble,
    "TreeEnsembleClassifier": _check_ensemble,
    "TreeEnsembleRegressor": _check_ensemble,
    "LinearClassifier": _check_linear,
    "LinearRegressor": _check_linear,
    "SVMClassifier": _check_vectors,
    "SVMRegressor": _check_vectors,
}

"""Run small models once so that every library loads its files before the sandbox forbids opening files."""

from __future__ import annotations

from podium.engine.lightgbm_library import library
from podium.models.edge_cases import check_edge_cases, edge_case_rows
from podium.models.encoder import Encoder
from podium.models.features import OneHot, Ordinal, Passthrough, Standardized
from podium.models.golden_rows import record_golden
from podium.models.lightgbm_export import lightgbm_text
from podium.models.model import Model
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.models.scorers import LightGBMScorer, LinearScorer, Scorer
from podium.models.serialization import dump, load
from podium.schema.columns import Column, Signature, Target
from podium.tables.frames import rows_to_frame

COLUMNS = (
    Column("n", "number", nullable=True),
    Column("day", "date"),
    Column("flag", "boolean"),
    Column("t", "category", categories=("a", "b"), nullable=True),
)
FEATURES = (
    Standardized(0, "n", "", 0.0, 0.0, 1.0),
    Standardized(1, "month", "month", 0.0, 0.0, 1.0),
    OneHot(3, "t = a", ("a",), rest=True),
    Ordinal(3, "t", ("a", "b"), 2.0),
    Passthrough(2, "flag"),
)
STUMP = "\n".join(
    ["num_leaves=2", "num_cat=0", "split_feature=0", "threshold=0", "decision_type=10", "left_child=-1", "right_child=-2"]
    + ["leaf_value=0 1", "is_linear=0", "shrinkage=1", "", ""]
)


def warm_up_libraries() -> None:
    """Run linear and tree models; LightGBM's library is for trees that the kernels cannot score."""
    library()
    width = len(FEATURES)
    _run(LinearScorer(((1.0,) * width,), (0.0,), "identity"))
    for float32 in (False, True):
        _run(LightGBMScorer(lightgbm_text([STUMP], width, 1, "average_output"), width, 1, float32))


def warm_up_onnx() -> None:
    """Run an ONNX graph."""
    from onnx import TensorProto, helper

    count = len(FEATURES)
    tensor = helper.make_tensor_value_info
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    graph = helper.make_graph(
        [node], "g", [tensor("x", TensorProto.DOUBLE, [None, count])], [tensor("y", TensorProto.DOUBLE, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    _run(OnnxScorer(model.SerializeToString(), (OnnxInput("x", "float64", 0, (count,)),), "y", count))


def small_model(scorer: Scorer) -> Model:
    """Return a regression model with COLUMNS as inputs."""
    return Model("m", Signature(COLUMNS, Target("y", "regression"), {}), Encoder(COLUMNS, FEATURES), scorer)


def _run(scorer: Scorer) -> None:
    model = load(dump(small_model(scorer)))
    check_edge_cases(model)
    record_golden([model], rows_to_frame(edge_case_rows(COLUMNS, 0)[:3], COLUMNS), 0)

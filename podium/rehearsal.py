"""Small models that answer once, so that every library has loaded what it needs: a restricted process can open no file."""

from __future__ import annotations

from podium.data.columns import Column, Signature, Target
from podium.data.typed import rows_frame
from podium.model.encode import Code, Encoder, Levels, Number, Plain
from podium.model.extremes import extreme_rows, harmless
from podium.model.forest import lightgbm_text
from podium.model.golden import record_golden
from podium.model.graph import Feed, Graph
from podium.model.model import Model
from podium.model.pickles import dump, load
from podium.model.scorers import Linear, Scorer, Trees

COLUMNS = (
    Column("n", "number", nullable=True),
    Column("day", "date"),
    Column("flag", "boolean"),
    Column("t", "category", categories=("a", "b"), nullable=True),
)
FEATURES = (
    Number(0, "n", "", 0.0, 0.0, 1.0),
    Number(1, "month", "month", 0.0, 0.0, 1.0),
    Levels(3, "t = a", ("a",), rest=True),
    Code(3, "t", ("a", "b"), 2.0),
    Plain(2, "flag"),
)
STUMP = "\n".join(
    ["num_leaves=2", "num_cat=0", "split_feature=0", "threshold=0", "decision_type=10", "left_child=-1", "right_child=-2"]
    + ["leaf_value=0 1", "is_linear=0", "shrinkage=1", "", ""]
)


def rehearse() -> None:
    """For linear models and trees."""
    width = len(FEATURES)
    _answer(Linear(((1.0,) * width,), (0.0,), "identity"))
    for narrow in (False, True):
        _answer(Trees(lightgbm_text([STUMP], width, 1, "average_output"), width, 1, narrow))


def rehearse_graph() -> None:
    """For ONNX graphs."""
    from onnx import TensorProto, helper

    count = len(FEATURES)
    tensor = helper.make_tensor_value_info
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    graph = helper.make_graph(
        [node], "g", [tensor("x", TensorProto.DOUBLE, [None, count])], [tensor("y", TensorProto.DOUBLE, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    _answer(Graph(model.SerializeToString(), (Feed("x", "float64", 0, (count,)),), "y", count))


def small_model(scorer: Scorer) -> Model:
    """A regression on COLUMNS."""
    return Model("m", Signature(COLUMNS, Target("y", "regression"), {}), Encoder(COLUMNS, FEATURES), scorer)


def _answer(scorer: Scorer) -> None:
    model = load(dump(small_model(scorer)))
    harmless(model)
    record_golden([model], rows_frame(extreme_rows(COLUMNS, 0)[:3], COLUMNS), 0)

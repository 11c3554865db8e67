"""Damaged and malicious model files in the forms that are read as data are refused, and call nothing."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from onnx import numpy_helper
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import GraphBuilder, Tensor
from podium.importers.import_request import ImportRequest
from podium.importers.tree_graph import sum_of_trees
from podium.importers.ubjson import read_ubjson
from podium.models.lightgbm_export import TreeNodes
from podium.models.onnx_checks import check_graph
from podium.models.onnx_scorer import OnnxInput
from tests.unit.importers import model_files as files
from tests.unit.importers.payloads import Calls, named
from tests.unit.importers.test_old_releases import FILES


def refused(data: bytes, reason: str, name: str = "x.pkl") -> None:
    with pytest.raises(ImportRefused, match=reason):
        convert(ImportRequest(name, data, "m", "y", sample=files.people().to_csv(index=False).encode()))


class Named:
    """Pickles as the global of a module that need not be installed, constructed with arguments and a state."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None) -> None:
        self.module, self.name, self.arguments, self.state = module, name, arguments, state

    def bytes(self) -> bytes:
        text = "".join(f"{part}\n" for part in (self.module, self.name))
        parts = b"c" + text.encode() + b"(" + b"".join(map(_body, self.arguments)) + b"tR"
        return parts + (_body(self.state) + b"b" if self.state is not None else b"")


def _body(value: Any) -> bytes:
    return value.bytes() if isinstance(value, Named) else pickle.dumps(value, 2)[2:-1]


def dumped(value: Named) -> bytes:
    return b"\x80\x02" + value.bytes() + b"."


def stacking(methods: list[Any]) -> bytes:
    model = files.fitted(StackingClassifier(files.mixed(), cv=2))
    model.stack_method_ = methods
    return pickle.dumps(model)


PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a method of a stack": (lambda: stacking(["predict_proba", "__class__", "predict_proba"]), "names a method"),
    "methods as a text": (lambda: stacking("predict"), "names a method"),  # type: ignore[arg-type]
    "another function of numpy": (
        lambda: dumped(Named("numpy.core", "_ufunc_reconstruct", "os", "system")),
        "damaged|not known|cannot be|holds",
    ),
    "a loader of numpy": (
        lambda: pickle.dumps(FunctionTransformer(np.fromfile)),
        "uses numpy.fromfile, which is not allowed",
    ),
    "a partial of another function": (
        lambda: pickle.dumps(Calls(named("functools", "partial"), named("numpy", "log1p"))),
        "damaged|not allowed",
    ),
    "a partial of an operator": (
        lambda: pickle.dumps(Calls(named("functools", "partial"), named("posix", "system"), "true")),
        "not allowed",
    ),
    "an inert object in an estimator": (
        lambda: dumped(Named("sklearn.pipeline", "Pipeline", state={"steps": [Named("scipy.stats", "rv_frozen").module]})),
        "fitted|cannot|neither|fails",
    ),
    "an object of statsmodels alone": (lambda: dumped(Named("statsmodels.api", "load", "/etc/passwd")), "not the result"),
    "an object of scipy": (lambda: dumped(Named("scipy.io", "loadmat", "/etc/passwd")), "cannot be part of this model"),
    "a removed class": (lambda: dumped(Named("sklearn.ensemble._gb_losses", "BinomialDeviance")), "neither a classifier"),
    "a booster without a model": (lambda: dumped(Named("xgboost.core", "Booster")), "without a model"),
    "a booster of a number": (
        lambda: dumped(Named("xgboost.core", "Booster", state={"handle": 1 << 40})),
        "without a model",
    ),
    "a booster of another text": (
        lambda: dumped(Named("lightgbm.basic", "Booster", state={"handle": "tree\nversion=v4\n"})),
        "LightGBM model is incomplete",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_misuses_what_is_allowed_is_refused(name: str) -> None:
    make_data, reason = PICKLES[name]
    refused(make_data(), reason)


def test_a_pickled_booster_with_a_bad_index_is_refused() -> None:
    """LightGBM's own parser would read outside of its arrays."""
    text = files.lightgbm_classifier().booster_.model_to_string()
    bad = text.replace("left_child=", "left_child=9", 1)
    assert bad != text
    refused(dumped(Named("lightgbm.basic", "Booster", state={"handle": bad})), "LightGBM model is invalid")


def test_an_index_is_accepted_only_as_a_list_of_names() -> None:
    model = files.fitted(LogisticRegression(max_iter=500))
    model.coef_ = pd.Index(["a"])
    refused(pickle.dumps(model), "holds a")


def test_arrays_of_objects_count_towards_the_limits() -> None:
    """joblib writes them as a pickle of their own."""
    bomb: list[Any] = ["x"] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    array = np.empty(2, dtype=object)
    array[0] = bomb
    file = io.BytesIO()
    joblib.dump(array, file)
    refused(file.getvalue(), "repeats its parts too often")


# --- XGBoost -----------------------------------------------------------------------------------------------------------


def xgboost_json(change: Callable[[dict[str, Any]], None]) -> bytes:
    content = json.loads(FILES["xgboost-3.2.0/xgb.json"])
    change(content["learner"])
    return json.dumps(content, separators=(",", ":")).encode()


def tree_of(learner: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = learner["gradient_booster"]["model"]["trees"][0]
    return tree


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a cycle": lambda learner: tree_of(learner)["left_children"].__setitem__(1, 0),
    "a missing child": lambda learner: tree_of(learner)["right_children"].__setitem__(0, 10**6),
    "a negative child": lambda learner: tree_of(learner)["right_children"].__setitem__(0, -5),
    "a shared child": lambda learner: tree_of(learner)["right_children"].__setitem__(0, 1),
    "another feature": lambda learner: tree_of(learner)["split_indices"].__setitem__(0, 99),
    "a large feature": lambda learner: tree_of(learner)["split_indices"].__setitem__(0, 1 << 70),
    "another class": lambda learner: learner["gradient_booster"]["model"]["tree_info"].__setitem__(0, 7),
    "no trees": lambda learner: learner["gradient_booster"]["model"].pop("trees"),
    "another objective": lambda learner: learner["objective"].__setitem__("name", "survival:cox"),
    "an impossible share": lambda learner: learner["learner_model_param"].__setitem__("base_score", "2E0"),
    "a text": lambda learner: learner.__setitem__("gradient_booster", "gbtree"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_xgboost_model_is_refused(name: str) -> None:
    refused(xgboost_json(CHANGES[name]), "cannot be read|is not supported", "x.json")


@pytest.mark.parametrize("cut", [10, 500, 1500])
def test_a_truncated_xgboost_model_is_refused(cut: int) -> None:
    data = FILES["xgboost-3.2.0/xgb.ubj"]
    with pytest.raises(ValueError, match="the binary JSON"):
        read_ubjson(data[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 10_000,
        b"[$d#L\x7f" + b"\xff" * 7,
        b"[$Z#L\x7f" + b"\xff" * 7,
        b"{$T#l\x7f\xff\xff\xff",
        b"SL\xff" + b"\xff" * 7,
        b"x",
        b"",
    ],
)
def test_binary_json_without_end_or_of_impossible_size_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the binary JSON"):
        read_ubjson(data)


# --- trees in a graph --------------------------------------------------------------------------------------------------


def tree_sum() -> Tensor:
    nodes = TreeNodes(
        np.array([0, 1, 0, 0, 0]),
        np.array([0.5, 0.0, 0, 0, 0]),
        np.array([1, 3, -1, -1, -1]),
        np.array([2, 4, -1, -1, -1]),
        np.zeros(5, bool),
        np.arange(5.0)[:, None],
        np.ones(5),
        {1: [1, 3]},
    )
    return sum_of_trees(GraphBuilder().source, [(nodes, 0, 0, 1.0)], [0.0])


def checked(output: Tensor) -> None:
    check_graph(output.graph.model((2,), output), (OnnxInput("x", "float64", 0, (2,)),), "y")


ATTRIBUTES: dict[str, tuple[str, Any]] = {
    "a missing node": ("nodes_truenodeids", [9, 0]),
    "a cycle": ("nodes_truenodeids", [0, 0]),
    "a missing leaf": ("nodes_falsenodeids", [7, 2]),
    "another feature": ("nodes_featureids", [0, 2]),
    "a negative feature": ("nodes_featureids", [0, -1]),
    "another target": ("leaf_targetids", [0, 0, 5]),
    "a short column": ("nodes_truenodeids", [1]),
    "a root that does not exist": ("tree_roots", [4]),
    "a root that is a child": ("tree_roots", [0, 1]),
    "an unknown mode": ("nodes_modes", np.array([0, 99], np.uint8)),
    "a node without a set": ("nodes_modes", np.array([6, 6], np.uint8)),
    "a set without an end": ("membership_values", np.array([1.0, 3.0])),
    "fewer weights": ("leaf_weights", np.array([1.0])),
}


def test_the_graph_of_a_tree_passes_the_checks() -> None:
    checked(tree_sum())


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_damaged_tree_in_a_graph_is_rejected(name: str) -> None:
    attribute, value = ATTRIBUTES[name]
    output = tree_sum()
    node = next(node for node in output.graph.nodes if node.op_type == "TreeEnsemble")
    field = next(field for field in node.attribute if field.name == attribute)
    if isinstance(value, np.ndarray):
        field.t.CopyFrom(numpy_helper.from_array(value))
    else:
        del field.ints[:]
        field.ints.extend(value)
    with pytest.raises(ValueError, match="TreeEnsemble"):
        checked(output)


def test_the_archive_of_old_files_has_plain_members_only() -> None:
    from tests.unit.importers.test_old_releases import ARCHIVE

    with tarfile.open(ARCHIVE) as archive:
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())

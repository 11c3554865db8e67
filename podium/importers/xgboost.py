"""XGBoost models from JSON, Universal Binary JSON and pickles, read as data without XGBoost.

The form is described in XGBoost's documentation, "Introduction to Model IO". XGBoost sends a row left if its feature is below
the threshold, in float32; here a row goes left if it is not above the next smaller number.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.tree_model import TreeModel
from podium.importers.ubjson import read_ubjson
from podium.models.lightgbm_export import TreeNodes
from podium.schema.columns import Column

REMEDY = "save it with `model.save_model('model.json')` in the release of XGBoost that wrote it, and import that"
LINK_OF_OBJECTIVE = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "logistic"),
    **dict.fromkeys(("multi:softprob", "multi:softmax"), "softmax"),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), "exp"),
    **dict.fromkeys(
        (
            *("reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror"),
            *("reg:quantileerror", "rank:pairwise", "rank:ndcg", "rank:map"),
        ),
        "identity",
    ),
}
INVERSE_LINKS: dict[str, Callable[[float], float]] = {
    "logistic": lambda share: math.log(share / (1.0 - share)),
    "exp": math.log,
    "identity": lambda value: value,
    "softmax": lambda value: value,
}
MAX_CATEGORIES = 100_000


def read_xgboost(data: bytes, missing: float = float("nan"), stops_early: bool = False) -> XGBoostModel:
    """Read JSON or binary JSON of a model, or the bytes of a pickled booster, which contain it. Raises ImportRefused.

    `stops_early` is true for a pickled estimator, which uses the trees up to the best iteration, as a file that an estimator
    saved does.
    """
    try:
        content = json.loads(data) if data[:2] in (b'{"', b"{\n", b"{ ") else read_ubjson(data)
        content = content.get("Model", content)
        return XGBoostModel(content["learner"], missing, stops_early)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ImportRefused(f"the XGBoost model cannot be read ({type(error).__name__}): {REMEDY}") from error


def is_xgboost(data: bytes) -> bool:
    """True for JSON or binary JSON with a learner."""
    return data[:1] == b"{" and b"learner" in data[:200] and b"gradient_booster" in data


class XGBoostModel:
    """The trees, or the weights, of a model with its columns and objective. Raises the errors of damaged content."""

    def __init__(self, learner: Mapping[str, Any], missing: float, stops_early: bool) -> None:
        booster = learner["gradient_booster"]
        self.objective = str(learner["objective"]["name"])
        parameters = learner["learner_model_param"]
        self.features = int(parameters["num_feature"])
        if self.objective not in LINK_OF_OBJECTIVE:
            raise ImportRefused(f"XGBoost's objective {self.objective} is not supported: train with one of {_objectives()}")
        if int(parameters.get("num_target", "1")) > 1:
            raise ImportRefused("the model predicts several targets: fit one model per target")
        self.link = LINK_OF_OBJECTIVE[self.objective]
        self.outputs = max(1, int(parameters["num_class"]))
        base = [INVERSE_LINKS[self.link](value) for value in _numbers(parameters["base_score"])]
        self.base = base if len(base) == self.outputs else base[:1] * self.outputs
        self.is_linear = booster["name"] == "gblinear"
        gbtree = booster.get("gbtree", booster)["model"]
        if self.is_linear:
            weights = np.asarray(booster["model"]["weights"], dtype=float).reshape(self.features + 1, self.outputs)
            self.weights, self.bias = weights[:-1].T, weights[-1] + np.array(self.base)
        else:
            count = _used_trees(learner, gbtree, stops_early)
            self.trees = _tree_model(gbtree, booster.get("weight_drop"), count, self, missing)
        self.columns = _columns(learner, gbtree, self.features)

    @property
    def names(self) -> list[str] | None:
        """The names of the columns, if the file has them."""
        return [column.name for column in self.columns] if self.columns[0].name else None


def _objectives() -> str:
    return ", ".join(LINK_OF_OBJECTIVE)


def _numbers(text: Any) -> list[float]:
    """Parse `5E-1` or `[5E-1,1E0]`."""
    return [float(number) for number in str(text).strip("[]").split(",")]


def _tree_model(
    model: Mapping[str, Any], dropped: Sequence[float] | None, count: int, parent: XGBoostModel, missing: float
) -> TreeModel:
    trees, info = model["trees"], [int(number) for number in model["tree_info"]]
    weights = [1.0] * len(trees) if dropped is None else [float(weight) for weight in dropped]
    nodes = tuple(_tree(tree, weight, parent.features) for tree, weight in zip(trees[:count], weights, strict=False))
    if not all(0 <= target < parent.outputs for target in info):
        raise ValueError("a tree belongs to a class that does not exist")
    return TreeModel(nodes, tuple(info[:count]), tuple(parent.base), parent.link, parent.features, True, missing)


def _used_trees(learner: Mapping[str, Any], model: Mapping[str, Any], stops_early: bool) -> int:
    """Return the number of trees that count: an estimator uses those up to the best iteration of early stopping."""
    attributes, count = learner.get("attributes") or {}, len(model["trees"])
    best = attributes.get("best_iteration")
    if best is None or not (stops_early or "scikit_learn" in attributes):
        return count
    starts = model.get("iteration_indptr")
    if starts is not None and len(starts) > int(best) + 1:
        return int(starts[int(best) + 1])
    per_iteration = max(1, int(learner["learner_model_param"]["num_class"]))
    parallel = int(model["gbtree_model_param"].get("num_parallel_tree", 1))
    return min(count, (int(best) + 1) * per_iteration * max(1, parallel))


def _tree(tree: Mapping[str, Any], weight: float, features: int) -> TreeNodes:
    """Convert a tree, whose nodes are brought into an order in which children follow their parent."""
    left, right = (np.asarray(tree[f"{side}_children"], dtype=int) for side in ("left", "right"))
    order = _order(left, right)
    position = np.zeros(len(left), dtype=int)
    position[order] = np.arange(len(order))
    inner = left[order] >= 0
    new_left, new_right = (np.where(inner, position[np.where(side >= 0, side, 0)][order], -1) for side in (left, right))
    feature = np.where(inner, np.asarray(tree["split_indices"], dtype=int)[order], 0)
    if not (feature >= 0).all() or not (feature < features).all():
        raise ValueError("a tree reads a feature that does not exist")
    condition = np.asarray(tree["split_conditions"], dtype=np.float32)[order]
    missing_left = np.asarray(tree["default_left"], dtype=bool)[order]
    categories = {}
    for node, codes in _category_sets(tree).items():  # these categories go right; an unknown one goes left
        at = int(position[node])
        categories[at] = codes
        new_left[at], new_right[at] = new_right[at], new_left[at]
        if not missing_left[at]:
            raise ImportRefused("a missing category goes with the listed ones in this model: replace missing categories first")
    return TreeNodes(
        feature,
        np.where(inner, np.nextafter(condition, np.float32(-np.inf)), 0).astype(float),
        new_left,
        new_right,
        missing_left,
        (condition.astype(float) * weight)[:, None],
        np.asarray(tree.get("sum_hessian", np.ones(len(left))), dtype=float)[order],
        categories,
    )


def _order(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the nodes that can be reached from the root, parents first. Raises ValueError for a graph that is not a tree."""
    order, waiting, reached = [], [0], {0}
    while waiting:
        node = waiting.pop()
        order.append(node)
        if left[node] >= 0:
            children = [int(right[node]), int(left[node])]
            if not all(0 < child < len(left) for child in children) or not reached.isdisjoint(children):
                raise ValueError("a tree has a missing child, or a node with two parents")
            reached.update(children)
            waiting += children
    return np.array(order)


def _category_sets(tree: Mapping[str, Any]) -> dict[int, list[int]]:
    nodes = [int(node) for node in tree.get("categories_nodes", ())]
    codes = [int(code) for code in tree.get("categories", ())]
    if any(not 0 <= code < MAX_CATEGORIES for code in codes):
        raise ValueError("a category is out of range")
    segments = zip(tree.get("categories_segments", ()), tree.get("categories_sizes", ()), strict=True)
    return {node: codes[int(start) : int(start) + int(size)] for node, (start, size) in zip(nodes, segments, strict=True)}


def _columns(learner: Mapping[str, Any], model: Mapping[str, Any], features: int) -> list[Column]:
    """The columns; names are empty if the file has none. Categories are known since XGBoost 3.1."""
    names = [str(name) for name in learner.get("feature_names") or [""] * features]
    encodings = (model.get("cats") or {}).get("enc") or [{}] * features
    kinds = learner.get("feature_types") or [""] * features
    columns = []
    for name, kind, encoding in zip(names, kinds, encodings, strict=True):
        texts = _texts(encoding)
        if kind == "c" and not texts:
            raise ImportRefused(f"the file does not hold the categories of {name}: save it with XGBoost 3.1 or newer")
        columns.append(Column(name, "category", categories=texts) if texts else Column(name, "number"))
    return columns


def _texts(encoding: Mapping[str, Any]) -> tuple[str, ...]:
    offsets = [int(offset) for offset in encoding.get("offsets", ())]
    data = bytes(int(byte) & 255 for byte in encoding.get("values", ())) if offsets else b""
    return tuple(data[start:end].decode() for start, end in itertools.pairwise(offsets))

"""CatBoost models from JSON, CatBoost's binary format and pickles, read as data without CatBoost.

A row goes right if float32(x) > border. Splits by category become sets of codes, and so do statistics of a single column if the
sets are small; statistics of combinations are additional columns, which only a graph can compute.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from onnx import TensorProto

from podium.importers.catboost_binary import MAGIC, read_binary
from podium.importers.catboost_statistics import Category, extended, read_statistic, trained_hashes
from podium.importers.catboost_trees import Split, read_tree
from podium.importers.city_hash import category_hash
from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import GraphBuilder
from podium.importers.tree_graph import WeightedTree, sum_of_trees
from podium.importers.tree_model import TreeModel
from podium.schema.arrays import FloatMatrix

REMEDY = "save it with `model.save_model('model.json', format='json')`, and import that"
CATEGORY_REMEDY = "pass --sample with all of them, or save JSON with `pool=Pool(X, y, cat_features=…)`, which holds their texts"
LINK_OF_LOSS = {
    **dict.fromkeys(("Logloss", "CrossEntropy", "Focal"), "logistic"),
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "logistic each",
    **dict.fromkeys(("Poisson", "Tweedie"), "exp"),
    **dict.fromkeys(
        (
            *("RMSE", "MAE", "Quantile", "LogLinQuantile", "MAPE", "Huber", "Expectile", "Lq", "LogCosh", "RMSPE", "Cox"),
            *("SurvivalAft", "YetiRank", "YetiRankPairwise", "PairLogit", "PairLogitPairwise", "QueryRMSE", "QuerySoftMax"),
            *("QueryCrossEntropy", "GroupQuantile", "StochasticFilter", "StochasticRank", "LambdaMart"),
        ),
        "identity",
    ),
}
"""The function that `predict` and `predict_proba` of CatBoost's estimators apply to the sums of the leaves, by loss."""
DAMAGES = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError, struct.error)
MAX_SET_SIZE = 1 << 22
"""Limit on the codes in the sets of all trees."""


def read_catboost(data: bytes) -> Mapping[str, Any]:
    """Return the content of a file. Raises ImportRefused."""
    try:
        content: Mapping[str, Any] = read_binary(data) if data.startswith(MAGIC) else json.loads(data)
        CatBoostModel(content)
    except DAMAGES as error:
        raise ImportRefused(f"the CatBoost model cannot be read ({type(error).__name__}): {REMEDY}") from error
    return content


def is_catboost(data: bytes) -> bool:
    """True for the binary format, and for JSON with CatBoost's sections."""
    return data.startswith(MAGIC) or (data[:1] == b"{" and b'"features_info"' in data and b'"scale_and_bias"' in data)


class CatBoostModel:
    """The trees of a model with its columns, loss and classes.

    `sample_names` are the columns of a sample, in case that the file has no names, and `samples` the texts in them.

    Raises the errors of damaged content.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        sample_names: Sequence[str] = (),
        samples: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self._content, info, features = content, content["model_info"], content["features_info"]
        self.loss = str(info["params"]["loss_function"]["type"])
        if self.loss not in LINK_OF_LOSS:
            raise ImportRefused(f"CatBoost's loss {self.loss} is not supported: train with one of {', '.join(LINK_OF_LOSS)}")
        self.link = LINK_OF_LOSS[self.loss]
        self.classes = _classes(info) if self.link in ("logistic", "softmax", "logistic each") else None
        self._numbers = _by_index(features.get("float_features"))
        self._categories = _by_index(features.get("categorical_features"))
        self._column = {entry["flat_feature_index"]: entry for entry in (*self._numbers.values(), *self._categories.values())}
        self.features = len(self._column)
        if sorted(self._column) != list(range(self.features)) or not self.features:
            raise ValueError("the columns are incomplete")
        names = [str(self._column[index].get("feature_id") or index) for index in range(self.features)]
        self.names = names if names != list(map(str, range(self.features))) else None
        self.column_names = self.names or (sample_names if len(sample_names) == self.features else names)
        texts = _Texts(content)
        known = {
            (column := entry["flat_feature_index"]): texts.of(entry, samples.get(self.column_names[column], ()))
            for entry in self._categories.values()
        }
        self.text_columns = {column: categories for column, (categories, _) in known.items()}
        self.closed_columns = [column for column, (_, is_complete) in known.items() if not is_complete]
        """Text columns in which an unknown category may be one of the training rows."""
        ctr_data = content.get("ctr_data") or {}
        self.statistics = [
            read_statistic(entry, ctr_data[entry["identifier"]], [self._element(part) for part in entry["elements"]])
            for entry in features.get("ctrs") or ()
        ]
        self._trees = [read_tree(tree) for tree in content.get("oblivious_trees") or content["trees"]]

    def _element(self, part: Mapping[str, Any]) -> Category | Split:
        kind = part["combination_element"]
        if kind == "float_feature":
            return self._number_split(self._numbers[part["float_feature_index"]], part["border"])
        if kind == "cat_feature_exact_value":
            return self._category_split(self._categories[part["cat_feature_index"]], part["value"])
        column = self._categories[part["cat_feature_index"]]["flat_feature_index"]
        return Category(column, extended([category_hash(text) for text in self.text_columns[column]]))

    def _number_split(self, entry: Mapping[str, Any], border: float) -> Split:
        missing = bool(entry["has_nans"]) and entry["nan_value_treatment"] == "AsTrue"
        return Split(entry["flat_feature_index"], float(np.float32(border)), missing)

    def _category_split(self, entry: Mapping[str, Any], value: int) -> Split:
        column = entry["flat_feature_index"]
        hashes = [category_hash(text) for text in self.text_columns[column]]
        return Split(column, codes=tuple(code for code, known in enumerate(hashes) if known == int(value) & 0xFFFFFFFF))

    @cached_property
    def _splits(self) -> list[Split]:
        """All splits, in the order to which the trees refer; those of statistics are of additional columns."""
        numbers, categories = self._numbers.values(), self._categories.values()
        splits = [self._number_split(entry, border) for entry in numbers for border in entry["borders"] or ()]
        splits += [self._category_split(entry, value) for entry in categories for value in entry.get("values") or ()]
        for index, entry in enumerate(self._content["features_info"].get("ctrs") or ()):
            splits += [Split(self.features + index, float(np.float32(border))) for border in entry["borders"] or ()]
        return splits

    @cached_property
    def _set_splits(self) -> list[Split]:
        """The same splits, with sets of categories in place of statistics. Raises ValueError if that is impossible."""
        splits, size = [], 0
        for split in self._splits:
            if split.column >= self.features:
                statistic = self.statistics[split.column - self.features]
                if statistic.column is None:
                    raise ValueError("a statistic of a combination")
                above = statistic.column_values() > split.border  # the last one is that of an unknown category
                codes = np.flatnonzero(above[:-1] != above[-1]).tolist()
                split = Split(statistic.column, missing=bool(above[-1]), codes=tuple(codes))
                size += len(above)
            splits.append(split)
        if size * len(self._trees) > MAX_SET_SIZE:
            raise ValueError("large sets of categories")
        return splits

    def tree_model(self) -> TreeModel:
        """Return trees that read the columns only. Raises ValueError if there are none."""
        return self._tree_model(self._set_splits, self.features)

    def scores(self, matrix: FloatMatrix) -> FloatMatrix:
        """Evaluate the trees on numbers and codes of categories."""
        with np.errstate(over="ignore"):
            rounded = np.asarray(matrix, dtype=np.float32).astype(float)
        columns = [statistic.of(rounded) for statistic in self.statistics]
        return self._full_model.scores(np.column_stack([rounded, *columns]))

    @cached_property
    def _full_model(self) -> TreeModel:
        return self._tree_model(self._splits, self.features + len(self.statistics))

    def add_sums_to(self, graph: GraphBuilder, source: str) -> str:
        """Compute the sums of the leaves from the (rows, columns) tensor."""
        x = graph.add("Cast", graph.add("Cast", source, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
        columns = [statistic.add_to(graph, x) for statistic in self.statistics]
        x = graph.add("Concat", x, *columns, axis=1) if columns else x
        model = self._full_model
        parts: list[WeightedTree] = [(nodes, 0, target, 1.0) for nodes, target in zip(model.trees, model.targets, strict=True)]
        return sum_of_trees(graph, x, parts, model.base)

    def codes(self, rows: Any) -> FloatMatrix:
        """Replace texts by their codes. Raises ValueError for a missing category, or one that training may have had."""
        frame = pd.DataFrame(rows).copy()
        for column, texts in self.text_columns.items():
            cells = frame.iloc[:, column]
            codes = cells.map({text: float(code) for code, text in enumerate(texts)})
            if cells.isna().any() or (column in self.closed_columns and codes.isna().any()):
                raise ValueError("a missing or unknown category")
            frame[frame.columns[column]] = codes.fillna(len(texts)).astype(float)
        return frame.to_numpy(dtype=float)

    def _tree_model(self, splits: Sequence[Split], columns: int) -> TreeModel:
        scale, bias = self._content["scale_and_bias"]
        outputs = self._trees[0].values.shape[1] if self._trees else len(bias)
        base = np.broadcast_to(np.asarray(bias, dtype=float), outputs)
        if (self.link in ("softmax", "logistic each")) != (outputs > 1):
            raise ImportRefused(f"the loss {self.loss} does not have {outputs} outputs: train with one target")
        trees = [tree.nodes(splits, float(scale), output) for tree in self._trees for output in range(outputs)]
        targets = tuple(range(outputs)) * len(self._trees)
        return TreeModel(tuple(trees), targets, tuple(base.tolist()), self.link, columns, float32=True)


def _by_index(entries: Sequence[Mapping[str, Any]] | None) -> dict[int, Mapping[str, Any]]:
    return {entry["feature_index"]: entry for entry in entries or ()}


def _classes(info: Mapping[str, Any]) -> list[Any]:
    """Return the labels of the classes in the order of the outputs. Raises ImportRefused."""
    parameters = info.get("class_params") or info.get("multiclass_params") or {}
    names, order = parameters.get("class_names") or [], parameters.get("class_to_label") or []
    labels = list(names or order or [0, 1])
    if order and [float(label) for label in order] != list(range(len(labels))) and names:
        raise ImportRefused("the model has classes that its training rows do not: train again without class_names")
    return labels


class _Texts:
    """What a file tells about categories: perhaps their texts, and the 32-bit hashes of those that the trees distinguish."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        features, tables = content["features_info"], content.get("ctr_data") or {}
        self._texts = [str(entry["value"]) for entry in features.get("cat_features_hash") or ()]
        self._single: dict[int, set[int]] = {}
        self._combined: set[int] = set()
        for entry in features.get("ctrs") or ():
            elements = entry["elements"]
            indices = [part["cat_feature_index"] for part in elements if part["combination_element"] == "cat_feature_value"]
            if len(elements) == 1:
                self._single[indices[0]] = trained_hashes(tables[entry["identifier"]])
            else:
                self._combined.update(indices)

    def of(self, entry: Mapping[str, Any], sample: Sequence[str]) -> tuple[tuple[str, ...], bool]:
        """Return the categories of a column, and whether every other one is unknown to the model, too.

        A column's own table of counts has all categories of the training rows; tables of combinations do not show them.
        """
        index = entry["feature_index"]
        hashes = self._single.get(index, set()) | {int(value) & 0xFFFFFFFF for value in entry.get("values") or ()}
        texts = {*sample, *map(str, entry.get("string_values") or ())}
        texts |= {text for text in self._texts if category_hash(text) in hashes} or (set() if texts else set(self._texts))
        is_complete = hashes <= set(map(category_hash, texts)) and (index in self._single or index not in self._combined)
        return tuple(sorted(texts)), is_complete or bool(self._texts)

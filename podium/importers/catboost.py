"""CatBoost models from JSON, CatBoost's binary format and pickles, read as data without CatBoost.

A row goes right if float32(x) > border. Splits by category become sets of codes, and so do statistics of a single column if the
sets are small; statistics of combinations are additional columns, which only a graph can compute.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from podium.importers.catboost_binary import MAGIC, read_binary
from podium.importers.catboost_categories import read_text_columns
from podium.importers.catboost_statistics import Category, Counts, Statistic, StatisticsGraph, read_counts, read_statistic
from podium.importers.errors import ImportRefused
from podium.importers.graph_builder import Tensor, concat
from podium.importers.tree_graph import sum_of_trees
from podium.importers.tree_model import TreeModel
from podium.models.catboost_trees import Split, number_split, read_tree
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
MAX_SET_CODES, MAX_HASHES = 1 << 25, 1 << 23
"""Limits on the codes in the sets of all nodes, and on the hashes of all statistics."""


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
    return data.startswith(MAGIC) or (data[:1] == b"{" and b'"features_info"' in data and b'"model_info"' in data)


def no_texts(name: str) -> tuple[str, ...]:
    """Return the texts of a column without a sample."""
    return ()


class CatBoostModel:
    """The trees of a model with its columns, loss and classes.

    `sample_names` are the columns of a sample, for a file without names, and `sample_texts` returns the texts in one of them.
    Raises the errors of damaged content.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        sample_names: Sequence[str] = (),
        sample_texts: Callable[[str], Sequence[str]] = no_texts,
    ) -> None:
        info, features = content["model_info"], content["features_info"]
        self.loss = str(info["params"]["loss_function"]["type"])
        if self.loss not in LINK_OF_LOSS:
            raise ImportRefused(f"CatBoost's loss {self.loss} is not supported: train with one of {', '.join(LINK_OF_LOSS)}")
        self.link = LINK_OF_LOSS[self.loss]
        self.classes = _classes(info) if self.link in ("logistic", "softmax", "logistic each") else None
        self._numbers = {entry["feature_index"]: entry for entry in features.get("float_features") or ()}
        columns = [*self._numbers.values(), *(features.get("categorical_features") or ())]
        names = {entry["flat_feature_index"]: str(entry.get("feature_id") or "") for entry in columns}
        self.features = len(names)
        if not names or names.keys() != set(range(len(columns))):
            raise ValueError("the columns are incomplete")
        ordered = [names[index] for index in range(self.features)]
        has_names = all(ordered) and ordered != [str(index) for index in range(self.features)]
        self.names = ordered if has_names else None
        self.column_names = ordered if has_names or len(sample_names) != self.features else sample_names
        tables = {key: read_counts(table) for key, table in (content.get("ctr_data") or {}).items()}
        self._text_columns = read_text_columns(features, tables, lambda index: sample_texts(self.column_names[index]))
        self._statistics = self._read_statistics(features.get("ctrs") or (), tables)
        self._splits = self._read_splits(features)
        self._trees = [read_tree(tree) for tree in content["trees" if "trees" in content else "oblivious_trees"]]
        if any(tree.split.max() >= len(self._splits) for tree in self._trees):
            raise ValueError("a tree has a split that does not exist")
        scale, bias = content.get("scale_and_bias") or (1.0, 0.0)
        (outputs,) = {tree.values.shape[1] for tree in self._trees} or {np.size(bias)}
        if (self.link in ("softmax", "logistic each")) != (outputs > 1):
            raise ValueError("the loss does not have this number of outputs")
        self._scale, self._bias = float(scale), np.broadcast_to(np.asarray(bias, dtype=float), outputs).tolist()

    @property
    def text_columns(self) -> dict[int, tuple[str, ...]]:
        """The categories by column."""
        return {column.index: column.texts for column in self._text_columns.values()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if the categories of a column may not be complete."""
        names = [self.column_names[column.index] for column in self._text_columns.values() if not column.is_complete]
        text = f"the file has categories of {', '.join(names)[:200]} whose texts are unknown, so others are rejected: "
        return (text + CATEGORY_REMEDY,) if names else ()

    def _read_statistics(self, entries: Sequence[Any], tables: Mapping[str, Counts]) -> list[Statistic]:
        if sum(len(tables[entry["identifier"]].hashes) for entry in entries) > MAX_HASHES:
            raise ImportRefused("the statistics by category are too large: train with max_ctr_complexity=1 or fewer categories")
        return [
            read_statistic(entry, tables[entry["identifier"]], [self._element(part) for part in entry["elements"]])
            for entry in entries
        ]

    def _element(self, part: Mapping[str, Any]) -> Category | Split:
        kind = part["combination_element"]
        if kind == "float_feature":
            return number_split(self._numbers[part["float_feature_index"]], part["border"])
        column = self._text_columns[part["cat_feature_index"]]
        return column.category if kind == "cat_feature_value" else column.split(int(part["value"]))

    def _read_splits(self, features: Mapping[str, Any]) -> list[Split]:
        """Return all splits, in the order to which the trees refer; those of statistics are of additional columns."""
        splits = [number_split(entry, border) for entry in self._numbers.values() for border in entry["borders"] or ()]
        for entry in features.get("categorical_features") or ():
            column = self._text_columns[entry["feature_index"]]
            splits += [column.split(int(value)) for value in entry.get("values") or ()]
        for index, entry in enumerate(features.get("ctrs") or ()):
            splits += [Split(self.features + index, float(np.float32(border))) for border in entry["borders"] or ()]
        return splits

    def tree_model(self) -> TreeModel:
        """Return trees that read the columns only. Raises ValueError if there are none."""
        uses = Counter(number for tree in self._trees for number in tree.split.tolist())
        splits, size, texts = [], 0, self.text_columns
        for number, split in enumerate(self._splits):
            if split.column >= self.features:
                split = self._statistics[split.column - self.features].split_by_category(split.border)
                size += uses[number] * len(texts[split.column])
            splits.append(split)
        if size > MAX_SET_CODES:
            raise ValueError("large sets of categories")
        return self._tree_model(splits, self.features)

    def _tree_model(self, splits: Sequence[Split], columns: int) -> TreeModel:
        outputs = range(len(self._bias))
        trees = [tree.nodes(splits, self._scale, output) for tree in self._trees for output in outputs]
        targets = tuple(outputs) * len(self._trees)
        return TreeModel(tuple(trees), targets, tuple(self._bias), self.link, columns, float32=True)

    @cached_property
    def _full_model(self) -> TreeModel:
        """The trees on the columns and the statistics."""
        return self._tree_model(self._splits, self.features + len(self._statistics))

    def scores(self, rows: Any) -> FloatMatrix:
        """Evaluate the trees on numbers and texts. Raises ValueError for a category that the model would not accept."""
        frame = pd.DataFrame(rows).copy()
        for column in self._text_columns.values():
            frame[frame.columns[column.index]] = column.codes(frame.iloc[:, column.index])
        with np.errstate(over="ignore"):
            matrix = frame.to_numpy(dtype=float).astype(np.float32).astype(float)
        return self._full_model.scores(np.column_stack([matrix, *(statistic.of(matrix) for statistic in self._statistics)]))

    def sums(self, source: Tensor) -> Tensor:
        """Return the sums of the leaves from a (rows, columns) tensor of numbers and codes."""
        x = source.rounded()
        if self._statistics:
            x = concat([x, concat([*map(StatisticsGraph(x).tensor, self._statistics)]).number()])
        model = self._full_model
        parts = [(nodes, 0, target, 1.0) for nodes, target in zip(model.trees, model.targets, strict=True)]
        return sum_of_trees(x, parts, model.base)


def _classes(info: Mapping[str, Any]) -> list[Any]:
    """Return the labels of the classes in the order of the outputs, without classes that no training row had."""
    options = info["params"].get("data_processing_options") or {}
    parameters = info.get("class_params") or info.get("multiclass_params") or options
    names = parameters.get("class_names")
    order = parameters.get("class_to_label") or range(len(names or (0, 1)))
    return [names[int(label)] for label in order] if names else list(order)

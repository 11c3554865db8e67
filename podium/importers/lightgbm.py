"""LightGBM's text files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import DOUBLE, ImportedModel, plain_encoder, target_of
from podium.models.scorers import LightGBMScorer
from podium.models.tree_checks import check_trees
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

CLASSES = ("binary", "multiclass", "multiclassova", "softmax", "cross_entropy")


def read_lightgbm(data: bytes, target: str, classes: tuple[str, ...]) -> ImportedModel:
    """A model as `Booster.save_model` writes it. Raises Refusal."""
    return booster_model(data.decode(errors="replace"), target, classes, None)


def booster_model(text: str, target: str, classes: tuple[str, ...], labels: Sequence[object] | None) -> ImportedModel:
    """The text form of a booster; `labels` are the classes that a wrapper knows. Raises Refusal."""
    head = dict(line.split("=", 1) for line in text.partition("\n\n")[0].split("\n") if "=" in line)
    try:
        names, spans, outputs = head["feature_names"].split(" "), head["feature_infos"].split(" "), int(head["num_class"])
    except (KeyError, ValueError) as error:
        raise ImportRefused("the file is no whole LightGBM model") from error
    trees = checked(LightGBMScorer(text, len(names), outputs))
    objective = head.get("objective", "").partition(" ")[0]
    columns = _columns(names, spans, _categories(text))
    of_classes = objective in CLASSES
    known = (labels if labels is not None else range(max(2, outputs))) if of_classes else None
    if not of_classes and outputs > 1:
        raise ImportRefused(
            f"the objective {objective or 'of this file'} has {outputs} outputs; one number or classes are served"
        )
    scorer = replace(trees, binary_probability=of_classes and outputs == 1)
    encoder = plain_encoder(columns)

    def original(frame: pd.DataFrame) -> FloatMatrix:
        found = np.asarray(lightgbm.Booster(model_str=scorer.text).predict(_as_trained(frame, columns))).reshape(len(frame), -1)
        return np.hstack([1.0 - found, found]) if scorer.binary_probability else found

    return ImportedModel("LightGBM", encoder, [(encoder, scorer, DOUBLE)], target_of(target, known, classes), original)


def _as_trained(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The frame with categories of pandas, as LightGBM was given them."""
    texts = {c.name: pd.Categorical(frame[c.name], categories=list(c.categories)) for c in columns if c.is_text}
    return frame.assign(**texts)


def _categories(text: str) -> list[list[Any]]:
    """The categories of pandas that training saw, a list for each such column."""
    line = re.search(r"^pandas_categorical:(.*)$", text, re.MULTILINE)
    found: list[list[Any]] | None = json.loads(line[1]) if line else None
    return found or []


def _columns(names: Sequence[str], ranges: Sequence[str], categories: list[list[Any]]) -> list[Column]:
    """`[low:high]` is a number, `none` one that never varied, and a list of codes a category."""
    remaining, columns = list(categories), []
    for name, span in zip(names, ranges, strict=True):
        if span.startswith("["):
            low, high = (float(end) for end in span.strip("[]").split(":"))
            columns.append(Column(name, "number", low=low, high=high))
        elif span == "none" or not remaining:
            columns.append(Column(name, "number"))
        else:
            columns.append(Column(name, "category", categories=tuple(map(str, remaining.pop(0)))))
    if any(not all(isinstance(level, str) for level in levels) for levels in categories):
        raise ImportRefused("a category of this model is a number: train with its categories as text")
    return columns


def checked(trees: LightGBMScorer) -> LightGBMScorer:
    """The trees, if LightGBM can read them safely. Raises Refusal."""
    try:
        check_trees(trees.text, trees.features, trees.outputs)
    except ValueError as error:
        raise ImportRefused(f"the file is no whole LightGBM model: {error}") from error
    return trees

"""Models in LightGBM's text format."""

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
from podium.importers.imported_model import FLOAT64_TOLERANCE, Conversion, ImportedModel, plain_encoder, target_of
from podium.importers.lightgbm_text import check_text
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

CLASSIFICATION_OBJECTIVES = ("binary", "multiclass", "multiclassova", "softmax", "cross_entropy")


def read_lightgbm(data: bytes, target: str, class_names: tuple[str, ...]) -> ImportedModel:
    """Read a model written by `Booster.save_model`. Raises ImportRefused."""
    return booster_model(data.decode(errors="replace"), target, class_names, None)


def booster_model(text: str, target: str, class_names: tuple[str, ...], labels: Sequence[object] | None) -> ImportedModel:
    """Read the text of a booster; `labels` are the classes of a scikit-learn wrapper. Raises ImportRefused."""
    checked = check_text(text)
    header, outputs = checked.header, checked.outputs
    names, ranges = header["feature_names"].split(" "), header["feature_infos"].split(" ")
    trees = LightGBMScorer(text, checked.features, outputs)
    objective = header.get("objective", "").partition(" ")[0]
    columns = _columns(names, ranges, _categories(text))
    classification = objective in CLASSIFICATION_OBJECTIVES
    if not classification and outputs > 1:
        raise ImportRefused(
            f"the objective {objective or '(none)'} has {outputs} outputs: train a classifier, or a model with one output"
        )
    known_labels = (labels if labels is not None else range(max(2, outputs))) if classification else None
    scorer = replace(trees, binary_probability=classification and outputs == 1)
    encoder = plain_encoder(columns)

    def original(frame: pd.DataFrame) -> FloatMatrix:
        booster = lightgbm.Booster(model_str=scorer.text)
        scores = np.asarray(booster.predict(_with_categories(frame, columns))).reshape(len(frame), -1)
        return np.hstack([1.0 - scores, scores]) if scorer.binary_probability else scores

    conversions = [Conversion(encoder, scorer, FLOAT64_TOLERANCE)]
    reference = f"LightGBM {lightgbm.__version__}"
    return ImportedModel("LightGBM", encoder, conversions, target_of(target, known_labels, class_names), original, reference)


def _with_categories(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The frame with pandas categoricals, as in training."""
    texts = {c.name: pd.Categorical(frame[c.name], categories=list(c.categories)) for c in columns if c.is_text}
    return frame.assign(**texts)


def _categories(text: str) -> list[list[Any]]:
    """The pandas categories used in training, one list per category column."""
    line = re.search(r"^pandas_categorical:(.*)$", text, re.MULTILINE)
    categories: list[list[Any]] | None = json.loads(line[1]) if line else None
    return categories or []


def _columns(names: Sequence[str], ranges: Sequence[str], categories: list[list[Any]]) -> list[Column]:
    """Parse the ranges: `[low:high]` is a number, `none` a constant number, and a list of codes a category."""
    remaining, columns = list(categories), []
    for name, value_range in zip(names, ranges, strict=True):
        if value_range.startswith("["):
            low, high = (float(end) for end in value_range.strip("[]").split(":"))
            columns.append(Column(name, "number", low=low, high=high))
        elif value_range == "none" or not remaining:
            columns.append(Column(name, "number"))
        else:
            columns.append(Column(name, "category", categories=tuple(map(str, remaining.pop(0)))))
    if any(not all(isinstance(category, str) for category in column) for column in categories):
        raise ImportRefused("the model has categories that are numbers: convert them to text and train again")
    return columns

"""LightGBM's text files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from podium.data.columns import Column
from podium.foreign.model import DOUBLE, Foreign, plain_encoder, target_of
from podium.foreign.refusal import Refusal
from podium.model.encode import Matrix
from podium.model.scorers import Trees

CLASSES = ("binary", "multiclass", "multiclassova", "softmax", "cross_entropy")


def read_lightgbm(data: bytes, target: str, classes: tuple[str, ...]) -> Foreign:
    """A model as `Booster.save_model` writes it. Raises Refusal."""
    return booster_model(data.decode(errors="replace"), target, classes, None)


def booster_model(text: str, target: str, classes: tuple[str, ...], labels: Sequence[object] | None) -> Foreign:
    """The text form of a booster; `labels` are the classes that a wrapper knows. Raises Refusal."""
    head = dict(line.split("=", 1) for line in text.partition("\n\n")[0].splitlines() if "=" in line)
    check_trees(text)
    objective = head.get("objective", "").partition(" ")[0]
    names, outputs = head["feature_names"].split(" "), int(head["num_class"])
    columns = _columns(names, head["feature_infos"].split(" "), _categories(text))
    of_classes = objective in CLASSES
    known = (labels if labels is not None else range(max(2, outputs))) if of_classes else None
    if not of_classes and outputs > 1:
        raise Refusal(f"the objective {objective or 'of this file'} has {outputs} outputs; one number or classes are served")
    scorer = Trees(text, len(columns), outputs, chance=of_classes and outputs == 1)
    encoder = plain_encoder(columns)

    def original(frame: pd.DataFrame) -> Matrix:
        found = np.asarray(scorer.booster.predict(_as_trained(frame, columns))).reshape(len(frame), -1)
        return np.hstack([1.0 - found, found]) if scorer.chance else found

    return Foreign("LightGBM", encoder, [(encoder, scorer, DOUBLE)], target_of(target, known, classes), original)


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
        raise Refusal("a category of this model is a number: train with its categories as text")
    return columns


def checked(trees: Trees) -> Trees:
    """The trees, if every one ends. Raises Refusal."""
    check_trees(trees.text)
    return trees


def check_trees(text: str) -> None:
    """Every tree must end: each branch leads to a later node or to a leaf that is there. Raises Refusal."""
    try:
        features = int(re.search(r"^max_feature_idx=(\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]
        body, end, _ = text.partition("\nend of trees")
        blocks = re.split(r"^Tree=\d+$", body, flags=re.MULTILINE)[1:]
        if not end or not blocks:
            raise ValueError
        for block in blocks:
            _check_tree(dict(line.split("=", 1) for line in block.splitlines() if "=" in line), features)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise Refusal("the file is no whole LightGBM model") from error


def _check_tree(tree: dict[str, str], features: int) -> None:
    leaves = int(tree["num_leaves"])
    if len(tree["leaf_value"].split()) != leaves:
        raise ValueError
    if leaves == 1:
        return
    for side in ("left_child", "right_child"):
        ends = [int(end) for end in tree[side].split()]
        if len(ends) != leaves - 1 or any(
            not (-leaves <= end < 0 or place < end < leaves - 1) for place, end in enumerate(ends)
        ):
            raise ValueError
    if any(not 0 <= int(feature) <= features for feature in tree["split_feature"].split()):
        raise ValueError

"""The common form of every imported model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.models.encoder import Encoder
from podium.models.features import Feature, Ordinal, Passthrough, PassthroughText
from podium.models.scorers import Scorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Label, Target

FLOAT64_TOLERANCE, FLOAT32_TOLERANCE = 1e-9, 1e-5
"""Allowed absolute and relative difference from the original's scores."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """An encoder and a scorer that should reproduce the original's scores within `tolerance`."""

    encoder: Encoder
    scorer: Scorer
    tolerance: float


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model file as an encoder and candidate conversions, with the original model to compare them with.

    `conversions` are ordered by preference. `original` computes the scores of a typed frame with the library that wrote the
    file, or with its published formulas, as `reference` says. `embedded_training_rows` counts training rows stored in the file;
    they are not kept. `is_named` is false if neither the file nor a sample names the columns. `sums_to_one` is false for
    classes whose probabilities are independent.
    """

    kind: str
    encoder: Encoder
    conversions: Iterable[Conversion]
    target: Target
    original: Callable[[pd.DataFrame], FloatMatrix]
    reference: str
    embedded_training_rows: int = 0
    is_named: bool = True
    sums_to_one: bool = True
    warnings: tuple[str, ...] = ()


def plain_encoder(columns: Sequence[Column]) -> Encoder:
    """Return an encoder with one feature per column: the number, the index of the category, or the text."""
    return Encoder(tuple(columns), tuple(_plain_feature(index, column) for index, column in enumerate(columns)))


def _plain_feature(index: int, column: Column) -> Feature:
    if column.kind == "text":
        return PassthroughText(index, column.name)
    if column.kind == "category":
        return Ordinal(index, column.name, column.categories, float(len(column.categories)))
    return Passthrough(index, column.name)


def target_of(name: str, labels: Sequence[object] | None, class_names: tuple[str, ...] = ()) -> Target:
    """Return the target with the model's own labels, or with `class_names` in the same order. Raises ImportRefused."""
    if labels is None:
        if class_names:
            raise ImportRefused("the model predicts a number, so it has no classes: remove --classes")
        return Target(name, "regression")
    if class_names and len(class_names) != len(labels):
        raise ImportRefused(f"--classes names {len(class_names)} classes, but the model has {len(labels)}")
    classes: tuple[Label, ...] = class_names or tuple(_label(label) for label in labels)
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ImportRefused("a classifier needs at least two different classes: name them with --classes")
    return Target(name, "binary" if len(classes) == 2 else "multiclass", classes)


def _label(label: object) -> Label:
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return label if isinstance(label, int) and not isinstance(label, bool) else str(label)


def check_column_count(count: int, names: Sequence[str]) -> None:
    """Check that the sample has as many columns as the model. Raises ImportRefused."""
    if len(names) != count:
        columns = ", ".join(names[:12])
        raise ImportRefused(
            f"the model takes {count} columns, but the sample has {len(names)} ({columns}): remove the others, and name the "
            "target with --target"
        )


def numbered_names(count: int) -> list[str]:
    """Return placeholders for inputs without names, which are replaced by the columns of a sample: x1, x2, …."""
    return [f"x{number}" for number in range(1, count + 1)]

"""What every reader of a foreign file makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.models.encoder import Encoder
from podium.models.features import Feature, Ordinal, Passthrough
from podium.models.scorers import Scorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Label, Target

DOUBLE, SINGLE = 1e-9, 1e-5
"""How far the scores may lie from the original's, absolute and relative, in 64 and in 32 bits."""


Translation = tuple[Encoder, Scorer, float]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A foreign model as an encoder and a scorer, and the original to compare with.

    `translations` are encoders with scorers that should be equal, each with the allowed difference, the best first;
    `original` takes a typed frame to its scores, by the library that made the file or by its published formulas;
    `embedded_training_rows` counts training rows that are stored in the file; they are left out.
    """

    kind: str
    encoder: Encoder
    translations: Iterable[Translation]
    target: Target
    original: Callable[[pd.DataFrame], FloatMatrix]
    embedded_training_rows: int = 0


def plain_encoder(columns: Sequence[Column]) -> Encoder:
    """A feature a column: the number as it came, or the category's place among the known ones."""
    features: list[Feature] = [
        Ordinal(place, column.name, column.categories, float(len(column.categories)))
        if column.is_text
        else Passthrough(place, column.name)
        for place, column in enumerate(columns)
    ]
    return Encoder(tuple(columns), tuple(features))


def target_of(name: str, labels: Sequence[object] | None, given: tuple[str, ...] = ()) -> Target:
    """Classes from a model's own labels, or those that were given for them in their order. Raises Refusal."""
    if labels is None:
        if given:
            raise ImportRefused("classes were given, but the model predicts a number")
        return Target(name, "regression")
    if given and len(given) != len(labels):
        raise ImportRefused(f"{len(given)} classes were given, the model has {len(labels)}")
    classes: tuple[Label, ...] = given or tuple(_label(label) for label in labels)
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ImportRefused("a model of classes needs two different ones at least")
    return Target(name, "binary" if len(classes) == 2 else "multiclass", classes)


def _label(label: object) -> Label:
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return label if isinstance(label, int) and not isinstance(label, bool) else str(label)


def check_count(count: int, names: Sequence[str]) -> None:
    """Raises Refusal when a sample has another number of columns than the model."""
    if len(names) != count:
        known = ", ".join(names[:12])
        raise ImportRefused(
            f"the model takes {count} columns, the sample has {len(names)} ({known}): name the target with --target"
        )


def numbered(count: int) -> list[str]:
    """Names for inputs that have none."""
    return [f"x{place}" for place in range(1, count + 1)]

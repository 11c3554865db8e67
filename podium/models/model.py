"""The object that every model file holds: raw typed columns in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from podium.models.encoder import Encoder
from podium.models.scorers import Scorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Label, Signature, Target, Value

OneRecord = Callable[[Sequence[Value]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Model:
    """Encoding, selection and estimator, fitted together, with two ways in that mean the same."""

    family: str
    signature: Signature
    encoder: Encoder
    scorer: Scorer

    def scores(self, frame: pd.DataFrame) -> FloatMatrix:
        """A typed frame (n rows) to (n, classes) probabilities, or (n, 1) values."""
        return self.scorer.scores(self.encoder.transform(frame))

    def compiled(self) -> OneRecord:
        """One tuple of typed cells to its scores without a DataFrame; for one thread at a time."""
        vector, score = self.scorer.compiled()
        write = self.encoder.into(vector)

        def scores(values: Sequence[Value]) -> Sequence[float]:
            write(values)
            return score()

        return scores


def predicted_label(scores: Sequence[float], target: Target) -> Label | float:
    """The class with the highest score, the first of equals, or the value."""
    if not target.classes:
        return scores[0]
    return target.classes[max(range(len(scores)), key=scores.__getitem__)]

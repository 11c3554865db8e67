"""The content of a model file: a model that maps typed columns to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from podium.models.encoder import Encoder
from podium.models.scorers import EnsembleScorer, Explainer, LightGBMScorer, LinearScorer, NotExplainable, Scorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Label, Signature, Target, Value
from podium.tables.labeled_rows import LabeledRows

RowScorer = Callable[[Sequence[Value]], Sequence[float]]
"""Maps the typed cells of one row to its scores."""


@dataclass(frozen=True, slots=True)
class Model:
    """A signature with the encoder and the scorer that were fitted for it."""

    family: str
    signature: Signature
    encoder: Encoder
    scorer: Scorer

    def scores(self, frame: pd.DataFrame) -> FloatMatrix:
        """Return (n, classes) probabilities or (n, 1) values for a typed frame of n rows."""
        return self.scorer.scores(self.encoder.transform(frame))

    def out_of_sample_scores(self, rows: LabeledRows) -> FloatMatrix:
        """Return the scores of rows that the model was not fitted on, or their out-of-fold scores if it was."""
        return rows.scores[self.family] if rows.scores else self.scores(rows.inputs)

    def compiled(self) -> RowScorer:
        """Return a one-row scorer that needs no DataFrame and gives results identical to `scores`. Not thread-safe."""
        vector, score = self.scorer.compiled()
        write = self.encoder.compile_row_writer(vector)

        def scores(values: Sequence[Value]) -> Sequence[float]:
            write(values)
            return score()

        return scores

    def explainer(self) -> Explainer:
        """Return an explainer that gives a contribution for each input column. Raises NotExplainable."""
        if not isinstance(self.scorer, LinearScorer | LightGBMScorer | EnsembleScorer):
            raise NotExplainable("only linear models and trees are explained")
        return self.scorer.explainer([feature.column for feature in self.encoder.features], len(self.encoder.columns))


def predicted_label(scores: Sequence[float], target: Target) -> Label | float:
    """Return the predicted class or value."""
    if not target.classes:
        return scores[0]
    return target.classes[target.predicted_index(scores)]

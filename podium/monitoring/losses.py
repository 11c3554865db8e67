"""What a prediction costs: its loss with a label, and the loss to be expected without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor
from sklearn.isotonic import IsotonicRegression

from podium.monitoring.drift import TREES, encoded
from podium.monitoring.harm import STANDARD_ERRORS
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

CLIP_QUANTILE = 0.99
"""Absolute errors are in units of this quantile of the reference's, and at most 1, so that one row cannot raise an alarm."""


def predicted_codes(target: Target, scores: FloatMatrix) -> np.ndarray:
    return np.array([target.predicted_index(row) for row in scores.tolist()], dtype=int)


def errors(target: Target, scores: FloatMatrix, labels: FloatVector) -> FloatVector:
    """Return 1 for each wrong class and 0 for each right one, or absolute errors. `labels` are class codes or numbers."""
    if target.classes:
        return (predicted_codes(target, scores) != labels).astype(float)
    return np.abs(scores[:, 0] - labels)


@dataclass(frozen=True, slots=True)
class Reference:
    """The rows that a version was evaluated on, with the scores of one of its models for rows that it was not fitted on."""

    target: Target
    inputs: pd.DataFrame
    scores: FloatMatrix
    labels: FloatVector

    @property
    def errors(self) -> FloatVector:
        return errors(self.target, self.scores, self.labels)

    @property
    def unit(self) -> float:
        """The error that is a loss of 1."""
        return 1.0 if self.target.classes else float(np.quantile(self.errors, CLIP_QUANTILE)) or 1.0

    def losses(self, values: FloatVector) -> FloatVector:
        """Return errors as losses between 0 and 1."""
        return np.minimum(1.0, values / self.unit)


def expected_errors(reference: Reference, weights: FloatVector, inputs: pd.DataFrame, scores: FloatMatrix) -> FloatVector:
    """Estimate the error of each prediction without its label.

    `weights` give the reference rows the distribution of the current ones. For classes, the confidence of the predictions is
    calibrated on the weighted rows (as PAPE; Białek et al., 2024). For numbers, a model of the absolute errors is fitted to
    them (direct loss estimation). Both hold as long as the target still depends on the inputs as it did.
    """
    if reference.target.classes:
        calibration = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        calibration.fit(_confidence(reference.target, reference.scores), 1 - reference.errors, sample_weight=weights)
        return 1 - calibration.predict(_confidence(reference.target, scores))
    rows = encoded(pd.concat([reference.inputs, inputs], ignore_index=True))
    rows = np.column_stack([rows, np.concatenate([reference.scores[:, 0], scores[:, 0]])])
    model = LGBMRegressor(n_estimators=80, learning_rate=0.08, num_leaves=15, random_state=0, **TREES)
    model.fit(rows[: len(weights)], reference.errors, sample_weight=weights)
    return np.maximum(0, model.predict(rows[len(weights) :]))


def cautious_losses(reference: Reference, values: FloatVector, comparable_rows: float) -> FloatVector:
    """Return estimated errors as losses, lowered by what their weights add to the uncertainty of the evaluation.

    Of the reference, only `comparable_rows` count. The rows are the same every day, so that their noise does not average out.
    """
    losses = reference.losses(reference.errors)
    margin = STANDARD_ERRORS * float(losses.std()) * (comparable_rows**-0.5 - len(losses) ** -0.5)
    return np.maximum(0.0, reference.losses(values) - max(0.0, margin))


def _confidence(target: Target, scores: FloatMatrix) -> FloatVector:
    """Return the probability of each predicted class."""
    return scores[np.arange(len(scores)), predicted_codes(target, scores)]

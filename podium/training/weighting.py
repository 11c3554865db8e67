"""Weighted means of models, chosen greedily on out-of-fold predictions (Caruana et al., 2004)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.utils.extmath import softmax

from podium.models.metrics import CLASSIFICATION
from podium.schema.arrays import BoolMask, FloatMatrix, FloatVector, IndexArray
from podium.schema.columns import Target

ROUNDS, MAX_ROWS, SMALLEST_GAIN, SMALLEST_PROBABILITY = 25, 10_000, 1e-5, 1e-15
CALIBRATION, SMALLEST_CALIBRATION = (1 / 3, 3.0), 1e-3
"""Range of the factor that calibrates probabilities, and the fraction of the log loss that it must gain."""


def raw_scores(scores: FloatMatrix, target: Target) -> FloatMatrix:
    """Return the scores before the link function: log odds of two classes, log probabilities of more, or the values."""
    if not target.classes:
        return scores
    logarithms = np.log(np.clip(scores, SMALLEST_PROBABILITY, 1.0))
    return logarithms[:, 1:] - logarithms[:, :1] if target.task == "binary" else logarithms


def link_of(target: Target) -> Callable[[FloatMatrix], FloatMatrix]:
    """Return the inverse of `raw_scores`."""
    if not target.classes:
        return lambda sums: sums
    if target.task == "binary":
        return lambda sums: np.hstack([1.0 / (1.0 + np.exp(sums)), 1.0 / (1.0 + np.exp(-sums))])
    return lambda sums: np.asarray(softmax(sums))


def greedy_weights(
    parts: Sequence[FloatMatrix], truth: FloatVector, score: Callable[[FloatVector, FloatMatrix], float]
) -> list[float]:
    """Return weights that add up to 1, and increase `score` of the weighted mean of the parts.

    In each round, the part that helps most is added, possibly again, as long as it helps noticeably. Of a large table, some
    rows decide.
    """
    rows = _deciding_rows(len(truth))
    truth, parts = truth[rows], [part[rows] for part in parts]
    counts, total = np.zeros(len(parts), dtype=int), np.zeros_like(parts[0])
    best = -np.inf
    for number in range(1, ROUNDS + 1):
        values = np.nan_to_num([score(truth, (total + part) / number) for part in parts], nan=-np.inf)
        chosen = int(np.argmax(values))
        if number > 1 and not values[chosen] > best + SMALLEST_GAIN * abs(best):
            break
        best, total = values[chosen], total + parts[chosen]
        counts[chosen] += 1
    return (counts / counts.sum()).tolist()


def _deciding_rows(count: int) -> IndexArray | slice:
    """Return all rows of a table, or some if it has many."""
    return np.random.default_rng(0).choice(count, MAX_ROWS, replace=False) if count > MAX_ROWS else slice(None)


def calibration(sums: FloatMatrix, truth: FloatVector, target: Target) -> float:
    """Return the factor of the sums before the link at which the log loss is lowest, or 1 if that is hardly lower.

    Such a factor corrects probabilities that are too sure or too unsure (temperature scaling, Guo et al., 2017).
    """
    if not target.classes:
        return 1.0
    link, log_loss, rows = link_of(target), CLASSIFICATION["log_loss"].function, _deciding_rows(len(truth))
    truth, sums = truth[rows], sums[rows]

    def loss(logarithm: float) -> float:
        return log_loss(truth, link(sums * np.exp(logarithm)))

    found = minimize_scalar(loss, bounds=np.log(CALIBRATION), method="bounded")
    return float(np.exp(found.x)) if found.fun < (1 - SMALLEST_CALIBRATION) * loss(0.0) else 1.0


def best_weights(scores: Sequence[float]) -> list[float]:
    """Return the weight 1 for the best score, and 0 for the others."""
    weights = [0.0] * len(scores)
    weights[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))] = 1.0
    return weights


def random_groups(rows: int, seed: int) -> IndexArray:
    """Return one of five groups for each row."""
    return np.random.default_rng(seed).integers(0, 5, rows)


def cross_fitted_mean(
    parts: Sequence[FloatMatrix], groups: IndexArray, weights_on: Callable[[BoolMask], Sequence[float]]
) -> FloatMatrix:
    """Return the weighted mean of the parts; each group of rows has the weights that are best on the other groups.

    The mean is therefore as good on these rows as on new ones, which the best weights of all rows would not be.
    """
    mean = np.empty_like(parts[0])
    for group in np.unique(groups):
        inside = groups == group
        weights = weights_on(~inside)
        mean[inside] = sum(weight * part[inside] for weight, part in zip(weights, parts, strict=True))
    return mean

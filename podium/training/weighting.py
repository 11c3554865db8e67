"""Weighted means of models, chosen greedily on out-of-fold predictions (Caruana et al., 2004)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.utils.extmath import softmax

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

ROUNDS, MAX_ROWS, SMALLEST_GAIN, SMALLEST_PROBABILITY = 25, 20_000, 1e-5, 1e-15


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
    if len(truth) > MAX_ROWS:
        rows = np.random.default_rng(0).choice(len(truth), MAX_ROWS, replace=False)
        truth, parts = truth[rows], [part[rows] for part in parts]
    counts, total = np.zeros(len(parts), dtype=int), np.zeros_like(parts[0])
    best = -np.inf
    for number in range(1, ROUNDS + 1):
        values = [score(truth, (total + part) / number) for part in parts]
        chosen = int(np.nanargmax(values))
        if number > 1 and not values[chosen] > best + SMALLEST_GAIN * abs(best):
            break
        best, total = values[chosen], total + parts[chosen]
        counts[chosen] += 1
    return (counts / counts.sum()).tolist()

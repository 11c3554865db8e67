"""Fitted estimators as portable scorers: a matrix of features to a matrix of scores, or one vector to its scores.

Scores are one probability a class in the order of the target's classes, or the one predicted value. Both ways in give the
same bits: sums run in one stated order, and trees run in one engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from podium.models.lightgbm_library import Booster, SingleRow
from podium.schema.arrays import FloatMatrix

CompiledScorer = tuple[MutableSequence[float], Callable[[], Sequence[float]]]
"""A vector to write the features into, and a function that scores what lies there; for one thread."""


class Scorer(Protocol):
    def scores(self, features: FloatMatrix) -> FloatMatrix:
        """(n, features) to (n, scores)."""

    def compiled(self) -> CompiledScorer: ...


@dataclass(frozen=True, slots=True)
class LinearScorer:
    """Weighted sums with an identity, logistic or softmax link; `weights` is (outputs, features)."""

    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    link: str

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        sums = np.empty((len(features), len(self.intercepts)))
        for output, (weights, intercept) in enumerate(zip(self.weights, self.intercepts, strict=True)):
            total = np.full(len(features), intercept)
            for place, weight in enumerate(weights):  # column by column: the order in which one record is summed
                total += features[:, place] * weight
            sums[:, output] = total
        if self.link == "identity":
            return sums
        return np.array([LINKS[self.link](row) for row in sums.tolist()]).reshape(len(features), -1)

    def compiled(self) -> CompiledScorer:
        vector = [0.0] * len(self.weights[0])
        rows, link = list(zip(self.weights, self.intercepts, strict=True)), LINKS[self.link]

        def score() -> Sequence[float]:
            sums = []
            for weights, total in rows:
                for number, weight in zip(vector, weights, strict=True):
                    total += number * weight
                sums.append(total)
            return link(sums)

        return vector, score


Link = Callable[[Sequence[float]], Sequence[float]]


def _logistic(sums: Sequence[float]) -> Sequence[float]:
    chance = 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, sums[0]))))
    return 1.0 - chance, chance


def _softmax(sums: Sequence[float]) -> Sequence[float]:
    top = max(sums)
    parts = [math.exp(number - top) for number in sums]
    whole = sum(parts)
    return [part / whole for part in parts]


def _binary_probability(inverse: Callable[[float], float]) -> Link:
    """Of a binomial model: the probabilities of both classes."""
    return lambda sums: (1.0 - (chance := inverse(sums[0])), chance)


def _exp(number: float) -> float:
    return math.exp(max(-700.0, min(700.0, number)))


LINKS: dict[str, Link] = {
    "identity": lambda sums: sums,
    "logistic": _logistic,
    "softmax": _softmax,
    "probit": _binary_probability(lambda number: 0.5 * math.erfc(-number / math.sqrt(2.0))),
    "cloglog": _binary_probability(lambda number: -math.expm1(-_exp(number))),
    "log": lambda sums: (_exp(sums[0]),),
    "reciprocal": lambda sums: (1.0 / sums[0] if sums[0] else math.inf,),
}
"""Names of links to their inverses; McCullagh and Nelder, Generalized Linear Models, 2.2."""


@dataclass(slots=True)
class LightGBMScorer:
    """Boosted or averaged trees in LightGBM's text form, run by LightGBM.

    `float32` rounds the features to 32 bits first, as scikit-learn's trees do; `chance` says that the one output is the
    probability of the second class.
    """

    text: str
    features: int
    outputs: int
    float32: bool = False
    chance: bool = False
    _booster: Booster | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.text, self.features, self.outputs, self.float32, self.chance

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.text, self.features, self.outputs, self.float32, self.chance = state
        self._booster = None

    @property
    def booster(self) -> Booster:
        if self._booster is None:
            self._booster = Booster(self.text)
        return self._booster

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        rows = np.ascontiguousarray(features, dtype=np.float32 if self.float32 else np.float64)
        output = self.booster.predict(rows)
        return np.hstack([1.0 - output, output]) if self.chance else output

    def compiled(self) -> CompiledScorer:
        call = SingleRow(self.booster, self.features, self.outputs, self.float32)
        if self.chance:
            return call.vector, lambda: (1.0 - (chance := call()[0]), chance)
        return call.vector, call


@dataclass(slots=True)
class AffineScorer:
    """Scores in a row's own unit: the inner score times the last feature but one, plus the last."""

    inner: Any

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        own = np.ascontiguousarray(features[:, :-2])
        return self.inner.scores(own) * features[:, -2:-1] + features[:, -1:]

    def compiled(self) -> CompiledScorer:
        inner, score = self.inner.compiled()
        width = len(inner)
        vector = [0.0] * (width + 2)

        def rescaled() -> Sequence[float]:
            inner[:] = vector[:width]
            unit, offset = vector[width], vector[width + 1]
            return [one * unit + offset for one in score()]

        return vector, rescaled

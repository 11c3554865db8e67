"""Fitted estimators as portable scorers: a matrix of features to a matrix of scores, or one vector to its scores.

Scores are one probability a class in the order of the target's classes, or the one predicted value. Both ways in give the
same bits: sums run in one stated order, and trees run in one engine.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightgbm
import numpy as np
from lightgbm.basic import _LIB, _safe_call  # type: ignore[attr-defined]

from podium.model.encode import Matrix

_QUICK = ctypes.PyDLL(_LIB._name)
"""The same library for calls of microseconds, which are over before another thread could use the lock they would free."""

Compiled = tuple[MutableSequence[float], Callable[[], Sequence[float]]]
"""A vector to write the features into, and a function that scores what lies there; for one thread."""


class Scorer(Protocol):
    def scores(self, features: Matrix) -> Matrix:
        """(n, features) to (n, scores)."""

    def compiled(self) -> Compiled: ...


@dataclass(frozen=True, slots=True)
class Linear:
    """Weighted sums with an identity, logistic or softmax link; `weights` is (outputs, features)."""

    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    link: str

    def scores(self, features: Matrix) -> Matrix:
        sums = np.empty((len(features), len(self.intercepts)))
        for output, (weights, intercept) in enumerate(zip(self.weights, self.intercepts, strict=True)):
            total = np.full(len(features), intercept)
            for place, weight in enumerate(weights):  # column by column: the order in which one record is summed
                total += features[:, place] * weight
            sums[:, output] = total
        if self.link == "identity":
            return sums
        return np.array([LINKS[self.link](row) for row in sums.tolist()]).reshape(len(features), -1)

    def compiled(self) -> Compiled:
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


def _chance(inverse: Callable[[float], float]) -> Link:
    """Of a binomial model: the probabilities of both classes."""
    return lambda sums: (1.0 - (chance := inverse(sums[0])), chance)


def _exp(number: float) -> float:
    return math.exp(max(-700.0, min(700.0, number)))


LINKS: dict[str, Link] = {
    "identity": lambda sums: sums,
    "logistic": _logistic,
    "softmax": _softmax,
    "probit": _chance(lambda number: 0.5 * math.erfc(-number / math.sqrt(2.0))),
    "cloglog": _chance(lambda number: -math.expm1(-_exp(number))),
    "log": lambda sums: (_exp(sums[0]),),
    "reciprocal": lambda sums: (1.0 / sums[0] if sums[0] else math.inf,),
}
"""Names of links to their inverses; McCullagh and Nelder, Generalized Linear Models, 2.2."""


@dataclass(slots=True)
class Trees:
    """Boosted or averaged trees in LightGBM's text form, run by LightGBM.

    `narrow` rounds the features to 32 bits first, as scikit-learn's trees do; `chance` says that the one output is the
    probability of the second class.
    """

    text: str
    features: int
    outputs: int
    narrow: bool = False
    chance: bool = False
    _booster: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.text, self.features, self.outputs, self.narrow, self.chance

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.text, self.features, self.outputs, self.narrow, self.chance = state
        self._booster = None

    @property
    def booster(self) -> lightgbm.Booster:
        if self._booster is None:
            self._booster = lightgbm.Booster(model_str=self.text)
        return self._booster

    def scores(self, features: Matrix) -> Matrix:
        rows = np.ascontiguousarray(features, dtype=np.float32 if self.narrow else np.float64)
        output = np.asarray(self.booster.predict(rows, num_threads=1), dtype=float).reshape(len(features), -1)
        return np.hstack([1.0 - output, output]) if self.chance else output

    def compiled(self) -> Compiled:
        call = _SingleRow(self.booster, self.features, self.outputs, self.narrow)
        if self.chance:
            return call.vector, lambda: (1.0 - (chance := call()[0]), chance)
        return call.vector, call


@dataclass(slots=True)
class Rescaled:
    """Scores in a row's own unit: the inner score times the last feature but one, plus the last."""

    inner: Any

    def scores(self, features: Matrix) -> Matrix:
        own = np.ascontiguousarray(features[:, :-2])
        return self.inner.scores(own) * features[:, -2:-1] + features[:, -1:]

    def compiled(self) -> Compiled:
        inner, score = self.inner.compiled()
        width = len(inner)
        vector = [0.0] * (width + 2)

        def rescaled() -> Sequence[float]:
            inner[:] = vector[:width]
            unit, offset = vector[width], vector[width + 1]
            return [one * unit + offset for one in score()]

        return vector, rescaled


class _SingleRow:
    """LightGBM's call for one row, its buffers and its prepared configuration."""

    def __init__(self, booster: lightgbm.Booster, features: int, outputs: int, narrow: bool) -> None:
        self.vector: Any = ((ctypes.c_float if narrow else ctypes.c_double) * features)()
        self._output, self._length, self._config = (ctypes.c_double * outputs)(), ctypes.c_int64(), ctypes.c_void_p()
        self._booster = booster  # it must live as long as its configuration
        normal, first, every = 0, 0, -1
        how = (normal, first, every, 0 if narrow else 1, ctypes.c_int32(features), b"num_threads=1")
        _safe_call(_LIB.LGBM_BoosterPredictForMatSingleRowFastInit(booster._handle, *how, ctypes.byref(self._config)))
        self._call = _QUICK.LGBM_BoosterPredictForMatSingleRowFast
        self._call.argtypes = [ctypes.c_void_p] * 4
        places = (ctypes.addressof(buffer) for buffer in (self.vector, self._length, self._output))
        self._arguments = (self._config, *places)

    def __call__(self) -> Sequence[float]:
        if self._call(*self._arguments):
            raise RuntimeError("LightGBM could not score a record")
        scores: Sequence[float] = self._output[:]
        return scores

    def __del__(self) -> None:
        _LIB.LGBM_FastConfigFree(self._config)

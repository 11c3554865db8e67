"""Fitted estimators as portable scorers, for a feature matrix and for one feature vector.

Scores are one probability per class, in the order of the target's classes, or one predicted value. Both paths give
identical results: sums have a fixed order, and trees run in the same library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from podium.engine.contributions import Contributions
from podium.engine.forest import Forest, Trees, load_trees
from podium.engine.trees import UnsupportedTrees
from podium.models.tree_checks import check_trees
from podium.schema.arrays import FloatArray, FloatMatrix, FloatVector

CompiledScorer = tuple[MutableSequence[float], Callable[[], Sequence[float]]]
"""A vector for the features of one row, and a function that scores it. Not thread-safe."""


class NotExplainable(Exception):
    """The contributions of the features to a score cannot be computed exactly."""


class Explainer(Protocol):
    """Splits the sum of a model, from which its link function computes the score, into contributions of groups of features."""

    link: str
    base: FloatVector
    """The (outputs,) sums before any contribution."""

    def of(self, features: FloatMatrix) -> FloatArray:
        """Return the (n, outputs, groups) contributions for an (n, features) matrix."""


class Scorer(Protocol):
    def scores(self, features: FloatMatrix) -> FloatMatrix:
        """Return the (n, outputs) scores of an (n, features) matrix."""

    def compiled(self) -> CompiledScorer:
        """Return a scorer for a single row."""

    def check(self, features: int) -> int | None:
        """Check the fields for one or more features; return the number of outputs if it is known. Raises ValueError."""


@dataclass(frozen=True, slots=True)
class LinearScorer:
    """Weighted sums, followed by an inverse link from `LINKS`; `weights` has the shape (outputs, features)."""

    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    link: str

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        sums = np.empty((len(features), len(self.intercepts)))
        for output, (weights, intercept) in enumerate(zip(self.weights, self.intercepts, strict=True)):
            total = np.full(len(features), intercept)
            for index, weight in enumerate(weights):  # the order of summation of `compiled`
                total += features[:, index] * weight
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

    def explainer(self, groups: Sequence[int], count: int) -> Explainer:
        """Return an explainer for groups of features: `groups` holds the group of each, less than `count`."""
        return LinearExplainer(self.link, np.array(self.intercepts), np.array(self.weights), np.eye(count)[list(groups)])

    def check(self, features: int) -> int:
        if self.link not in LINKS:
            raise ValueError("the linear model has an unknown link")
        outputs = len(self.intercepts)
        if not outputs or len(self.weights) != outputs or any(len(weights) != features for weights in self.weights):
            raise ValueError("the linear model has the wrong number of weights")
        if outputs > 1 and self.link not in ("identity", "softmax"):
            raise ValueError(f"the link {self.link} allows only one output")
        return 2 if self.link in ("logistic", "probit", "cloglog") else outputs


@dataclass(slots=True)
class LinearExplainer:
    """Contributions are weight × feature; `in_group` has the shape (features, groups)."""

    link: str
    base: FloatVector
    weights: FloatMatrix
    in_group: FloatMatrix

    def of(self, features: FloatMatrix) -> FloatArray:
        return np.stack([(features * weights) @ self.in_group for weights in self.weights], axis=1)


Link = Callable[[Sequence[float]], Sequence[float]]


def _logistic(sums: Sequence[float]) -> Sequence[float]:
    probability = 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, sums[0]))))
    return 1.0 - probability, probability


def _softmax(sums: Sequence[float]) -> Sequence[float]:
    largest = max(sums)
    exponentials = [math.exp(number - largest) for number in sums]
    total = sum(exponentials)
    return [number / total for number in exponentials]


def _binary_probability(inverse: Callable[[float], float]) -> Link:
    """Return a function that computes the probabilities of both classes with the inverse link of a binomial model."""
    return lambda sums: (1.0 - (probability := inverse(sums[0])), probability)


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
"""Inverse link functions by link name; see McCullagh and Nelder, Generalized Linear Models, section 2.2."""


@dataclass(slots=True)
class LightGBMScorer:
    """Boosted or averaged trees in LightGBM's text format, scored by Podium's kernels, or by LightGBM where there are none.

    With `float32`, features are rounded to 32 bits first, as scikit-learn's trees do. With `binary_probability`, the single
    output is the probability of the second class.
    """

    text: str
    features: int
    outputs: int
    float32: bool = False
    binary_probability: bool = False
    _trees: Trees | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.text, self.features, self.outputs, self.float32, self.binary_probability

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.text, self.features, self.outputs, self.float32, self.binary_probability = state
        self._trees = None

    @property
    def trees(self) -> Trees:
        if self._trees is None:
            trees = load_trees(self.text, self.float32)
            if (trees.features, trees.outputs) != (self.features, self.outputs):
                raise ValueError(f"the trees have {trees.features} features, expected {self.features}")
            self._trees = trees
        return self._trees

    def explainer(self, groups: Sequence[int], count: int) -> Explainer:
        """Return an explainer as `LinearScorer` does. Raises NotExplainable."""
        if not isinstance(self.trees, Forest):
            raise NotExplainable("there are no kernels for these trees on this processor")
        try:
            return Contributions(Forest(self.text, self.float32, share=False), self.text, groups, count)
        except UnsupportedTrees as error:
            raise NotExplainable(f"the trees have {error}") from None

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        output = self.trees.scores(features)
        return np.hstack([1.0 - output, output]) if self.binary_probability else output

    def compiled(self) -> CompiledScorer:
        score = self.trees.row_scorer()
        if self.binary_probability:
            return score.vector, lambda: (1.0 - (probability := score()[0]), probability)
        return score.vector, score

    def check(self, features: int) -> int:
        if self.features != features:
            raise ValueError(f"the scorer does not take the {features} features that the encoder returns")
        if self.outputs < 1 or (self.binary_probability and self.outputs != 1):
            raise ValueError(f"the trees cannot have {self.outputs} outputs")
        check_trees(self.text, self.features, self.outputs)
        return 2 if self.binary_probability else self.outputs


@dataclass(slots=True)
class AffineScorer:
    """score × features[-2] + features[-1], where score is that of `inner` for the other features."""

    inner: Any

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        inner_features = np.ascontiguousarray(features[:, :-2])
        return self.inner.scores(inner_features) * features[:, -2:-1] + features[:, -1:]

    def compiled(self) -> CompiledScorer:
        inner, score = self.inner.compiled()
        width = len(inner)
        vector = [0.0] * (width + 2)

        def affine_scores() -> Sequence[float]:
            inner[:] = vector[:width]
            scale, offset = vector[width], vector[width + 1]
            return [number * scale + offset for number in score()]

        return vector, affine_scores

    def check(self, features: int) -> int | None:
        if features < 3:
            raise ValueError("the scorer has no features")
        return self.inner.check(features - 2)


def mean_of_linear(parts: Sequence[tuple[LinearScorer, float]]) -> LinearScorer:
    """Return the linear model whose sums before the link are the weighted sums of those of several."""
    weights = sum(weight * np.array(scorer.weights) for scorer, weight in parts)
    intercepts = sum(weight * np.array(scorer.intercepts) for scorer, weight in parts)
    return LinearScorer(
        tuple(map(tuple, np.asarray(weights).tolist())), tuple(np.asarray(intercepts).tolist()), parts[0][0].link
    )


@dataclass(slots=True)
class EnsembleScorer:
    """The weighted mean of the scores of several models with the same features; `weights` add up to 1."""

    members: tuple[Any, ...]
    weights: tuple[float, ...]

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        total = self.weights[0] * self.members[0].scores(features)
        for member, weight in zip(self.members[1:], self.weights[1:], strict=True):
            total = total + weight * member.scores(features)
        return np.asarray(total)

    def compiled(self) -> CompiledScorer:
        parts = [(*member.compiled(), weight) for member, weight in zip(self.members, self.weights, strict=True)]
        vector = [0.0] * len(parts[0][0])

        def ensemble_scores() -> Sequence[float]:
            total: list[float] = []
            for inputs, score, weight in parts:
                inputs[:] = vector
                weighted = [weight * number for number in score()]
                total = [a + b for a, b in zip(total, weighted, strict=True)] if total else weighted
            return total

        return vector, ensemble_scores

    def explainer(self, groups: Sequence[int], count: int) -> Explainer:
        """Return an explainer as `LinearScorer` does, if the members' sums are their scores. Raises NotExplainable."""
        if not all(isinstance(member, LinearScorer | LightGBMScorer) for member in self.members):
            raise NotExplainable("only linear models and trees are explained")
        parts = [member.explainer(groups, count) for member in self.members]
        if any(part.link != "identity" for part in parts):
            raise NotExplainable("its members are weighted after their link functions; ask for one of them with ?models=")
        return EnsembleExplainer("identity", np.average([part.base for part in parts], 0, self.weights), parts, self.weights)

    def check(self, features: int) -> int | None:
        if len(self.members) != len(self.weights) or not self.members:
            raise ValueError("the ensemble has no members, or not one weight for each")
        outputs = {member.check(features) for member in self.members}
        if len(outputs) != 1:
            raise ValueError("the members of the ensemble have different numbers of outputs")
        return outputs.pop()


@dataclass(slots=True)
class EnsembleExplainer:
    """The weighted mean of the contributions to several sums."""

    link: str
    base: FloatVector
    parts: Sequence[Explainer]
    weights: tuple[float, ...]

    def of(self, features: FloatMatrix) -> FloatArray:
        return np.asarray(np.average([part.of(features) for part in self.parts], 0, self.weights))

"""Explain predictions: how much each input contributed to the score."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from podium.inference.served_model import ServedModel
from podium.models.model import Model
from podium.models.scorers import Explainer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Label, Value

PREPARED_KEY = "explainer"
MAX_EXPLAINED = 1000
"""Maximum number of contributions per prediction."""
MAX_EXPLAINED_ROWS, ROWS_AT_A_TIME = 10_000, 256
MAX_SECONDS_ON_LOOP = 2e-3
SCALES = {"identity": "value", "logistic": "logit", "softmax": "logit", "exp": "log"}
"""The scale of contributions by link function; any other scale has the name of its link function."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`base`, the `strongest` contributions and `others`, the sum of the remaining ones, add up to the score of `label`.

    `strongest` holds (input, contribution), the largest absolute value first. `label` is None for a number.
    """

    scale: str
    label: Label | None
    base: float
    strongest: Sequence[tuple[str, float]]
    others: float


class ModelExplainer:
    """Explains the predictions of a model: for two classes the score of the second one, else that of the predicted class.

    Raises NotExplainable.
    """

    def __init__(self, model: Model) -> None:
        self._explainer: Explainer = model.explainer()
        self._encoder, self._classes = model.encoder, model.signature.target.classes
        self._names = [column.name for column in model.signature.inputs]
        self._base = self._explainer.base.tolist()
        is_probability = self._classes and self._explainer.link == "identity"
        self._scale = "probability" if is_probability else SCALES.get(self._explainer.link, self._explainer.link)
        self._vector = [0.0] * len(self._encoder.features)
        self._write = self._encoder.compile_row_writer(self._vector)
        started = time.thread_time()
        self._explainer.of(np.zeros((1, len(self._vector))))
        self.seconds_per_row = time.thread_time() - started

    def of_rows(self, rows: Sequence[Sequence[Value]], scores: Sequence[Sequence[float]], count: int) -> list[Explanation]:
        """Return the `count` strongest contributions for typed rows with these scores. Not thread-safe."""
        vectors = []
        for row in rows:
            self._write(row)
            vectors.append(self._vector.copy())
        return self.of(vectors, scores, count)

    def of(
        self, features: FloatMatrix | Sequence[Sequence[float]], scores: Sequence[Sequence[float]], count: int
    ) -> list[Explanation]:
        """Return the `count` strongest contributions for an (n, features) matrix with these scores."""
        matrix = np.asarray(features, dtype=float)
        pieces = (self._explainer.of(matrix[start : start + ROWS_AT_A_TIME]) for start in range(0, len(matrix), ROWS_AT_A_TIME))
        rows = zip(itertools.chain.from_iterable(pieces), scores, strict=True)
        return [self._explanation(contributions, row, count) for contributions, row in rows]

    def _explanation(self, contributions: FloatMatrix, scores: Sequence[float], count: int) -> Explanation:
        """Return the explanation of a row with (outputs, inputs) contributions."""
        predicted = scores.index(max(scores)) if len(self._classes) > 2 else len(self._classes) - 1
        output = min(max(predicted, 0), len(self._base) - 1)
        order = sorted(zip(self._names, contributions[output].tolist(), strict=True), key=_strength)
        others = sum([contribution for _, contribution in order[count:]], 0.0)
        label = self._classes[predicted] if self._classes else None
        return Explanation(self._scale, label, self._base[output], order[:count], others)


def _strength(pair: tuple[str, float]) -> float:
    return -abs(pair[1])


def is_explained_fast(served: ServedModel, family: str, rows: int) -> bool:
    """Return whether the explainer of a model is built and takes little time for this number of rows."""
    explainer: ModelExplainer | None = served.prepared.get((PREPARED_KEY, family))
    return explainer is not None and rows * explainer.seconds_per_row < MAX_SECONDS_ON_LOOP


def explainer_for(served: ServedModel, family: str) -> ModelExplainer:
    """Return the explainer of a model; the first call may take a second. Raises NotExplainable."""
    key = PREPARED_KEY, family
    if key not in served.prepared:
        served.prepared[key] = ModelExplainer(served.models[family])
    explainer: ModelExplainer = served.prepared[key]
    return explainer

"""A graph of ONNX operators as a scorer, run by onnxruntime one row at a time: no row's answer depends on the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from podium.models.scorers import CompiledScorer
from podium.schema.arrays import FloatMatrix, FloatVector

UNSEEN = "\N{SNOWMAN}"
"""Stands in a text input for a category that the model does not know."""


KINDS = ("float32", "float64", "int64", "int32", "text")
"""Types of inputs."""


@dataclass(frozen=True, slots=True)
class OnnxInput:
    """One input of the graph: features from the place `first`, as a tensor (1, *shape); `texts` turns codes into text."""

    name: str
    kind: str
    first: int
    shape: tuple[int, ...]
    texts: tuple[str, ...] = ()

    def tensor(self, vector: FloatVector) -> np.ndarray:
        cells = vector[self.first : self.first + math.prod(self.shape)]
        if self.kind == "text":
            return np.array([[self._text(code) for code in cells.tolist()]], dtype=object).reshape(1, *self.shape)
        return cells.astype(self.kind).reshape(1, *self.shape)

    def _text(self, code: float) -> str:
        if code != code:
            return ""
        return self.texts[int(code)] if code < len(self.texts) else UNSEEN


@dataclass(slots=True)
class OnnxScorer:
    """An ONNX model and how features get into it; `chance` says that the one output is the probability of the second class."""

    model: bytes
    feeds: tuple[OnnxInput, ...]
    output: str
    features: int
    chance: bool = False
    _session: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.model, self.feeds, self.output, self.features, self.chance

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.model, self.feeds, self.output, self.features, self.chance = state
        self._session = None

    @property
    def session(self) -> Any:
        if self._session is None:
            self._session = session_of(self.model)
        return self._session

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        score = self._scorer()
        return np.array([score(row) for row in features]).reshape(len(features), -1)

    def compiled(self) -> CompiledScorer:
        vector, score = np.zeros(self.features), self._scorer()
        return vector, lambda: score(vector)  # type: ignore[return-value]

    def _scorer(self) -> Callable[[FloatVector], Sequence[float]]:
        run, outputs, feeds, chance = self.session.run, [self.output], self.feeds, self.chance

        def score(vector: FloatVector) -> Sequence[float]:
            found: list[float] = run(outputs, {feed.name: feed.tensor(vector) for feed in feeds})[0].ravel().tolist()
            return (1.0 - found[0], found[0]) if chance else found

        return score


def session_of(model: bytes) -> Any:
    """A session of one thread on the processor."""
    import onnxruntime  # some 30 MB and a tenth of a second that only those who serve such a model pay

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

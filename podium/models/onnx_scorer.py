"""ONNX graphs as scorers, run by onnxruntime one row at a time, so that no row affects another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from podium.models.onnx_checks import check_graph
from podium.models.scorers import CompiledScorer
from podium.schema.arrays import FloatMatrix, FloatVector

UNKNOWN_TEXT = "\N{SNOWMAN}"
"""Replaces unknown categories in text tensors."""

TENSOR_KINDS = ("float32", "float64", "int64", "int32", "text")


def text_of(code: float, texts: Sequence[str]) -> str | None:
    """Return the text of a category's code; None for a missing one."""
    if code != code:
        return None
    return texts[int(code)] if code < len(texts) else UNKNOWN_TEXT


@dataclass(frozen=True, slots=True)
class OnnxInput:
    """An input tensor of shape (1, *shape), filled with the features from index `first` on; `texts` maps codes to strings."""

    name: str
    kind: str
    first: int
    shape: tuple[int, ...]
    texts: tuple[str, ...] = ()

    def tensor(self, vector: FloatVector) -> np.ndarray:
        cells = vector[self.first : self.first + math.prod(self.shape)]
        if self.kind == "text":
            return np.array([[text_of(code, self.texts) or "" for code in cells.tolist()]], dtype=object).reshape(
                1, *self.shape
            )
        return cells.astype(self.kind).reshape(1, *self.shape)


@dataclass(slots=True)
class OnnxScorer:
    """An ONNX model with its inputs; with `binary_probability`, its output is the probability of the second class."""

    model: bytes
    inputs: tuple[OnnxInput, ...]
    output: str
    features: int
    binary_probability: bool = False
    _session: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.model, self.inputs, self.output, self.features, self.binary_probability

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.model, self.inputs, self.output, self.features, self.binary_probability = state
        self._session = None

    @property
    def session(self) -> Any:
        if self._session is None:
            self._session = create_session(self.model)
        return self._session

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        score = self._row_function()
        return np.array([score(row) for row in features]).reshape(len(features), -1)

    def compiled(self) -> CompiledScorer:
        vector, score = np.zeros(self.features), self._row_function()
        return vector, lambda: score(vector)  # type: ignore[return-value]

    def check(self, features: int) -> int | None:
        if self.features != features:
            raise ValueError(f"the scorer does not take the {features} features that the encoder returns")
        names = {tensor.name for tensor in self.inputs}
        if len(names) != len(self.inputs) or not names:
            raise ValueError("the graph has no inputs, or two inputs with the same name")
        for tensor in self.inputs:
            if tensor.kind not in TENSOR_KINDS or not all(0 < size <= features for size in tensor.shape):
                raise ValueError(f"the graph's input {tensor.name[:80]} has an unknown kind or shape")
            if not 0 <= tensor.first <= self.features - math.prod(tensor.shape):
                raise ValueError(f"the graph's input {tensor.name[:80]} reads features that do not exist")
        size = check_graph(self.model, self.inputs, self.output)
        if self.binary_probability and size not in (None, 1):
            raise ValueError("the graph has more than one output, expected the probability of the second class")
        return 2 if self.binary_probability else size

    def _row_function(self) -> Callable[[FloatVector], Sequence[float]]:
        run, outputs, inputs, is_binary = self.session.run, [self.output], self.inputs, self.binary_probability

        def score(vector: FloatVector) -> Sequence[float]:
            scores: list[float] = run(outputs, {tensor.name: tensor.tensor(vector) for tensor in inputs})[0].ravel().tolist()
            return (1.0 - scores[0], scores[0]) if is_binary else scores

        return score


def create_session(model: bytes) -> Any:
    """Return a single-threaded CPU session."""
    import onnxruntime  # imported late: about 30 MB and 0.1 s, needed by ONNX models only

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # this optimizer rounds float64 factors to float32
    disabled = ["MatMulScaleFusion"]
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)

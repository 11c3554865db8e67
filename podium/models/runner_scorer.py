"""Estimators that cannot be converted: their own library scores the rows, in a sandboxed process."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from podium.models.scorers import CompiledScorer
from podium.sandbox.child_process import SandboxError
from podium.sandbox.process_limits import ProcessLimits
from podium.sandbox.runner import Answer, start_runner
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

LOADER = "podium.importers.estimator_loader"
"""The module that constructs the estimator; only the sandboxed process imports it and the library."""

ROWS_PER_CALL, SECONDS_PER_CALL, MAX_MEMORY_BYTES = 100, 30.0, 4 << 30
SECONDS_PER_TEXT_CALL = 10.0
"""Less for models that read texts, since a client may send one on which a regular expression takes exponential time."""


@dataclass(slots=True)
class RunnerScorer:
    """The pickle of an estimator with its columns; the features are the numbers, the codes of the categories, and the texts."""

    file: bytes
    columns: tuple[Column, ...]
    outputs: int
    _answer: Answer | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> tuple[object, ...]:
        return self.file, self.columns, self.outputs

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.file, self.columns, self.outputs = state
        self._answer = None

    def scores(self, features: FloatMatrix) -> FloatMatrix:
        """Score one row at a time, so that no row affects another. Raises SandboxError."""
        blocks = [features[low : low + ROWS_PER_CALL] for low in range(0, len(features), ROWS_PER_CALL)]
        return np.vstack([np.empty((0, self.outputs)), *map(self._block, blocks)])

    def compiled(self) -> CompiledScorer:
        """Return a scorer for a single row, and start the process."""
        self.start()
        vector, dtype = [0.0] * len(self.columns), object if self._reads_text else float
        return vector, lambda: self._block(np.array([vector], dtype))[0].tolist()

    def check(self, features: int) -> int:
        if len(self.columns) != features or self.outputs < 1:
            raise ValueError(f"the scorer does not take the {features} features that the encoder returns")
        return self.outputs

    def start(self) -> Answer:
        """Start the process if it does not run; return the function that it answers. Raises SandboxError."""
        if self._answer is None:
            seconds = SECONDS_PER_TEXT_CALL if self._reads_text else SECONDS_PER_CALL
            limits = ProcessLimits(
                seconds, MAX_MEMORY_BYTES + 4 * len(self.file), 8 * ROWS_PER_CALL * self.outputs, keeps_running=True
            )
            self._answer = start_runner(LOADER, pickle.dumps((self.file, self.columns)), limits)
        return self._answer

    @property
    def _reads_text(self) -> bool:
        return any(column.kind == "text" for column in self.columns)

    def _block(self, features: FloatMatrix) -> FloatMatrix:
        scores = np.frombuffer(self.start()(pickle.dumps(features)))
        if scores.size != len(features) * self.outputs:
            raise SandboxError("returned an invalid result")
        return scores.reshape(len(features), self.outputs)

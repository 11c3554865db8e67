"""Whether a model has become worse: a sequential test of its losses with a bounded rate of false alarms.

The test multiplies a bet against "the mean loss is at most `allowed`" for every prediction, as an e-detector of the
Shiryaev-Roberts kind (Shin, Ramdas and Rinaldo, 2024). Whatever the distribution of the losses, as long as their mean given the
past is allowed, it takes at least `1 / ALARMS_PER_DAY` days on average until the evidence reaches the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from podium.schema.arrays import FloatVector

ALARMS_PER_DAY = 1 / 36_525
"""At most one false alarm in a hundred years, from both tests of a project together."""
TESTS = 2
"""Of labels, and of estimates."""
THRESHOLD = math.log(TESTS / ALARMS_PER_DAY)
BETS = (0.02, 0.05, 0.12, 0.3)
"""Fractions of the largest possible bet; small ones find small changes."""
STANDARD_ERRORS = 2.0
"""The reference loss may be this much too low, since it is an estimate."""


@dataclass(frozen=True, slots=True)
class HarmTest:
    """The state of a test: the loss that is allowed, and the logarithm of the evidence of each bet."""

    allowed: float
    evidence: tuple[float, ...] = (-math.inf,) * len(BETS)

    @classmethod
    def of_reference(cls, losses: FloatVector, tolerance: float) -> HarmTest:
        """Return a test against the mean of these losses, which are between 0 and 1, and a tolerance."""
        error = STANDARD_ERRORS * float(losses.std()) / math.sqrt(len(losses))
        return cls(min(1 - 1e-9, float(losses.mean()) + max(tolerance, error, 1e-9)))

    def after(self, losses: FloatVector) -> HarmTest:
        """Return the test after the losses of a day, which are between 0 and 1."""
        bets = np.array(BETS) / self.allowed
        gains = [float(np.log1p(bet * (losses - self.allowed)).sum()) for bet in bets]
        evidence = [float(np.logaddexp(old, 0) + gain) for old, gain in zip(self.evidence, gains, strict=True)]
        return replace(self, evidence=tuple(evidence))

    @property
    def log_evidence(self) -> float:
        return float(np.logaddexp.reduce(self.evidence)) - math.log(len(BETS))

    @property
    def is_alarm(self) -> bool:
        return self.log_evidence >= THRESHOLD

    def restarted(self) -> HarmTest:
        """Return the test without its evidence, as after an alarm."""
        return HarmTest(self.allowed)

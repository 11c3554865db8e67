"""When to stop boosting."""

from __future__ import annotations

import time


class EarlyStopping:
    """Stops 10 rounds and 30% of the best round after that round, or at the deadline, a time of `time.monotonic`.

    `best_round` is the round with the lowest loss; the first round is number 1.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline, self._lowest = deadline, float("inf")
        self.best_round = 1

    def is_over(self, number: int, loss: float) -> bool:
        """Add the loss after a round, and return whether it is the last one."""
        if loss < self._lowest:
            self._lowest, self.best_round = loss, number
        return number - self.best_round > 10 + 0.3 * (self.best_round - 1) or time.monotonic() > self._deadline

"""Boosting stops some rounds after the best one."""

from __future__ import annotations

import pytest

from podium.training.early_stopping import EarlyStopping


@pytest.mark.parametrize(("best", "last"), [(1, 12), (11, 25), (101, 142)])
def test_the_patience_grows_with_the_best_round(best: int, last: int) -> None:
    stopping = EarlyStopping(float("inf"))
    rounds = next(number for number in range(1, 1000) if stopping.is_over(number, abs(number - best)))
    assert (stopping.best_round, rounds) == (best, last)


def test_a_loss_that_is_not_a_number_is_not_the_best() -> None:
    stopping = EarlyStopping(float("inf"))
    losses = [3.0, 2.0, float("nan"), 2.0]
    assert not any(stopping.is_over(number, loss) for number, loss in enumerate(losses, 1))
    assert stopping.best_round == 2


def test_the_deadline_ends_the_rounds() -> None:
    assert EarlyStopping(0.0).is_over(1, 1.0)

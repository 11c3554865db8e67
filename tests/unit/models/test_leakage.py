"""An input that alone predicts the target is found, however it does, and no input is found by chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.models.leakage import NEARLY_ALL, leaking_inputs
from podium.schema.columns import Target

ROWS = 400
CLASSES, NUMBER = Target("y", "binary", ("N", "Y")), Target("y", "regression")


def leaks(cells: object, target: object, signature: Target = CLASSES) -> dict[str, float]:
    return leaking_inputs(pd.DataFrame({"x": cells}), pd.Series(np.asarray(target, dtype=float)), signature, NEARLY_ALL)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_exact_cut_predicts_everything(share: float) -> None:
    random = np.random.default_rng(0)
    is_one = random.random(ROWS) < share
    amounts = random.lognormal(4, 1, ROWS).round(2)
    noise = random.normal(size=ROWS)
    for cells in (
        np.where(is_one, amounts, 0),
        np.where(is_one, np.nan, amounts),
        np.where(is_one, 5 + abs(noise), noise.clip(-2, 2)),
        np.where(is_one, np.sign(noise) * (3 + abs(noise)), noise.clip(-2, 2)),  # two cuts
        [f"{code}{'+' if one else '-'}" for code, one in zip(random.integers(0, 30, ROWS), is_one, strict=True)],
    ):
        assert leaks(cells, is_one) == {"x": 1.0}


def test_a_few_rows_are_not_separated_by_chance() -> None:
    random = np.random.default_rng(1)
    for rows in (50, 60, 100, 200):
        for share in (0.05, 0.1, 0.5):
            target = random.random(rows) < share
            target[:2] = (False, True)
            frame = pd.DataFrame({f"x{n}": random.normal(size=rows) for n in range(30)})
            frame["codes"] = random.choice(list("abcdefghij"), rows)
            assert not leaking_inputs(frame, pd.Series(target.astype(float)), CLASSES)


def test_one_outlier_does_not_make_every_input_a_leak() -> None:
    random = np.random.default_rng(2)
    years = random.integers(0, 40, ROWS).astype(float)
    salaries = 100_000 + random.normal(0, 20_000, ROWS)
    assert leaks(3 * salaries, salaries, NUMBER)
    for frame in (years, [*["Prof"] * (ROWS - 1), "Total"]):
        cells = pd.Series(frame)
        cells.iloc[-1], salaries[-1] = (9_000 if cells.dtype == float else "Total"), 400 * 100_000
        assert not leaks(cells, salaries, NUMBER)

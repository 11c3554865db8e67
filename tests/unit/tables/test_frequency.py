"""Frequencies of panels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.tables.frequency import infer_frequency, shift_times, step_name

REGULAR = [
    "D",
    "h",
    "15min",
    "6h",
    "B",
    "W-SUN",
    "W-WED",
    "ME",
    "MS",
    "BME",
    "QE-DEC",
    "QS-JAN",
    "YE-DEC",
    "YS-JAN",
    "2D",
    "30s",
]


def days(index: pd.DatetimeIndex) -> np.ndarray:
    return ((index - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)).to_numpy()


@pytest.mark.parametrize("frequency", REGULAR)
def test_a_regular_frequency_is_inferred_and_continued(frequency: str) -> None:
    index = pd.date_range("2023-01-31 06:00" if frequency == "6h" else "2023-01-31", periods=41, freq=frequency)
    times = days(index)
    codes = np.repeat([0, 1], 40)
    inferred, fraction = infer_frequency(codes, np.r_[times[:40], times[:40]])
    assert fraction == 1.0
    assert shift_times(times[39:40], inferred) == pytest.approx(times[40:])
    assert shift_times(times[40:], inferred, -3) == pytest.approx(times[37:38])


def test_gaps_do_not_change_the_frequency() -> None:
    times = np.delete(days(pd.date_range("2024-01-01", periods=100, freq="h")), [10, 50, 51])
    frequency, fraction = infer_frequency(np.zeros(len(times), dtype=int), times)
    assert frequency == "h" and 0.97 < fraction < 1


@pytest.mark.parametrize(
    ("frequency", "name"),
    [
        ("D", "day"),
        ("h", "hour"),
        ("W-SUN", "week"),
        ("ME", "month"),
        ("MS", "month"),
        ("BME", "month"),
        ("QE-DEC", "quarter"),
        ("YS-JAN", "year"),
        ("B", "business day"),
        ("6h", "step"),
    ],
)
def test_a_step_has_a_name(frequency: str, name: str) -> None:
    assert step_name(frequency) == name

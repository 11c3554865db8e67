"""The frequency of a panel's times as a pandas offset alias, such as `D`, `h`, `B`, `W-SUN`, `ME` or `15min`.

https://pandas.pydata.org/docs/user_guide/timeseries.html#offset-aliases
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset, Tick

from podium.schema.arrays import FloatVector, IndexArray
from podium.schema.columns import EPOCH_TIME

SECONDS_PER_DAY = 86_400
CALENDAR = ("ME", "MS", "BME", "BMS", "QE-DEC", "QE-JAN", "QE-FEB", "QS-JAN", "QS-FEB", "QS-MAR", "YE-DEC", "YS-JAN")
"""Frequencies whose steps differ in length."""
STEP_NAMES = {"D": "day", "B": "business day", "h": "hour", "min": "minute", "s": "second", "W": "week", "M": "month",
              "BM": "month", "Q": "quarter", "Y": "year"}  # fmt: skip
MIN_REGULAR = 0.5


def step_name(frequency: str) -> str:
    """Return what a step is called, such as `hour`; `step` if it has no name."""
    return STEP_NAMES.get(frequency) or STEP_NAMES.get(frequency.split("-")[0].rstrip("ES"), "step")


@lru_cache
def _offset(frequency: str) -> BaseOffset:
    return pd.tseries.frequencies.to_offset(frequency)


def shift_times(times: FloatVector, frequency: str, steps: int = 1) -> FloatVector:
    """Return times, in days since 1970, moved by steps of a frequency; an empty frequency means whole numbers."""
    if frequency in ("", "D"):
        return times + steps
    offset = _offset(frequency)
    if isinstance(offset, Tick):
        return times + steps * pd.Timedelta(offset).total_seconds() / SECONDS_PER_DAY
    moved = {time: _move(time, steps * offset) for time in set(times.tolist())}
    return np.array([moved[time] for time in times.tolist()], dtype=float)


def _move(time: float, offset: BaseOffset) -> float:
    moment = pd.Timestamp(EPOCH_TIME).as_unit("s") + pd.Timedelta(round(time * SECONDS_PER_DAY), "s")
    return float((moment + offset - pd.Timestamp(EPOCH_TIME)).total_seconds() / SECONDS_PER_DAY)


def infer_frequency(codes: IndexArray, times: FloatVector) -> tuple[str, float]:
    """Return the frequency of the times of each entity, and the fraction of steps that it explains.

    `codes` identify the entities. The fraction is less than one if there are gaps.
    """
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    is_next = (codes[1:] == codes[:-1]) & (times[1:] > times[:-1])
    before, after = times[:-1][is_next], times[1:][is_next]
    if not len(before):
        return "D", 1.0
    steps, counts = np.unique(np.round((after - before) * SECONDS_PER_DAY), return_counts=True)
    usual = steps[counts.argmax()]
    candidates = [_fixed(usual)]
    if usual == SECONDS_PER_DAY and not _weekend(times).any():
        candidates.insert(0, "B")
    elif usual == 7 * SECONDS_PER_DAY:
        candidates.insert(0, f"W-{['THU', 'FRI', 'SAT', 'SUN', 'MON', 'TUE', 'WED'][int(before[0]) % 7]}")
    elif usual >= 28 * SECONDS_PER_DAY:
        candidates = [*CALENDAR, *candidates]
    fractions = [float(np.isclose(shift_times(before, frequency), after, rtol=0, atol=1e-6).mean()) for frequency in candidates]
    best = int(np.argmax(fractions))
    return candidates[best], fractions[best]


def _weekend(times: FloatVector) -> np.ndarray:
    weekend: np.ndarray = (np.floor(times) + 3) % 7 >= 5
    return weekend


def _fixed(seconds: float) -> str:
    for alias, length in (("D", SECONDS_PER_DAY), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            count = int(seconds // length)
            return alias if count == 1 else f"{count}{alias}"
    return f"{int(seconds)}s"

"""Numbers and answers that may mean a missing value, as questionnaires and devices write them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from podium.schema.arrays import FloatVector
from podium.tables.kind_inference import NA_TEXTS

CODES = (77, 88, 777, 888, 7777, 8888, *(10**digits - rest for digits in (2, 3, 4, 5, 6) for rest in (1, 2, 3)))
NEGATIVE_CODES = (-1, -7, -8, -9, *(-code for code in CODES))
MIN_COUNT, MIN_OTHERS, MIN_STEPS = 3, 4, 5
"""Minimum number of cells with a code, of other values, and of the largest steps between these from them to the code."""
ANSWERS = frozenset(
    (*("don't know", "don’t know", "dont know", "do not know", "dk", "refused", "refuse to answer", "not stated"),
     *("not reported", "not answered", "prefer not to say", "prefer not to answer", "rather not say", "no response"),
     *("no reply", "weiß nicht", "weiss nicht", "no sabe", "no contesta", "ns/nc", "ne sait pas", "sans réponse", "weet niet"))
)  # fmt: skip
"""Answers in lower case that answer nothing."""
LEVELS = frozenset(("none", "nil", "brak", "nc", "nd"))
"""Missing marks of numbers that are as likely a class."""


def missing_codes(numbers: FloatVector) -> list[float]:
    """Return the repeated numbers such as 999 or -9 that are far from all others; NaN is ignored."""
    distinct, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    is_code = np.isin(distinct, CODES + NEGATIVE_CODES) & (counts >= MIN_COUNT)
    others = distinct[~is_code]
    if not is_code.any() or len(others) < MIN_OTHERS:
        return []
    is_code &= (distinct < others[0]) | (distinct > others[-1])
    others = distinct[~is_code]
    step = np.diff(others).max()
    is_far = np.maximum(others[0] - distinct, distinct - others[-1]) >= MIN_STEPS * step
    is_only_negative = (distinct < 0) & (others[0] >= 0) & (len(others) >= 2 * MIN_STEPS) & (others % 1 == 0).all()
    return distinct[is_code & (is_far | (is_only_negative & (counts >= np.median(counts[~is_code]))))].tolist()


def missing_answers(labels: Iterable[str]) -> list[str]:
    """Return the labels that are rather a missing answer than a class."""
    return [label for label in labels if label.casefold() in (ANSWERS | NA_TEXTS) - LEVELS]

"""Generate offers: 100 dirty columns x0 … x99, of which 25 variables have known coefficients."""

from __future__ import annotations

import numpy as np
import pandas as pd

Texts = np.ndarray[tuple[int], np.dtype[np.object_]]

NUMBERS = {"x2": 0.45, "x7": -0.4, "x11": 0.35, "x18": -0.5, "x22": 0.3, "x29": -0.35, "x33": 0.4, "x37": -0.3, "x44": 0.5,
           "x49": -0.45, "x53": 0.3, "x58": -0.4, "x66": 0.35, "x70": -0.3, "x83": 0.4}  # fmt: skip
"""Log odds per standard deviation of plain numbers."""
MONEY = {"x12": 0.0004, "x41": 0.0, "x77": -0.0003}
"""Log odds per dollar; amounts have a standard deviation of 1,000."""
PERCENT = {"x27": 0.0, "x63": 0.03}
"""Log odds per percentage point; shares have a standard deviation of 15 points."""
LEVELS = {
    ("x5", "Saturday"): 0.9,
    ("x5", "Sunday"): 0.7,
    ("x81", "July"): -0.8,
    ("x81", "December"): 0.9,
    ("x31", "asia"): 0.8,
    ("x31", "germany"): -0.6,
    ("x93", "tesla"): 1.0,
}
"""Log odds of a category relative to the others."""
VARIABLES = len(NUMBERS) + sum(map(bool, [*MONEY.values(), *PERCENT.values()])) + len(LEVELS)

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December"]  # fmt: skip
REGIONS, MAKERS = ["asia", "america", "germany", "japan"], ["tesla", "toyota", "volkswagen", "subaru", "nissan", "mercury"]
WORDS = {"x5": DAYS, "x81": MONTHS, "x31": REGIONS, "x93": MAKERS, "x99": ["yes", "no"]}


def offers(rows: int, seed: int) -> pd.DataFrame:
    """Return dirty texts, and `y`, which is 1 if the offer was accepted."""
    random = np.random.default_rng(seed)
    columns, odds = {}, np.full(rows, -0.7)
    for name in (f"x{number}" for number in range(100)):
        if name in WORDS:
            categories = random.choice(WORDS[name], rows)
            for level in WORDS[name]:
                odds += LEVELS.get((name, level), 0.0) * (categories == level)
            columns[name] = _misspell(categories, random, abbreviated=name in ("x5", "x81"))
        elif name in MONEY:
            amounts = random.normal(500, 1000, rows).round(2)
            odds += MONEY[name] * (amounts - 500)
            columns[name] = np.array([_dollars(amount) for amount in amounts], dtype=object)
        elif name in PERCENT:
            shares = random.normal(40, 15, rows).round(1)
            odds += PERCENT[name] * (shares - 40)
            columns[name] = np.array([f"{share}%" for share in shares], dtype=object)
        else:
            number = int(name[1:])
            numbers = random.normal(size=rows)
            odds += NUMBERS.get(name, 0.0) * numbers
            columns[name] = (numbers * (1 + number % 7) + number % 5).round(4).astype(str).astype(object)
        columns[name] = np.where(random.random(rows) < 0.01, "", columns[name])  # missing cells still influence the target
    accepted = random.random(rows) < 1 / (1 + np.exp(-odds))
    return pd.DataFrame(columns).assign(y=accepted.astype(int))


def _dollars(amount: float) -> str:
    return f"(${-amount:,.2f})" if amount < 0 else f"${amount:,.2f}"


def _misspell(words: Texts, random: np.random.Generator, *, abbreviated: bool) -> Texts:
    """Change case, abbreviate to three letters, add spaces, or (1%) swap two letters."""
    draws, positions = random.random(len(words)), random.integers(1, 3, len(words))
    result = []
    for word, draw, position in zip(words.tolist(), draws.tolist(), positions.tolist(), strict=True):
        if draw < 0.01 and len(word) > 4:
            result.append(word[:position] + word[position + 1] + word[position] + word[position + 2 :])
        elif draw < 0.1:
            result.append(word.upper())
        elif draw < 0.2:
            result.append(f" {word.title()} ")
        else:
            result.append(word[:3].lower() if abbreviated and draw < 0.4 else word)
    return np.array(result, dtype=object)

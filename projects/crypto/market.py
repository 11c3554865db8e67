"""Generate a market: random walks of prices, one row per symbol and day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd

COLUMNS = [
    "slug",
    "symbol",
    "name",
    "date",
    "ranknow",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "market",
    "close_ratio",
    "spread",
]


def names(count: int) -> list[str]:
    return [f"C{number:05d}" for number in range(count)]


def market(symbols: Sequence[str], days: int, first: date, seed: int = 0) -> pd.DataFrame:
    """Return all rows, ordered by symbol and day."""
    random = np.random.default_rng(seed)
    shape = (len(symbols), days)
    steps = random.normal(0.0005, 0.04, shape)
    steps[:, 1:] += 0.2 * steps[:, :-1]  # momentum over two days, which models can learn
    start = 10 ** random.uniform(-4, 4, (len(symbols), 1))
    close = start * np.exp(np.cumsum(steps, axis=1))
    opened = np.hstack([start, close[:, :-1]]) * np.exp(random.normal(0, 0.003, shape))
    high = np.maximum(opened, close) * np.exp(np.abs(random.normal(0, 0.01, shape)))
    low = np.minimum(opened, close) * np.exp(-np.abs(random.normal(0, 0.01, shape)))
    shares = 10 ** random.uniform(6, 9, (len(symbols), 1))
    volume = (shares * close * np.exp(random.normal(-3, 0.5, shape))).round()
    texts = np.array([f"{day.day}/{day.month}/{day.year}" for day in (first + timedelta(n) for n in range(days))])
    coin = np.repeat(np.array(symbols, dtype=object), days)
    numbers = {"open": opened, "high": high, "low": low, "close": close}
    cells = {name: np.array([f"{number:.6g}" for number in values.ravel()]) for name, values in numbers.items()}
    frame = pd.DataFrame(
        {"slug": coin, "symbol": coin, "name": coin, "date": np.tile(texts, len(symbols)), "ranknow": 1, **cells}
    )
    return frame.assign(
        volume=volume.ravel(),
        market=(shares * close).round().ravel(),
        close_ratio=((close - low) / (high - low)).round(4).ravel(),
        spread=(high - low).round(2).ravel(),
    )[COLUMNS]


def daily(frame: pd.DataFrame) -> Iterator[tuple[date, bytes]]:
    """Yield each day and its file, with one row per symbol."""
    days = pd.to_datetime(frame["date"], format="%d/%m/%Y").dt.date
    for day, rows in frame.groupby(days, sort=True):
        yield day, rows.to_csv(index=False).encode()

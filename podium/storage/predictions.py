"""Where logged predictions are: `predictions/PROJECT/dt=DAY/FILE-PROMOTION.parquet`."""

from __future__ import annotations

import re
from collections import Counter

from podium.storage.object_store import Store

LOGGED = re.compile(r"predictions/[^/]+/dt=(?P<day>[0-9-]+)/[0-9a-f]+-(?P<promotion>[0-9]+)\.parquet")


def dashed(name: str) -> str:
    """Return the day that a name starts with as YYYY-MM-DD."""
    return f"{name[:4]}-{name[4:6]}-{name[6:8]}"


def predictions_prefix(project: str, name: str) -> str:
    """Return the prefix of the day that a name starts with."""
    return f"predictions/{project}/dt={dashed(name)}/"


def logged_key(project: str, name: str, promotion: int) -> str:
    """Return the key of what a version answered, by the audit-log entry that promoted it, in the journal file of this name."""
    return f"{predictions_prefix(project, name)}{name}-{promotion}.parquet"


def is_logged(key: str) -> bool:
    """Return whether an object holds logged predictions, and not an input or a result of a file."""
    return LOGGED.fullmatch(key) is not None


def logged_promotions(store: Store, project: str) -> dict[int, Counter[str]]:
    """Return the number of objects by promotion and day. It lists them all. Raises StoreError."""
    found: dict[int, Counter[str]] = {}
    for info in store.list_objects(f"predictions/{project}/"):
        if match := LOGGED.fullmatch(info.key):
            found.setdefault(int(match["promotion"]), Counter())[match["day"]] += 1
    return found

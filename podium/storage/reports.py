"""The stored reports of a project, one object per day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from podium.storage.object_store import Store


def report_prefix(project: str) -> str:
    return f"monitoring/{project}/"


def report_key(project: str, day: str) -> str:
    return f"{report_prefix(project)}{day}.json"


def reported_days(store: Store, project: str) -> list[str]:
    """Return the days that have a report, the first one first."""
    return store.names(report_prefix(project), ".json")


def read_report(store: Store, project: str, day: str) -> dict[str, Any]:
    """Return a report. Raises NotFound."""
    report: dict[str, Any] = json.loads(store.read(report_key(project, day)).data)
    return report


def latest_report(store: Store, project: str) -> dict[str, Any] | None:
    days = reported_days(store, project)
    return read_report(store, project, days[-1]) if days else None


def days_to_report(store: Store, project: str, until: date) -> Iterator[date]:
    """Yield the days up to `until` that have no report yet: after the last report, or from the first prediction."""
    days = reported_days(store, project)
    if days:
        first = date.fromisoformat(days[-1]) + timedelta(days=1)
    else:
        folders = sorted(store.folders(f"predictions/{project}/"))
        first = min(until, date.fromisoformat(folders[0].removeprefix("dt="))) if folders else until
    while first <= until:
        yield first
        first += timedelta(days=1)

"""The stored reports of a project, one object per day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from podium.formatting import count, format_number
from podium.storage.object_store import Store

MAX_SHOWN = 5


def report_prefix(project: str) -> str:
    return f"monitoring/{project}/"


def report_key(project: str, day: str) -> str:
    return f"{report_prefix(project)}{day}.json"


def reported_days(store: Store, project: str) -> list[str]:
    """Return the days that have a report, the first one first."""
    prefix = report_prefix(project)
    return [info.key.removeprefix(prefix).removesuffix(".json") for info in store.list_objects(prefix)]


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
        predictions = next(store.list_objects(f"predictions/{project}/dt="), None)
        first = date.fromisoformat(predictions.key.split("/dt=")[1][:10]) if predictions else until
    while first <= until:
        yield first
        first += timedelta(days=1)


def report_text(report: dict[str, Any]) -> str:
    """Return a report in a few lines."""
    versions = ", ".join(f"{version} {count(rows, 'row')}" for version, rows in report["versions"].items())
    lines = [f"{report['project']} {report['day']}: {count(report['requests'], 'request')}; {versions or 'no predictions'}"]
    if error := report.get("error"):
        estimated, expected, allowed = (format_number(error[name]) for name in ("estimated", "expected", "allowed"))
        lines.append(f"  {error['name']}: estimated {estimated}, in the evaluation {expected}, allowed {allowed}")
    lines += [
        f"  {each['version']}: error {format_number(each['error'])} of {count(each['rows'], 'labelled row')}"
        for each in report["labels"]["versions"]
    ]
    if unknown := report["labels"]["unknown"]:
        lines.append(f"  {count(unknown, 'label')} of predictions that are not in the log")
    if drift := report.get("drift"):
        lines.append(f"  rows are told from training rows with AUC {drift['joint']:.2f} (0.5: not at all)")
        columns = drift["columns"][:MAX_SHOWN]
        lines += [f"    {each['column']}: {each['measure']} {each['distance']:.2f}, PSI {each['psi']:.2f}" for each in columns]
    lines += [f"  {report['note']}"] if "note" in report else []
    return "\n".join([*lines, *(f"  ALARM: {alarm['message']}" for alarm in report["alarms"])])

"""A daily report as text."""

from __future__ import annotations

from typing import Any

from podium.formatting import count, format_number

MAX_SHOWN = 5


def report_text(report: dict[str, Any]) -> str:
    """Return a report in a few lines."""
    versions = ", ".join(f"{version} {count(rows, 'row')}" for version, rows in report["versions"].items())
    lines = [f"{report['project']} {report['day']}: {count(report['requests'], 'request')}; {versions or 'no predictions'}"]
    if error := report.get("error"):
        estimated, expected, allowed = (format_number(error.get(name)) for name in ("estimated", "expected", "allowed"))
        lines.append(f"  {error['name']}: estimated {estimated}, in the evaluation {expected}, allowed {allowed}")
    lines += [
        f"  {each['version']}: error {format_number(each['error'])} of {count(each['rows'], 'labelled row')}"
        for each in report["labels"]["versions"]
    ]
    if unknown := report["labels"]["unknown"]:
        lines.append(f"  {count(unknown, 'label')} of predictions that are not in the log")
    if drift := report.get("drift"):
        lines.append(
            f"  a classifier tells these rows and training rows apart with an AUC of {drift['joint']:.2f} (0.5: by chance)"
        )
        columns = drift["columns"][:MAX_SHOWN]
        lines += [f"    {each['column']}: {each['measure']} {each['distance']:.2f}, PSI {each['psi']:.2f}" for each in columns]
    lines += [f"  {report['note']}"] if "note" in report else []
    lines += [f"  {version} cannot be compared: {reason}" for version, reason in report["unreadable"].items()]
    return "\n".join([*lines, *(f"  ALARM: {alarm['message']}" for alarm in report["alarms"])])

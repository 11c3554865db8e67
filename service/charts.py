"""Line charts as points that a template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 600, 120


def line_chart(
    days: Sequence[str], series: Mapping[str, Sequence[float | None]], low: float = 0.0, high: float | None = None
) -> dict[str, Any]:
    """Return the lines of a chart from `low` to `high` (by default, the largest value); a missing value interrupts its line."""
    known = [value for values in series.values() for value in values if value is not None]
    top = high if high is not None else max(known, default=0.0) or 1.0

    def point(position: int, value: float) -> str:
        x = WIDTH * (position + 0.5) / len(days)
        return f"{x:.1f},{HEIGHT * (1 - (max(low, min(value, top)) - low) / (top - low)):.1f}"

    lines = []
    for name, values in series.items():
        parts: list[list[str]] = [[]]
        for position, value in enumerate(values):
            if value is None:
                parts.append([])
            else:
                parts[-1].append(point(position, value))
        last = next((value for value in reversed(values) if value is not None), None)
        lines.append({"name": name, "parts": [part for part in parts if part], "last": last})
    return {"days": days, "lines": lines, "low": low, "high": top, "width": WIDTH, "height": HEIGHT}

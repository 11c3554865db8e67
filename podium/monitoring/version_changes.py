"""What changed between two versions: their data and their configuration."""

from __future__ import annotations

from typing import Any

from podium.monitoring.drift import column_drift
from podium.registry.comparison import read_evaluation_rows
from podium.registry.versions import TEST_FILE, Fetch, Manifest

MAX_COLUMNS = 5
LEAST_DISTANCE = 0.1
"""Smaller differences of a column are not named."""


def data_changes(before: Manifest, after: Manifest, fetch: Fetch) -> tuple[str, ...]:
    """Return how the training data changed: its size, its columns, and the columns whose values changed most."""
    changes = [
        f"{name}: {old} → {new}"
        for name in ("rows", "until")
        if (old := before.data.get(name)) != (new := after.data.get(name))
    ]
    olds, news = ({column.name for column in manifest.signature.inputs} for manifest in (before, after))
    changes += [f"new column {name}" for name in sorted(news - olds)] + [f"no column {name}" for name in sorted(olds - news)]
    if before.data.get("sha256") == after.data.get("sha256") or not {TEST_FILE} <= before.files.keys() & after.files.keys():
        return tuple(changes)
    old_rows, new_rows = (read_evaluation_rows(manifest, fetch) for manifest in (before, after))
    drifts = [
        column_drift(name, old_rows.inputs[name], new_rows.inputs[name])
        for name in old_rows.inputs.columns
        if name in news and old_rows.inputs[name].dtype == new_rows.inputs[name].dtype
    ]
    drifts = sorted((each for each in drifts if each.distance >= LEAST_DISTANCE), key=lambda each: -each.distance)
    return (*changes, *(f"{each.column}: {each.measure} distance {each.distance:.2f}" for each in drifts[:MAX_COLUMNS]))


def configuration_changes(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return the settings that changed, with their old and new values, and changes of the code and the libraries."""
    changes = _differences(before.configuration, after.configuration)
    changes += _differences(
        {"code": before.git, "libraries": before.libraries}, {"code": after.git, "libraries": after.libraries}
    )
    return tuple(changes)


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    changes = list[str]()
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            changes.append(f"{prefix}{name}: {old} → {new}")
    return changes

"""Compatibility of two signatures: whether requests for the old one are valid for the new one."""

from __future__ import annotations

from podium.schema.columns import Column, Signature

FUZZY_LEVELS = ("exact", "loose", "nearest")
COMPATIBLE_KINDS = {("integer", "number")}
"""Changes of a column's kind that stay compatible with existing clients."""


def incompatibilities(old: Signature, new: Signature) -> list[str]:
    """Return the reasons why a request that is valid for the old signature would fail against the new one."""
    before, after = ({column.name: column for column in signature.request_columns} for signature in (old, new))
    reasons = [f"column {name} was removed" for name in before if name not in after and name not in new.ignored]
    added = [column for name, column in after.items() if name not in before]
    reasons += [f"column {column.name} is new and required" for column in added if not column.nullable]
    for name in before.keys() & after.keys():
        reasons += _column_incompatibilities(before[name], after[name])
    if (old.target.task, old.target.classes) != (new.target.task, new.target.classes):
        reasons.append("the task or the classes of the target changed")
    return sorted(reasons)


def _column_incompatibilities(old: Column, new: Column) -> list[str]:
    reasons = []
    if old.kind != new.kind and (old.kind, new.kind) not in COMPATIBLE_KINDS:
        reasons.append(f"column {old.name} changed from {old.kind} to {new.kind}")
    if new.require_whole and not old.require_whole:
        reasons.append(f"column {old.name} changed to require whole numbers")
    if old.nullable and old.used and not new.nullable:
        reasons.append(f"column {old.name} changed from optional to required (set nullable = true in the project file)")
    if old.has_number_format and _format(old) != _format(new):
        reasons.append(f"column {old.name} changed from {old.display_kind} to {new.display_kind}")
    if FUZZY_LEVELS.index(new.fuzzy) < FUZZY_LEVELS.index(old.fuzzy):
        reasons.append(f"column {old.name} changed from {old.fuzzy} to {new.fuzzy} matching of categories")
    removed = sorted(set(old.categories) - set(new.categories))
    if removed and new.handle_unknown == "reject":
        reasons.append(f"column {old.name} lost {len(removed)} of its categories")
    return reasons


def _format(column: Column) -> tuple[str, str, bool, str]:
    return column.number_format, column.decimal, column.grouped, column.suffix

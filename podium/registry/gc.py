"""Garbage collection: find unreferenced versions, record their retirement, then delete their files.

The manifest of a version stays, and the audit log says who retired it, when and why. Versions are kept if they serve, are
referenced by the last audit-log entries or the prediction log, or are younger than requested. Data snapshots are never deleted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import retired_versions
from podium.registry.promotion import Clock, PromotionContext, StillReferenced, retire
from podium.registry.versions import MANIFEST, TOMBSTONE, VERSION, is_tombstone, read_manifest, version_prefix
from podium.storage.object_store import AlreadyExists
from podium.storage.predictions import logged_promotions

REPRODUCIBLE_SUFFIXES = (".arrow", ".parquet", ".html")
"""Suffixes of run outputs that can be recomputed; the other outputs are small and document the run."""
UNFINISHED_GRACE = timedelta(days=1)
"""A version without a manifest is kept for this long, because it may still be finished."""


@dataclass(frozen=True, slots=True)
class GcCandidate:
    """An unreferenced version and the objects to delete.

    `retire` is set if the retirement must still be recorded, `unfinished` if the version has no manifest. `as_of` is the number
    of the last audit-log entry when the deletion was planned.
    """

    project: str
    version: str
    why: str
    keys: tuple[str, ...]
    size: int
    retire: bool
    unfinished: bool
    as_of: int

    def as_json(self) -> dict[str, Any]:
        facts = {"project": self.project, "version": self.version, "why": self.why}
        return {**facts, "objects": len(self.keys), "bytes": self.size}


@dataclass(frozen=True, slots=True)
class VersionObjects:
    """The size of each object of a version, by key, and the time when the last object was written."""

    sizes: dict[str, int]
    modified: datetime


def find_garbage(context: PromotionContext, project: str, now: datetime, *, keep: int, days: int) -> Iterator[GcCandidate]:
    """Yield the versions that are no longer referenced and at least `days` old.

    References in the last `keep` audit-log entries count. Raises StoreError.
    """
    current = context.current(project)
    as_of = current.sequence if current else 0
    entries = context.entries(project)
    events = [entry for entry in entries if entry.action != "retire"]
    needed = _referenced(current, events[-keep:] if keep else []) | _in_prediction_log(context, project, entries)
    retired = retired_versions(entries)
    for version, objects in sorted(_version_objects(context, project).items()):
        if _is_unfinished(context, project, version, objects):
            if now - objects.modified > UNFINISHED_GRACE:
                keys = tuple(sorted(key for key in objects.sizes if not _is_manifest(key)))
                size = sum(objects.sizes.values())
                yield GcCandidate(project, version, "unfinished", keys, size, retire=False, unfinished=True, as_of=as_of)
            continue
        manifest, _ = read_manifest(context.store, project, version, context.trust.trainers.past)
        if version in needed or now - datetime.fromisoformat(manifest.created) < timedelta(days=days):
            continue
        sizes = {key: size for key, size in objects.sizes.items() if not _is_manifest(key)}
        sizes |= {
            info.key: info.size
            for info in context.store.list_objects(f"runs/{project}/{manifest.run}/")
            if info.key.endswith(REPRODUCIBLE_SUFFIXES)
        }
        if sizes:
            why = "retired, but not fully deleted" if version in retired else "not serving and not referenced"
            keys, size = tuple(sorted(sizes)), sum(sizes.values())
            yield GcCandidate(project, version, why, keys, size, retire=version not in retired, unfinished=False, as_of=as_of)


def delete_garbage(context: PromotionContext, garbage: GcCandidate, reason: str, now: Clock) -> None:
    """Record the retirement, then delete. Raises StillReferenced if the version is in use again."""
    if garbage.retire:
        retire(context, garbage.project, garbage.version, reason, now, garbage.as_of)
    if garbage.unfinished:
        _write_tombstone(context, garbage)
    for key in garbage.keys:
        context.store.delete(key)
    if garbage.unfinished:
        context.store.delete(_manifest_key(garbage.project, garbage.version))


def _write_tombstone(context: PromotionContext, garbage: GcCandidate) -> None:
    """Prevent the version from being finished while its files are deleted. Raises StillReferenced."""
    key = _manifest_key(garbage.project, garbage.version)
    try:
        context.store.create(key, TOMBSTONE)
    except AlreadyExists:
        if not is_tombstone(context.store, key):
            raise StillReferenced(f"{garbage.version} was finished after garbage collection was planned") from None


def _manifest_key(project: str, version: str) -> str:
    return version_prefix(project, version) + MANIFEST


def _is_manifest(key: str) -> bool:
    return key.endswith("/" + MANIFEST)


def _is_unfinished(context: PromotionContext, project: str, version: str, objects: VersionObjects) -> bool:
    """Return whether there is no manifest, or only the tombstone of an interrupted collection."""
    key = _manifest_key(project, version)
    if key not in objects.sizes:
        return True
    return objects.sizes[key] == len(TOMBSTONE) and is_tombstone(context.store, key)


def _referenced(current: AuditEntry | None, entries: list[AuditEntry]) -> set[str | None]:
    versions = {version for entry in entries for version in (entry.version, entry.previous)}
    return versions | ({current.champion} if current else set())


def _in_prediction_log(context: PromotionContext, project: str, entries: list[AuditEntry]) -> set[str | None]:
    """Return the versions whose predictions are logged, or kept as files under predictions/PROJECT/dt=DAY/VERSION/."""
    promotions = logged_promotions(context.store, project)
    keys = (info.key for info in context.store.list_objects(f"predictions/{project}/"))
    of_files = {key.split("/")[3] for key in keys if key.count("/") >= 4}
    return of_files | {entry.champion for entry in entries if entry.sequence in promotions}


def _version_objects(context: PromotionContext, project: str) -> dict[str, VersionObjects]:
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    modified: dict[str, datetime] = {}
    for info in context.store.list_objects(f"versions/{project}/"):
        _, _, version, *names = info.key.split("/")
        if not names or not re.fullmatch(VERSION, version):
            continue
        sizes[version][info.key] = info.size
        modified[version] = max(info.modified, modified.get(version, info.modified))
    return {version: VersionObjects(sizes[version], modified[version]) for version in sizes}

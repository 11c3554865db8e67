"""Files that nothing refers to any more: found, written down, then deleted.

A version's files go; its manifest stays, and the history says who retired it, when and why. Never touched: what serves, what
the history's last entries speak of, what the prediction log names, what is younger than asked, and every data snapshot.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from podium.registry.audit_log import AuditEntry, entries_since, finish_alias_update, retired_versions
from podium.registry.promotion import Clock, PromotionContext, StillReferenced, retire
from podium.registry.versions import MANIFEST, TOMBSTONE, VERSION, is_tombstone, read_manifest, version_prefix
from podium.storage.object_store import AlreadyExists

REPRODUCIBLE_SUFFIXES = (".arrow", ".parquet", ".html")
"""Outputs of a run that are made anew when somebody wants them; the rest of a run is small and says what was done."""
UNFINISHED = timedelta(days=1)
"""A version without a manifest is given so long to be finished."""


@dataclass(frozen=True, slots=True)
class GcCandidate:
    """A version of no use, and what of it would go; `unfinished`: there never was a manifest."""

    project: str
    version: str
    why: str
    keys: tuple[str, ...]
    size: int
    retire: bool
    unfinished: bool
    planned: int

    def as_json(self) -> dict[str, Any]:
        facts = {"project": self.project, "version": self.version, "why": self.why}
        return {**facts, "objects": len(self.keys), "bytes": self.size}


@dataclass(frozen=True, slots=True)
class VersionObjects:
    """A version's objects and the time of the youngest."""

    sizes: dict[str, int]
    youngest: datetime


def find_garbage(context: PromotionContext, project: str, now: datetime, *, keep: int, days: int) -> Iterator[GcCandidate]:
    """What of a project nothing refers to; `keep` is the number of the history's last entries that count. Raises StoreError."""
    standing = finish_alias_update(context.store, project, context.trust.promoters)
    entries = entries_since(context.store, project, context.trust.promoters)
    acts = [entry for entry in entries if entry.action != "retire"]
    needed = _needed(standing, acts[-keep:] if keep else []) | _logged(context, project)
    gone = retired_versions(entries)
    for version, objects in sorted(_objects(context, project).items()):
        if _is_unfinished(context, project, version, objects):
            if now - objects.youngest > UNFINISHED:
                yield _garbage(project, version, "was never finished", objects.sizes, False, True, standing)
            continue
        manifest, _ = read_manifest(context.store, project, version, context.trust.trainers)
        if version in needed or now - datetime.fromisoformat(manifest.created) < timedelta(days=days):
            continue
        sizes = {key: size for key, size in objects.sizes.items() if not key.endswith("/" + MANIFEST)}
        sizes |= {
            key: size
            for key, size, _ in context.store.entries(f"runs/{project}/{manifest.run}/")
            if key.endswith(REPRODUCIBLE_SUFFIXES)
        }
        if sizes:
            why = "was retired, and not all of it deleted" if version in gone else "serves nowhere and is not spoken of"
            yield _garbage(project, version, why, sizes, version not in gone, False, standing)


def delete_garbage(context: PromotionContext, garbage: GcCandidate, reason: str, now: Clock) -> None:
    """Write it down, then delete. Raises StillNeeded when somebody was faster and needs it."""
    if garbage.retire:
        retire(context, garbage.project, garbage.version, reason, now, garbage.planned)
    if garbage.unfinished:
        _write_tombstone(context, garbage)
    for key in garbage.keys:
        context.store.delete(key)
    if garbage.unfinished:
        context.store.delete(_manifest_key(garbage.project, garbage.version))


def _write_tombstone(context: PromotionContext, garbage: GcCandidate) -> None:
    """Nobody can finish the version while its files go; who comes later writes them again. Raises StillNeeded."""
    key = _manifest_key(garbage.project, garbage.version)
    try:
        context.store.create(key, TOMBSTONE)
    except AlreadyExists:
        if not is_tombstone(context.store, key):
            raise StillReferenced(f"{garbage.version} was finished after the garbage was looked for") from None


def _manifest_key(project: str, version: str) -> str:
    return version_prefix(project, version) + MANIFEST


def _is_unfinished(context: PromotionContext, project: str, version: str, objects: VersionObjects) -> bool:
    """Without a manifest, or with the bar of a collection that died."""
    key = _manifest_key(project, version)
    return objects.sizes.get(key, len(TOMBSTONE)) == len(TOMBSTONE) and (
        key not in objects.sizes or is_tombstone(context.store, key)
    )


def _garbage(
    project: str, version: str, why: str, sizes: dict[str, int], retires: bool, unfinished: bool, standing: AuditEntry | None
) -> GcCandidate:
    planned = standing.sequence if standing else 0
    keys = tuple(sorted(key for key in sizes if not key.endswith("/" + MANIFEST)))
    return GcCandidate(project, version, why, keys, sum(sizes.values()), retires, unfinished, planned)


def _needed(standing: AuditEntry | None, entries: list[AuditEntry]) -> set[str | None]:
    spoken_of = {name for entry in entries for name in (entry.version, entry.previous)}
    return spoken_of | ({standing.champion} if standing else set())


def _logged(context: PromotionContext, project: str) -> set[str | None]:
    """Versions that the prediction log names: predictions/PROJECT/dt=DAY/VERSION/…"""
    keys = context.store.keys(f"predictions/{project}/")
    return {key.split("/")[3] for key in keys if key.count("/") >= 4}


def _objects(context: PromotionContext, project: str) -> dict[str, VersionObjects]:
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    youngest: dict[str, datetime] = {}
    for key, size, written in context.store.entries(f"versions/{project}/"):
        _, _, version, *names = key.split("/")
        if not names or not re.fullmatch(VERSION, version):
            continue
        sizes[version][key] = size
        youngest[version] = max(written, youngest.get(version, written))
    return {version: VersionObjects(sizes[version], youngest[version]) for version in sizes}

"""What came from a version or from a data snapshot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import entries_since
from podium.registry.retrain_record import read_retrain, retrain_dates
from podium.registry.signing import TrustPolicy
from podium.registry.versions import Manifest, list_versions, read_manifest
from podium.storage.object_store import NotFound, Store
from podium.storage.predictions import logged_promotions


@dataclass(slots=True)
class VersionLineage:
    """Where a version comes from, and what came from it.

    `promotions` are the audit-log entries that name it, and `logged` the number of its prediction files by day.
    """

    version: str
    snapshot: str
    source: str
    run: str
    parent: str | None
    children: list[str] = field(default_factory=list)
    retrains: list[str] = field(default_factory=list)
    promotions: list[str] = field(default_factory=list)
    logged: dict[str, int] = field(default_factory=dict)


def lineage(store: Store, trust: TrustPolicy, project: str, name: str = "") -> list[VersionLineage]:
    """Return the lineage of the versions of a project, or of one, or of those of a data snapshot (or the start of its digest).

    Raises NotFound if there is none, Unsigned, IntegrityError.
    """
    manifests = [read_manifest(store, project, version, trust.trainers.past)[0] for version in list_versions(store, project)]
    chosen = [each for each in manifests if name in ("", each.version) or str(each.data.get("sha256", "")).startswith(name)]
    if not chosen:
        raise NotFound(f'{project} has no version and no data snapshot "{name}"' if name else f"{project} has no versions")
    records = [read_retrain(store, project, day, trust.trainers.past) for day in retrain_dates(store, project)]
    entries, logged = entries_since(store, project, trust.promoters), logged_promotions(store, project)
    found = []
    for manifest in chosen:
        each = _origin(manifest)
        each.children = [other.version for other in manifests if other.parent == manifest.version]
        each.retrains = [record.date for record in records if record.version == manifest.version]
        each.promotions = [_event(entry) for entry in entries if entry.version == manifest.version]
        for entry in entries:
            if entry.champion == manifest.version:
                each.logged |= Counter(each.logged) + logged.get(entry.sequence, Counter())
        found.append(each)
    return found


def _origin(manifest: Manifest) -> VersionLineage:
    snapshot, source = (str(manifest.data.get(name, "")) for name in ("sha256", "url"))
    return VersionLineage(manifest.version, snapshot, source, manifest.run, manifest.parent)


def _event(entry: AuditEntry) -> str:
    return f"{entry.sequence}: {entry.action} by {entry.by} at {entry.at}"

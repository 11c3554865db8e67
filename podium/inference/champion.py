"""Load a project's champion outside the service, as the service does: verified, and validated in a child process."""

from __future__ import annotations

from podium.inference.served_model import ServedModel
from podium.registry.audit_entry import AuditEntry
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext
from podium.storage.object_store import StoreError


def champion_entry(context: PromotionContext, project: str) -> AuditEntry:
    """Return the audit-log entry of a project's champion. Raises StoreError if it has none."""
    entry = read_champion(context.store, project, context.trust.promoters)
    if entry is None or entry.champion is None:
        raise StoreError(f"{project} has no champion; promote a version with `podium models promote`")
    return entry


def load_served(context: PromotionContext, entry: AuditEntry) -> ServedModel:
    """Load the version that an audit-log entry made the champion, and close the validator. Raises StoreError."""
    assert entry.champion and entry.manifest_sha256
    version = entry.project, entry.champion, entry.manifest_sha256
    try:
        loaded = context.validator.load(*version, context.fetch, context.trust.trainers)
    finally:
        context.validator.close()
    return ServedModel.of(entry, loaded)


def load_champion(context: PromotionContext, project: str) -> ServedModel:
    """Load the champion of a project, and close the validator. Raises StoreError."""
    return load_served(context, champion_entry(context, project))

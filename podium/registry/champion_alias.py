"""The champion alias of a project: a copy of the last audit-log entry, updated by compare-and-set."""

from __future__ import annotations

import re

from podium.project import NAME
from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.signing import Unsigned, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import MAX_DOCUMENT_BYTES, AlreadyExists, Blob, NotFound, PreconditionFailed, Store, TooLarge

CHAMPION = "champion"


FOREIGN_ERRORS = (Unsigned, IntegrityError, TooLarge)


def alias_key(project: str) -> str:
    return f"aliases/{project}/{CHAMPION}.json"


def read_champion(store: Store, project: str, promoters: VerifyingKeys) -> AuditEntry | None:
    """Return the entry in the alias, or None if there never was a champion. Raises Unsigned, IntegrityError, TooLarge."""
    try:
        return parse_entry(read_document(store, alias_key(project)).data, project, promoters)
    except NotFound:
        return None


def alias_states(store: Store) -> dict[str, str]:
    """Return the ETag of each project's champion alias, from one listing."""
    states = {}
    for info in store.list_objects("aliases/"):
        project = info.key.removeprefix("aliases/").removesuffix(f"/{CHAMPION}.json")
        if re.fullmatch(NAME, project) and info.key == alias_key(project):
            states[project] = info.etag
    return states


def project_names(store: Store) -> list[str]:
    """Return the projects that have a champion."""
    return sorted(alias_states(store))


def read_alias(store: Store, project: str, promoters: VerifyingKeys) -> tuple[AuditEntry | None, bytes | None, str | None]:
    """Return the entry in the alias, its bytes and its ETag; only the ETag if the alias is foreign."""
    try:
        blob = read_document(store, alias_key(project))
    except NotFound:
        return None, None, None
    except TooLarge:
        return None, None, store.etag(alias_key(project))
    try:
        return parse_entry(blob.data, project, promoters), blob.data, blob.etag
    except FOREIGN_ERRORS:
        return None, None, blob.etag


def update_alias(store: Store, project: str, data: bytes, etag: str | None) -> None:
    """Compare and set: write the entry unless another process has updated the alias meanwhile."""
    try:
        if etag:
            store.replace(alias_key(project), data, etag)
        else:
            store.create(alias_key(project), data)
    except (PreconditionFailed, AlreadyExists):
        pass  # the alias already has this entry or a later one


def read_document(store: Store, key: str) -> Blob:
    """Return an alias or an entry. Raises NotFound, TooLarge."""
    return store.read(key, max_bytes=MAX_DOCUMENT_BYTES)

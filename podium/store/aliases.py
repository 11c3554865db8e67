"""Aliases: one small object that says which version is the champion, moved only from where it was seen."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from podium.store.s3 import Exists, Moved, NotThere, Store, StoreError
from podium.store.versions import Damaged, digest, read_manifest

CHAMPION = "champion"


class AliasMoved(StoreError):
    """Somebody else moved the alias first; the text says where it stands."""


class Alias(BaseModel):
    """Where an alias points, bound to the manifest's sha256; `sequence` counts its moves from 1."""

    model_config = ConfigDict(frozen=True)

    version: str
    manifest: str
    sequence: int
    previous: str | None
    at: str
    by: str
    reason: str


def alias_key(project: str, alias: str = CHAMPION) -> str:
    return f"aliases/{project}/{alias}.json"


def parse_alias(data: bytes) -> Alias:
    try:
        return Alias.model_validate_json(data)
    except ValidationError:
        raise Damaged("an alias object is not valid") from None


def read_alias(store: Store, project: str, alias: str = CHAMPION) -> tuple[Alias, str] | None:
    """The alias and its ETag, or None when it was never set."""
    try:
        blob = store.read(alias_key(project, alias))
    except NotThere:
        return None
    return parse_alias(blob.data), blob.etag


def promote(store: Store, project: str, version: str, expect: str | None, by: str, reason: str, now: datetime) -> Alias:
    """Move the champion from `expect` (None: never set) to a published version. Raises AliasMoved, NotPublished."""
    manifest = digest(read_manifest(store, project, version)[1])
    seen = read_alias(store, project)
    current = seen[0] if seen else None
    if current and current.version == version:
        return current
    if (current.version if current else None) != expect:
        raise AliasMoved(_lost(project, current, expect))
    sequence = current.sequence + 1 if current else 1
    alias = Alias(
        version=version, manifest=manifest, sequence=sequence, previous=expect, at=now.isoformat(), by=by, reason=reason
    )
    data = alias.model_dump_json(indent=1).encode()
    try:
        if seen:
            store.replace(alias_key(project), data, seen[1])
        else:
            store.create(alias_key(project), data)
    except (Moved, Exists):
        now_there = read_alias(store, project)
        raise AliasMoved(_lost(project, now_there[0] if now_there else None, expect)) from None
    return alias


def _lost(project: str, current: Alias | None, expect: str | None) -> str:
    stands = f"at {current.version} (move {current.sequence}, by {current.by})" if current else "unset"
    return f"the champion of {project} is {stands}, not at {expect or 'nothing'} as expected"


def project_names(store: Store) -> list[str]:
    """Projects that have a champion."""
    ending = f"/{CHAMPION}.json"
    return sorted(key.split("/")[1] for key in store.keys("aliases/") if key.endswith(ending) and key.count("/") == 2)

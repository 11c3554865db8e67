"""Who made what champion, when and why: a chain of signed entries, and the alias that repeats the last.

An entry is created under the next number, which only one writer can do; then the alias is brought to it. Whoever finds an
entry that the alias does not show yet, because its writer died, brings the alias there first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from podium.project import NAME
from podium.store.s3 import Exists, Moved, NotThere, Store, StoreError
from podium.store.signing import SIGNATURES, Keys, Signer
from podium.store.versions import Damaged, digest

CHAMPION = "champion"
ATTEMPTS = 200


class AliasMoved(StoreError):
    """Somebody else moved the champion first; the text says where it stands."""


class Retired(StoreError):
    """The files of this version were collected as garbage; its manifest and its part in the history remain."""


class Gate(BaseModel):
    """One condition of a promotion, whether it held, and the figures."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: str


class Entry(BaseModel):
    """One act: `version` is what it was about, `champion` and `manifest` (its sha256) what is in force after it.

    `previous` is the champion before, `before` the sha256 of the entry before, `evidence` the gates' findings, `request` a
    name by which who asked finds it again.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    project: str
    sequence: int
    action: Literal["promote", "rollback", "refuse", "retire"]
    version: str
    champion: str | None
    manifest: str | None
    previous: str | None
    by: str
    reason: str
    at: str
    forced: bool = False
    evidence: tuple[Gate, ...] = ()
    request: str = ""
    before: str | None
    signatures: dict[str, str] = {}

    @property
    def why(self) -> str:
        """The reason, and the gates that a version failed."""
        failed = "; ".join(f"{gate.name}: {gate.detail}" for gate in self.evidence if not gate.passed)
        return f"{self.reason} ({failed})" if failed else self.reason


def alias_key(project: str) -> str:
    return f"aliases/{project}/{CHAMPION}.json"


def entry_key(project: str, sequence: int) -> str:
    return f"history/{project}/{sequence:08d}.json"


def parse_entry(data: bytes, project: str, promoters: Keys) -> Entry:
    """Raises Unsigned, Damaged."""
    document = promoters.check(data, f"the champion of {project}")
    try:
        entry = Entry.model_validate(document)
    except ValidationError:
        raise Damaged(f"an entry of the history of {project} is not valid") from None
    if entry.project != project:
        raise Damaged(f"the history of {project} speaks of another project")
    return entry


def read_champion(store: Store, project: str, promoters: Keys) -> Entry | None:
    """What the alias says, or None when there never was a champion."""
    try:
        return parse_entry(store.read(alias_key(project)).data, project, promoters)
    except NotThere:
        return None


Draft = Callable[[Entry | None], dict[str, Any]]
"""From the last entry to the fields of the next; may raise AliasMoved."""


def append(store: Store, project: str, signer: Signer, promoters: Keys, draft: Draft) -> Entry:
    """Write the next entry and bring the alias to it. Raises what `draft` raises."""
    for _ in range(ATTEMPTS):
        head, data, etag = _head(store, project, promoters)
        fields = {"format": 1, "project": project, "sequence": head.sequence + 1 if head else 1, **draft(head)}
        fields["before"] = digest(data) if data else None
        document = Entry.model_validate(fields).model_dump(mode="json")
        written = _dump({**document, SIGNATURES: signer.sign(document)})
        try:
            store.create(entry_key(project, fields["sequence"]), written)
        except Exists:
            continue  # this number is somebody else's: look again
        _point(store, project, written, etag)
        return parse_entry(written, project, promoters)
    raise StoreError(f"the history of {project} is too busy; try again")


def repair(store: Store, project: str, promoters: Keys) -> Entry | None:
    """Bring the alias to the last entry, should its writer have died; returns that entry."""
    return _head(store, project, promoters)[0]


def _head(store: Store, project: str, promoters: Keys) -> tuple[Entry | None, bytes | None, str | None]:
    """The last entry, its bytes, and the ETag of the alias that shows it."""
    while True:
        try:
            blob = store.read(alias_key(project))
        except NotThere:
            blob = None
        entry = parse_entry(blob.data, project, promoters) if blob else None
        try:
            following = store.read(entry_key(project, entry.sequence + 1 if entry else 1)).data
        except NotThere:
            return entry, blob.data if blob else None, blob.etag if blob else None
        parse_entry(following, project, promoters)
        _point(store, project, following, blob.etag if blob else None)


def _point(store: Store, project: str, data: bytes, etag: str | None) -> None:
    try:
        if etag:
            store.replace(alias_key(project), data, etag)
        else:
            store.create(alias_key(project), data)
    except (Moved, Exists):
        pass  # somebody saw the entry and brought the alias there, or further


def read_history(store: Store, project: str) -> list[tuple[str, bytes]]:
    """Every entry's key and bytes, in order."""
    return [(key, store.read(key).data) for key in store.keys(f"history/{project}/")]


def entries_since(store: Store, project: str, promoters: Keys, after: int = 0, upto: int | None = None) -> list[Entry]:
    """The entries of these numbers, in order. Raises Unsigned, Damaged."""
    keys = [key for key in store.keys(f"history/{project}/") if entry_key(project, after) < key]
    if upto is not None:
        keys = [key for key in keys if key <= entry_key(project, upto)]
    return [parse_entry(store.read(key).data, project, promoters) for key in keys]


def retired_versions(entries: Iterable[Entry]) -> set[str]:
    return {entry.version for entry in entries if entry.action == "retire"}


def check_history(store: Store, project: str, promoters: Keys) -> list[str]:
    """What is wrong with the chain, in words; empty when every entry is there, signed, unchanged and in its place."""
    wrong, before = [], None
    entries = read_history(store, project)
    for number, (key, data) in enumerate(entries, 1):
        try:
            entry = parse_entry(data, project, promoters)
        except StoreError as error:
            wrong.append(f"{key}: {error}")
        else:
            if key != entry_key(project, number) or entry.sequence != number:
                wrong.append(f"{key}: number {number} was expected here")
            if entry.before != before:
                wrong.append(f"{key}: does not follow the entry before it")
        before = digest(data)
    try:
        alias = store.read(alias_key(project)).data
    except NotThere:
        alias = None
    last = entries[-1][1] if entries else None
    if alias != last:
        wrong.append(f"{alias_key(project)}: does not show the last entry of the history")
    return wrong


def alias_states(store: Store) -> dict[str, str]:
    """The ETag of each champion alias by project, from one listing; keys that name no valid project are left out."""
    return {key.split("/")[1]: etag for key, etag in store.etags("aliases/") if _is_alias(key)}


def _is_alias(key: str) -> bool:
    _, _, rest = key.partition("/")
    project, _, file = rest.partition("/")
    return file == f"{CHAMPION}.json" and bool(re.fullmatch(NAME, project))


def project_names(store: Store) -> list[str]:
    """Projects that have a champion."""
    return sorted(alias_states(store))


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode()

"""Who made what champion, when and why: a chain of signed entries, and the alias that repeats the last.

An entry is created under the next number, which only one writer can do; then the alias is brought to it. Whoever finds an
entry that the alias does not show yet, because its writer died, brings the alias there first.

An object of the history that is no signed entry, or does not follow the last one, is foreign: it is skipped, `check_history`
reports it, and the next entry takes the next free number. An alias that is not signed is replaced from the history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from podium.project import NAME
from podium.registry.signing import SIGNATURES, Signer, Unsigned, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import (
    MAX_DOCUMENT_BYTES,
    AlreadyExists,
    Blob,
    NotFound,
    PreconditionFailed,
    Store,
    StoreError,
    TooLarge,
    digest,
)

CHAMPION = "champion"
ATTEMPTS = 200
MAX_FOREIGN = 1000
"""More foreign objects in a row than this stop a promotion."""


class AliasMoved(StoreError):
    """Somebody else moved the champion first; the text says where it stands."""


class Retired(StoreError):
    """The files of this version were collected as garbage; its manifest and its part in the history remain."""


FOREIGN_FIELDS = (Unsigned, IntegrityError, TooLarge)


MAX_DETAIL = 2000
"""Letters of a finding: what a version brings along must not make an entry too large to read."""


class GateResult(BaseModel):
    """One condition of a promotion, whether it held, and the figures."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: Annotated[str, BeforeValidator(lambda text: text[:MAX_DETAIL].encode(errors="replace").decode())]


class AuditEntry(BaseModel):
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
    evidence: tuple[GateResult, ...] = ()
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


def parse_entry(data: bytes, project: str, promoters: VerifyingKeys) -> AuditEntry:
    """Raises Unsigned, Damaged."""
    document = promoters.check(data, f"the champion of {project}")
    try:
        entry = AuditEntry.model_validate(document)
    except ValidationError:
        raise IntegrityError(f"an entry of the history of {project} is not valid") from None
    if entry.project != project:
        raise IntegrityError(f"the history of {project} speaks of another project")
    return entry


def read_champion(store: Store, project: str, promoters: VerifyingKeys) -> AuditEntry | None:
    """What the alias says, or None when there never was a champion. Raises Unsigned, Damaged, TooLarge."""
    try:
        return parse_entry(_read(store, alias_key(project)).data, project, promoters)
    except NotFound:
        return None


def _read(store: Store, key: str) -> Blob:
    return store.read(key, max_bytes=MAX_DOCUMENT_BYTES)


EntryBuilder = Callable[[AuditEntry | None], dict[str, Any]]
"""From the last entry to the fields of the next; may raise AliasMoved."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry with its bytes, the number after it that is free, the alias's ETag, and whether it shows the entry."""

    entry: AuditEntry | None
    data: bytes | None
    free: int
    etag: str | None
    shown: bool


def append(store: Store, project: str, signer: Signer, promoters: VerifyingKeys, draft: EntryBuilder) -> AuditEntry:
    """Write the next entry and bring the alias to it. Raises what `draft` raises."""
    for _ in range(ATTEMPTS):
        head = _shown_head(store, project, promoters)
        fields = {"format": 1, "project": project, "sequence": head.free, **draft(head.entry)}
        fields["before"] = _digest(head.data)
        document = AuditEntry.model_validate(fields).model_dump(mode="json")
        written = _dump({**document, SIGNATURES: signer.sign(document)})
        if len(written) > MAX_DOCUMENT_BYTES:
            raise StoreError(f"the next entry of the history of {project} would be too large: shorten the reason")
        try:
            store.create(entry_key(project, head.free), written)
        except AlreadyExists:
            continue  # this number is somebody else's: look again
        _advance_alias(store, project, written, head.etag)
        return parse_entry(written, project, promoters)
    raise StoreError(f"the history of {project} is too busy; try again")


def finish_alias_update(store: Store, project: str, promoters: VerifyingKeys) -> AuditEntry | None:
    """Bring the alias to the last entry, should its writer have died; returns that entry."""
    return _shown_head(store, project, promoters).entry


def _shown_head(store: Store, project: str, promoters: VerifyingKeys) -> Head:
    while True:
        head = _find_head(store, project, promoters)
        if head.shown or head.data is None:
            return head
        _advance_alias(store, project, head.data, head.etag)


def _find_head(store: Store, project: str, promoters: VerifyingKeys) -> Head:
    """From the entry that the alias shows, or else from the first, to the last."""
    entry, data, etag = _shown(store, project, promoters)
    shown, number, foreign = data, entry.sequence + 1 if entry else 1, 0
    while foreign <= MAX_FOREIGN:
        try:
            found = _read(store, entry_key(project, number)).data
            entry, data, foreign = _following(found, project, number, promoters, _digest(data)), found, 0
        except NotFound:
            return Head(entry, data, number, etag, data == shown)
        except FOREIGN_FIELDS:
            foreign += 1
        number += 1
    raise StoreError(
        f"history/{project}/ has more than {MAX_FOREIGN} foreign objects in a row: `podium fsck` lists them; delete them"
    )


def _shown(store: Store, project: str, promoters: VerifyingKeys) -> tuple[AuditEntry | None, bytes | None, str | None]:
    """The entry of the alias, its bytes and its ETag; without an entry if the alias is foreign."""
    try:
        blob = _read(store, alias_key(project))
    except NotFound:
        return None, None, None
    except TooLarge:
        return None, None, store.etag(alias_key(project))
    try:
        return parse_entry(blob.data, project, promoters), blob.data, blob.etag
    except FOREIGN_FIELDS:
        return None, None, blob.etag


def _following(data: bytes, project: str, number: int, promoters: VerifyingKeys, before: str | None) -> AuditEntry:
    """The entry of this number if it follows the one with the digest `before`. Raises Unsigned, Damaged."""
    entry = parse_entry(data, project, promoters)
    if entry.sequence != number:
        raise IntegrityError(f"number {number} was expected here")
    if entry.before != before:
        raise IntegrityError("does not follow the entry before it")
    return entry


def _digest(data: bytes | None) -> str | None:
    return digest(data) if data else None


def _advance_alias(store: Store, project: str, data: bytes, etag: str | None) -> None:
    try:
        if etag:
            store.replace(alias_key(project), data, etag)
        else:
            store.create(alias_key(project), data)
    except (PreconditionFailed, AlreadyExists):
        pass  # somebody saw the entry and brought the alias there, or further


def read_history(store: Store, project: str) -> list[tuple[str, bytes]]:
    """The key and bytes of every object of the history, in order; an object larger than any entry comes without bytes."""
    return [(key, _small(store, key)) for key in store.keys(f"history/{project}/")]


def _small(store: Store, key: str) -> bytes:
    try:
        return _read(store, key).data
    except TooLarge:
        return b""


def entries_since(
    store: Store, project: str, promoters: VerifyingKeys, after: int = 0, upto: int | None = None
) -> list[AuditEntry]:
    """The entries of these numbers, in order, without foreign objects. Raises Damaged if one that followed others is gone."""
    last = _find_head(store, project, promoters)
    head = last.entry.sequence if last.entry else 0
    end = head if upto is None else min(upto, head)
    before = _digest(_read(store, entry_key(project, after)).data) if 0 < after < end else None
    found: list[AuditEntry] = []
    for number in _numbers(store, project, after, end):
        data = _small(store, entry_key(project, number))
        try:
            found.append(_following(data, project, number, promoters, before))
            before = digest(data)
        except FOREIGN_FIELDS:
            continue
    if end == head and after < end and before != _digest(last.data):
        raise IntegrityError(f"the history of {project} is not whole: `podium models verify {project}` says where")
    return found


def _numbers(store: Store, project: str, after: int, end: int) -> list[int]:
    """The numbers of the objects that may be entries, in order."""
    names = (key.removeprefix(f"history/{project}/") for key in store.keys(f"history/{project}/"))
    numbers = [int(name[:8]) for name in names if re.fullmatch(r"[0-9]{8}\.json", name)]
    return [number for number in numbers if after < number <= end]


def retired_versions(entries: Iterable[AuditEntry]) -> set[str]:
    return {entry.version for entry in entries if entry.action == "retire"}


def check_history(store: Store, project: str, promoters: VerifyingKeys) -> list[str]:
    """What is wrong with the chain, in words; empty when every object is an entry, signed, unchanged and in its place."""
    wrong, last, number = [], None, 0
    for key, data in read_history(store, project):
        name = key.rpartition("/")[2].removesuffix(".json")
        try:
            number = int(name) if name.isdecimal() and key == entry_key(project, int(name)) else -1
            _following(data, project, number, promoters, _digest(last))
            last = data
        except FOREIGN_FIELDS as error:
            wrong.append(f"{key}: {error}")
    try:
        alias = _small(store, alias_key(project))
    except NotFound:
        alias = None
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

"""The audit log of a project, and the champion alias that repeats its last entry.

Each entry is created under the next number, which only one writer can take; then the alias is updated. If a writer crashes
in between, the next one updates the alias first.

An object in the log that is not a signed entry, or does not follow the last one, is foreign. Foreign objects are skipped and
reported by `check_history`; the next entry takes the next free number. An unsigned alias is restored from the log.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from podium.registry.audit_entry import AuditEntry, parse_entry, parse_next_entry, parse_numbered_entry
from podium.registry.champion_alias import FOREIGN_ERRORS, alias_key, read_alias, read_document, update_alias
from podium.registry.signing import SIGNATURES, Signer, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import (
    MAX_DOCUMENT_BYTES,
    AlreadyExists,
    NotFound,
    Store,
    StoreError,
    TooLarge,
    digest,
)

MAX_ATTEMPTS = 200
MAX_FOREIGN = 1000
"""Maximum number of consecutive foreign objects that a promotion skips."""


class AliasMoved(StoreError):
    """Another process changed the champion first; the message names the current one."""


class Retired(StoreError):
    """The files of this version were deleted by garbage collection; its manifest and audit-log entries remain."""


EntryBuilder = Callable[[AuditEntry | None], dict[str, Any]]
"""Returns the fields of the next entry, given the last one. May raise AliasMoved."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry with its bytes, the next free number, and the state of the alias."""

    entry: AuditEntry | None
    data: bytes | None
    next_sequence: int
    alias_etag: str | None
    alias_is_current: bool


def log_prefix(project: str) -> str:
    return f"history/{project}/"


def entry_key(project: str, sequence: int) -> str:
    return f"{log_prefix(project)}{sequence:08d}.json"


def append(store: Store, project: str, signer: Signer, promoters: VerifyingKeys, build: EntryBuilder) -> AuditEntry:
    """Write the next entry and update the alias. Raises StoreError and any error that `build` raises."""
    for _ in range(MAX_ATTEMPTS):
        head = _synced_head(store, project, promoters)
        fields = {"format": 1, "project": project, "sequence": head.next_sequence, **build(head.entry)}
        fields["previous_entry"] = _digest(head.data)
        document = AuditEntry.model_validate(fields).model_dump(mode="json")
        data = json.dumps({**document, SIGNATURES: signer.sign(document)}, indent=1, ensure_ascii=False).encode()
        if len(data) > MAX_DOCUMENT_BYTES:
            raise StoreError(f"the next audit-log entry of {project} is too large: shorten the reason")
        try:
            store.create(entry_key(project, head.next_sequence), data)
        except AlreadyExists:
            continue  # another writer took this number
        update_alias(store, project, data, head.alias_etag)
        return parse_entry(data, project, promoters)
    raise StoreError(f"too many concurrent changes in the audit log of {project}; try again")


def finish_alias_update(store: Store, project: str, promoters: VerifyingKeys) -> AuditEntry | None:
    """Return the last entry, after updating the alias if a writer crashed before doing so."""
    return _synced_head(store, project, promoters).entry


def read_history(store: Store, project: str) -> list[tuple[str, bytes]]:
    """Return the key and bytes of every object in the log, in order; empty bytes for objects larger than any entry."""
    return [(info.key, _read_small(store, info.key)) for info in store.list_objects(log_prefix(project))]


def entries_since(
    store: Store, project: str, promoters: VerifyingKeys, after: int = 0, upto: int | None = None
) -> list[AuditEntry]:
    """Return the entries with numbers from `after` + 1 to `upto`, in order; foreign objects are skipped.

    Raises IntegrityError if the chain of entries is broken.
    """
    head = _find_head(store, project, promoters)
    if head.entry is None or head.data is None or head.entry.sequence <= after:
        return []
    entries = _signed_entries(store, project, promoters.past, after)
    chain, start = _chain(entries, digest(head.data))
    first = _digest(read_document(store, entry_key(project, after)).data) if after else None
    if not chain or start != first:
        raise IntegrityError(f"the audit log of {project} is incomplete: run `podium models verify {project}` for details")
    return [entry for entry in chain if upto is None or entry.sequence <= upto]


def _signed_entries(store: Store, project: str, promoters: VerifyingKeys, after: int = 0) -> dict[str, AuditEntry]:
    """Return the entries with numbers above `after` by their digests, whether or not they follow each other."""
    entries = {}
    for number in _entry_numbers(store, project):
        if number > after:
            data = _read_small(store, entry_key(project, number))
            with contextlib.suppress(*FOREIGN_ERRORS):
                entries[digest(data)] = parse_numbered_entry(data, project, number, promoters)
    return entries


def _chain(entries: Mapping[str, AuditEntry], last: str) -> tuple[list[AuditEntry], str | None]:
    """Return the entries up to the one with digest `last`, in order, and the digest of the one before them."""
    chain, wanted = list[AuditEntry](), last
    while wanted in entries:
        chain.append(entries[wanted])
        if (wanted := chain[-1].previous_entry or "") == "":
            return chain[::-1], None
    return chain[::-1], wanted


def retired_versions(entries: Iterable[AuditEntry]) -> set[str]:
    return {entry.version for entry in entries if entry.action == "retire"}


def check_history(store: Store, project: str, promoters: VerifyingKeys) -> list[str]:
    """Return a message for each object that is unsigned, changed or out of order, and for an outdated alias."""
    head, errors, last = _find_head(store, project, promoters), [], None
    chain, start = _chain(_signed_entries(store, project, promoters.past), _digest(head.data) or "")
    numbers = {entry.sequence for entry in chain}
    if start:
        errors.append(f"{log_prefix(project)}: an entry that others follow is missing or changed")
    for key, data in read_history(store, project):
        name = key.rpartition("/")[2].removesuffix(".json")
        number = int(name) if name.isdecimal() and key == entry_key(project, int(name)) else -1
        if number in numbers:
            last = data
            continue
        try:
            parse_next_entry(data, project, number, promoters, _digest(last))
            last = data
        except FOREIGN_ERRORS as error:
            errors.append(f"{key}: {error}")
    try:
        alias = _read_small(store, alias_key(project))
    except NotFound:
        alias = None
    if alias != head.data:
        errors.append(f"{alias_key(project)}: differs from the last audit-log entry")
    return errors


def _synced_head(store: Store, project: str, promoters: VerifyingKeys) -> Head:
    while True:
        head = _find_head(store, project, promoters)
        if head.alias_is_current or head.data is None:
            return head
        update_alias(store, project, head.data, head.alias_etag)


def _find_head(store: Store, project: str, promoters: VerifyingKeys) -> Head:
    """Read the log up to the last entry, starting at the entry in the alias, or at the last whole chain if it is foreign."""
    entry, alias, etag = read_alias(store, project, promoters)
    data = alias
    if entry is None:
        entry, data = _last_of_a_chain(store, project, promoters)
    number, foreign = entry.sequence + 1 if entry else 1, 0
    while foreign <= MAX_FOREIGN:
        try:
            candidate = read_document(store, entry_key(project, number)).data
            entry, data = parse_next_entry(candidate, project, number, promoters, _digest(data)), candidate
            foreign = 0
        except NotFound:
            return Head(entry, data, number, etag, data == alias)
        except FOREIGN_ERRORS:
            foreign += 1
        number += 1
    raise StoreError(
        f"{log_prefix(project)} has more than {MAX_FOREIGN} consecutive foreign objects: list them with `podium fsck` and "
        "delete them"
    )


def _last_of_a_chain(store: Store, project: str, promoters: VerifyingKeys) -> tuple[AuditEntry | None, bytes | None]:
    """Return the last entry that an accepted key signed and that all entries before it lead to."""
    entries = _signed_entries(store, project, promoters.past)
    for last, entry in reversed(entries.items()):
        data = _read_small(store, entry_key(project, entry.sequence))
        with contextlib.suppress(*FOREIGN_ERRORS):
            if _chain(entries, last)[1] is None and digest(data) == last:
                return parse_entry(data, project, promoters), data
    return None, None


def _entry_numbers(store: Store, project: str) -> list[int]:
    """Return the numbers of the objects that may be entries, in order."""
    names = (info.key.removeprefix(log_prefix(project)) for info in store.list_objects(log_prefix(project)))
    return [int(name[:8]) for name in names if re.fullmatch(r"[0-9]{8}\.json", name)]


def _read_small(store: Store, key: str) -> bytes:
    """Return the bytes of an object, or empty bytes if it is larger than any entry."""
    try:
        return read_document(store, key).data
    except TooLarge:
        return b""


def _digest(data: bytes | None) -> str | None:
    return digest(data) if data else None

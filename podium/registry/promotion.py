"""Promotion and rollback: judged, written to the history, then in force."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from podium.models.golden_rows import GOLDEN
from podium.models.metrics import UnknownMetric
from podium.project import PromotionRules
from podium.registry.audit_log import (
    AliasMoved,
    AuditEntry,
    EntryBuilder,
    GateResult,
    Retired,
    append,
    entries_since,
    finish_alias_update,
    retired_versions,
)
from podium.registry.gates import evaluate_gates
from podium.registry.identity import four_eyes
from podium.registry.loading import LoadedVersion
from podium.registry.signing import Signer, TrustPolicy
from podium.registry.validation import Validator
from podium.registry.versions import GOLDEN_FILE, TEST_FILE, Fetch, IntegrityError, Manifest, read_file, read_manifest
from podium.storage.object_store import Store, StoreError, TooLarge, digest
from podium.tables.labeled_rows import UnreadableRows, labeled_rows_from_parquet

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class GateFailed(StoreError):
    """The version may not serve; the entry in the history says why."""

    def __init__(self, entry: AuditEntry) -> None:
        self.entry = entry
        super().__init__("; ".join(f"{gate.name}: {gate.detail}" for gate in entry.evidence if not gate.passed))


class NoPreviousChampion(StoreError):
    """There is no version to go back to."""


class StillReferenced(StoreError):
    """The version is in use again."""


@dataclass(frozen=True, slots=True)
class PromotionContext:
    """Where promotions are made: the store, whom it believes, who acts, how files are fetched, and by which rules.

    `rules` are the promoter's own, by project; a version's manifest cannot change them.
    """

    store: Store
    trust: TrustPolicy
    signer: Signer
    by: str
    fetch: Fetch
    validator: Validator = field(default_factory=Validator)
    rules: Callable[[str], PromotionRules] = lambda project: PromotionRules()


ANY_CHAMPION = "*"
"""Expect whatever serves now."""
MAX_TEST_BYTES = 1 << 30
PROMOTE_ATTEMPTS = 5
"""So often another promotion may come first."""


def promote(
    context: PromotionContext,
    project: str,
    version: str,
    reason: str,
    now: Clock,
    *,
    expect: str | None = ANY_CHAMPION,
    force: bool = False,
    dry: bool = False,
    request: str = "",
) -> AuditEntry:
    """Judge a version and make it the champion; a refusal is written down as well.

    `expect` is the champion that must serve now (None: none ever did). `force` goes past failed gates and says so in the
    entry; `dry` judges and writes nothing. Raises NotPublished, Unsigned, AliasMoved, GateFailed.
    """
    _, data = read_manifest(context.store, project, version, context.trust.trainers)
    sha256 = digest(data)
    standing = finish_alias_update(context.store, project, context.trust.promoters)
    if expect == ANY_CHAMPION:
        expect = standing.champion if standing else None
    _expected(project, standing, expect, version)
    if standing and standing.champion == version:
        return standing
    _not_retired(context, project, version)
    evidence = tuple(_evidence(context, project, version, sha256, standing))
    passed = all(gate.passed for gate in evidence)
    fields: dict[str, Any] = {"version": version, "by": context.by, "reason": reason, "evidence": evidence, "request": request}

    def accepted(head: AuditEntry | None) -> dict[str, Any]:
        _not_retired(context, project, version, standing, head)
        _expected(project, head, expect, version)
        if head and head.champion == version:
            raise AliasMoved(f"{version} is the champion of {project} already, since number {head.sequence}, by {head.by}")
        act = {"action": "promote", "champion": version, "manifest": sha256, "previous": expect, "forced": not passed}
        return {**fields, **act, "at": now().isoformat()}

    def refused(head: AuditEntry | None) -> dict[str, Any]:
        return {**fields, "action": "refuse", **_unchanged(head), "at": now().isoformat()}

    draft: EntryBuilder = accepted if passed or force else refused
    entry = _write(context, project, draft, standing, dry)
    if entry.action == "refuse":
        raise GateFailed(entry)
    return entry


def promote_with_retries(context: PromotionContext, project: str, version: str, reason: str, now: Clock) -> AuditEntry:
    """Promote, judged anew against the new champion when another promotion comes first. Raises AliasMoved after RACES."""
    for _ in range(PROMOTE_ATTEMPTS - 1):
        with contextlib.suppress(AliasMoved):
            return promote(context, project, version, reason, now)
    return promote(context, project, version, reason, now)


def rollback(
    context: PromotionContext,
    project: str,
    reason: str,
    now: Clock,
    *,
    to: str | None = None,
    expect: str | None = ANY_CHAMPION,
    dry: bool = False,
    request: str = "",
) -> AuditEntry:
    """Go back to the version that served before the present one was promoted, or to any that served.

    Needs the store only. `dry` loads what it would go back to and writes nothing. `request` names the wish, so that who asks
    again can find what became of it. Raises NothingBefore, AliasMoved, Damaged, Unsigned.
    """
    standing = finish_alias_update(context.store, project, context.trust.promoters)
    if standing is None or standing.champion is None:
        raise NoPreviousChampion(f"{project} never had a champion")
    if expect == ANY_CHAMPION:
        expect = standing.champion
    _stands(project, standing, expect)
    goal = _before(context, project, standing.champion) if to is None else _served(context, project, to, standing.champion)
    _not_retired(context, project, goal)
    _, data = read_manifest(context.store, project, goal, context.trust.trainers)
    context.validator.load(project, goal, digest(data), context.fetch, context.trust.trainers)

    def draft(head: AuditEntry | None) -> dict[str, Any]:
        _not_retired(context, project, goal, standing, head)
        _stands(project, head, expect)
        act = {"version": goal, "champion": goal, "manifest": digest(data), "previous": expect}
        return {"action": "rollback", **act, "by": context.by, "reason": reason, "at": now().isoformat(), "request": request}

    return _write(context, project, draft, standing, dry)


def _write(context: PromotionContext, project: str, draft: EntryBuilder, standing: AuditEntry | None, dry: bool) -> AuditEntry:
    """The next entry; a dry one is as it would be now, unsigned, and is not written."""
    if not dry:
        return append(context.store, project, context.signer, context.trust.promoters, draft)
    head = {"project": project, "sequence": standing.sequence + 1 if standing else 1, "before": None}
    return AuditEntry.model_validate({**head, **draft(standing)})


def retire(context: PromotionContext, project: str, version: str, reason: str, now: Clock, planned: int) -> AuditEntry:
    """Write down that a version's files will be deleted; from then on nobody can promote it.

    `planned` is the number of the last entry that was looked at. Raises StillNeeded if a later one speaks of the version: the
    chain of numbers decides who was first, this or a promotion.
    """

    def draft(head: AuditEntry | None) -> dict[str, Any]:
        later = entries_since(context.store, project, context.trust.promoters, planned, head.sequence) if head else []
        if any(version in (entry.version, entry.champion, entry.previous) for entry in later):
            raise StillReferenced(f"{version} was spoken of again after the garbage was looked for")
        return {
            "action": "retire",
            "version": version,
            **_unchanged(head),
            "by": context.by,
            "reason": reason,
            "at": now().isoformat(),
        }

    return append(context.store, project, context.signer, context.trust.promoters, draft)


def _not_retired(
    context: PromotionContext, project: str, version: str, seen: AuditEntry | None = None, head: AuditEntry | None = None
) -> None:
    """By the whole history, or by what was added to it since `seen`. Raises Retired."""
    if seen and head and seen.sequence == head.sequence:
        return
    entries = entries_since(context.store, project, context.trust.promoters, seen.sequence if seen else 0)
    if version in retired_versions(entries):
        raise Retired(f"the files of {version} were collected as garbage: train or import it again")


def _served(context: PromotionContext, project: str, version: str, champion: str) -> str:
    """A version that served and does not now. Raises NothingBefore."""
    entries = entries_since(context.store, project, context.trust.promoters)
    if version == champion or version not in {entry.champion for entry in entries}:
        raise NoPreviousChampion(
            f"{version} {'serves now' if version == champion else f'never served {project}'}: nothing to go back to"
        )
    return version


def _stands(project: str, head: AuditEntry | None, expect: str | None) -> None:
    """Raises AliasMoved unless the champion is the expected one."""
    if (head.champion if head else None) != expect:
        _expected(project, head, expect, None)


def _before(context: PromotionContext, project: str, champion: str) -> str:
    """The version that the champion followed when it was last promoted."""
    entries = entries_since(context.store, project, context.trust.promoters)
    promoted = [entry for entry in entries if entry.action == "promote" and entry.champion == champion]
    if not promoted or promoted[-1].previous is None:
        raise NoPreviousChampion(f"{champion} is the first champion of {project}")
    return promoted[-1].previous


def _expected(project: str, head: AuditEntry | None, expect: str | None, version: str | None) -> None:
    """Raises AliasMoved unless the champion is the expected one, or the wanted one already."""
    champion = head.champion if head else None
    if champion != expect and (champion is None or champion != version):
        stands = f"{champion} since number {head.sequence}, by {head.by}" if head else "unset"
        raise AliasMoved(f"the champion of {project} is {stands}, not {expect or 'unset'} as expected")


def _unchanged(head: AuditEntry | None) -> dict[str, Any]:
    if head is None:
        return {"champion": None, "manifest": None, "previous": None}
    return {"champion": head.champion, "manifest": head.manifest, "previous": head.previous}


def _evidence(
    context: PromotionContext, project: str, version: str, sha256: str, standing: AuditEntry | None
) -> list[GateResult]:
    """The gates' findings; a version that cannot be loaded has one finding, that it cannot."""
    trainers = context.trust.trainers
    try:
        loaded = context.validator.load(project, version, sha256, context.fetch, trainers)
    except StoreError as error:
        return [GateResult(name="loads", passed=False, detail=str(error))]
    champion, found = _champion(context, project, standing)
    rules = context.rules(project)
    if rules.gates.four_eyes:
        found.append(four_eyes(loaded.manifest, context.trust.trainers, context.by, context.signer))
    try:
        golden = GOLDEN.validate_json(read_file(loaded.manifest, GOLDEN_FILE, context.fetch))
        test = labeled_rows_from_parquet(_test_rows(loaded.manifest, context.fetch))
        return found + evaluate_gates(loaded, golden, champion, test, rules)
    except (UnreadableRows, IntegrityError, TooLarge, UnknownMetric) as error:
        return [*found, GateResult(name="test-rows", passed=False, detail=str(error))]


def _test_rows(manifest: Manifest, fetch: Fetch) -> bytes:
    """Raises Damaged, TooLarge."""
    bound = manifest.files.get(TEST_FILE)
    if bound and bound.size > MAX_TEST_BYTES:
        raise TooLarge(f"{TEST_FILE} has {bound.size} bytes, at most {MAX_TEST_BYTES} are read to judge a version")
    return read_file(manifest, TEST_FILE, fetch)


def _champion(
    context: PromotionContext, project: str, standing: AuditEntry | None
) -> tuple[LoadedVersion | None, list[GateResult]]:
    """The champion to compare with; one that cannot be loaded any more must not keep its successor out."""
    if standing is None or standing.champion is None or standing.manifest is None:
        return None, []
    try:
        return context.validator.load(project, standing.champion, standing.manifest, context.fetch, context.trust.trainers), []
    except StoreError as error:
        return None, [
            GateResult(name="champion", passed=True, detail=f"nothing to compare with, as it cannot be loaded: {error}")
        ]

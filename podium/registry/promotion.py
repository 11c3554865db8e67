"""Promotion, rollback and retirement: evaluate the gates, write an audit-log entry, update the alias."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from podium.models.golden_rows import GOLDEN
from podium.models.metrics import UnknownMetric
from podium.project import PromotionRules
from podium.registry.actors import four_eyes
from podium.registry.audit_entry import AuditEntry, GateResult
from podium.registry.audit_log import (
    AliasMoved,
    EntryBuilder,
    Retired,
    append,
    entries_since,
    finish_alias_update,
    retired_versions,
)
from podium.registry.comparison import read_evaluation_rows
from podium.registry.gates import evaluate_gates
from podium.registry.loading import LoadedVersion
from podium.registry.signing import Signer, TrustPolicy
from podium.registry.validation import Validator
from podium.registry.versions import GOLDEN_FILE, Fetch, IntegrityError, read_file, read_manifest
from podium.storage.object_store import Store, StoreError, TooLarge, digest
from podium.tables.labeled_rows import UnreadableRows

Clock = Callable[[], datetime]

ANY_CHAMPION = "*"
"""Value of `expect` that accepts any current champion."""
PROMOTE_ATTEMPTS = 5
"""Maximum attempts when other promotions compete with this one."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class GateFailed(StoreError):
    """The version failed a gate and was not promoted; the entry has the details."""

    def __init__(self, entry: AuditEntry) -> None:
        self.entry = entry
        super().__init__("; ".join(map(str, entry.failed_gates)))


class NoPreviousChampion(StoreError):
    """There is no version to roll back to."""


class StillReferenced(StoreError):
    """The version was referenced again after garbage collection was planned."""


@dataclass(frozen=True, slots=True)
class PromotionContext:
    """Everything a promotion needs: store, trusted keys, signer, actor, file fetcher, validator and rules.

    `rules` returns the promoter's own rules for a project. A version's manifest cannot change them.
    """

    store: Store
    trust: TrustPolicy
    signer: Signer
    by: str
    fetch: Fetch
    validator: Validator = field(default_factory=Validator)
    rules: Callable[[str], PromotionRules] = lambda project: PromotionRules()
    replay: Callable[[Store, LoadedVersion, float], GateResult] | None = None
    """Compares a version's answers with logged ones, for the gate `max_changed`."""

    def current(self, project: str) -> AuditEntry | None:
        """Return the last audit-log entry of a project."""
        return finish_alias_update(self.store, project, self.trust.promoters)

    def entries(self, project: str, after: int = 0, upto: int | None = None) -> list[AuditEntry]:
        """Return the audit-log entries with numbers from `after` + 1 to `upto`. Raises IntegrityError."""
        return entries_since(self.store, project, self.trust.promoters, after, upto)

    def load(self, project: str, version: str, sha256: str) -> LoadedVersion:
        """Validate and load the version whose manifest has this digest. Raises StoreError."""
        return self.validator.load(project, version, sha256, self.fetch, self.trust.trainers)

    def append(self, project: str, build: EntryBuilder) -> AuditEntry:
        """Write the next audit-log entry. Raises StoreError and any error that `build` raises."""
        return append(self.store, project, self.signer, self.trust.promoters, build)


def promote(
    context: PromotionContext,
    project: str,
    version: str,
    reason: str,
    now: Clock,
    *,
    expect: str | None = ANY_CHAMPION,
    force: bool = False,
    dry_run: bool = False,
    request: str = "",
) -> AuditEntry:
    """Evaluate the gates of a version and make it the champion; a rejection is recorded too.

    `expect` is the version that must be the champion now (None: there must never have been one). `force` promotes despite
    failed gates and records that. `dry_run` evaluates the gates but writes nothing. `request` is an idempotency key.

    Raises NotPublished, Unsigned, Retired, AliasMoved, GateFailed.
    """
    _, data = read_manifest(context.store, project, version, context.trust.trainers)
    sha256 = digest(data)
    current = context.current(project)
    if expect == ANY_CHAMPION:
        expect = current.champion if current else None
    if current and current.champion == version:
        return current
    _check_champion(project, current, expect)
    _check_not_retired(context, project, version)
    evidence = tuple(_evaluate(context, project, version, sha256, current))
    passed = all(gate.passed for gate in evidence)
    event: dict[str, Any] = {"version": version, "by": context.by, "reason": reason, "evidence": evidence, "request": request}

    def build_promotion(head: AuditEntry | None) -> dict[str, Any]:
        _check_not_retired(context, project, version, current, head)
        if head and head.champion == version:
            raise AliasMoved(f"{version} is already the champion of {project} (entry {head.sequence}, by {head.by})")
        _check_champion(project, head, expect)
        outcome = {"champion": version, "manifest_sha256": sha256, "previous": expect, "forced": not passed}
        return {**event, "action": "promote", **outcome, "at": now().isoformat()}

    def build_rejection(head: AuditEntry | None) -> dict[str, Any]:
        return {**event, "action": "refuse", **_same_champion(head), "at": now().isoformat()}

    build = build_promotion if passed or force else build_rejection
    entry = _preview(project, current, build) if dry_run else context.append(project, build)
    if entry.action == "refuse":
        raise GateFailed(entry)
    return entry


def promote_with_retries(context: PromotionContext, project: str, version: str, reason: str, now: Clock) -> AuditEntry:
    """Promote, and evaluate the gates again if another promotion comes first. Raises AliasMoved after PROMOTE_ATTEMPTS."""
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
    dry_run: bool = False,
    request: str = "",
) -> AuditEntry:
    """Restore the champion that the current one replaced, or `to`, which must be an earlier champion.

    Needs only the store. `dry_run` loads the version but writes nothing. `request` is an idempotency key.
    Raises NoPreviousChampion, Retired, AliasMoved, IntegrityError, Unsigned.
    """
    current = context.current(project)
    if current is None or current.champion is None:
        raise NoPreviousChampion(f"cannot roll back: {project} never had a champion")
    if expect == ANY_CHAMPION:
        expect = current.champion
    _check_champion(project, current, expect)
    target = _rollback_target(context, project, current.champion, to)
    _check_not_retired(context, project, target)
    _, data = read_manifest(context.store, project, target, context.trust.trainers)
    sha256 = digest(data)
    context.load(project, target, sha256)

    def build(head: AuditEntry | None) -> dict[str, Any]:
        _check_not_retired(context, project, target, current, head)
        _check_champion(project, head, expect)
        event = {"version": target, "champion": target, "manifest_sha256": sha256, "previous": expect, "by": context.by}
        return {"action": "rollback", **event, "reason": reason, "at": now().isoformat(), "request": request}

    return _preview(project, current, build) if dry_run else context.append(project, build)


def countersign(context: PromotionContext, project: str, reason: str, now: Clock) -> AuditEntry:
    """Repeat the last entry with this key, which so vouches for the whole history; the champion stays.

    Then an old key can be retired. Raises IntegrityError, NoPreviousChampion, Unsigned if the champion cannot be loaded.
    """
    current = context.current(project)
    if current is None or current.champion is None or current.manifest_sha256 is None:
        raise NoPreviousChampion(f"{project} never had a champion")
    context.entries(project)
    context.load(project, current.champion, current.manifest_sha256)

    def build(head: AuditEntry | None) -> dict[str, Any]:
        _check_champion(project, head, current.champion)
        event = {"version": current.champion, "by": context.by, "reason": reason, "at": now().isoformat()}
        return {"action": "countersign", **event, **_same_champion(head)}

    return context.append(project, build)


def retire(context: PromotionContext, project: str, version: str, reason: str, now: Clock, as_of: int) -> AuditEntry:
    """Record that the files of a version will be deleted; the version cannot be promoted afterwards.

    `as_of` is the number of the last entry known when the deletion was planned. Raises StillReferenced if a later entry
    references the version. If a retirement and a promotion compete, the earlier entry wins.
    """

    def build(head: AuditEntry | None) -> dict[str, Any]:
        later = context.entries(project, as_of, head.sequence) if head else []
        if any(version in (entry.version, entry.champion, entry.previous) for entry in later):
            raise StillReferenced(f"{version} was referenced again after garbage collection was planned")
        event = {"version": version, "by": context.by, "reason": reason, "at": now().isoformat()}
        return {"action": "retire", **event, **_same_champion(head)}

    return context.append(project, build)


def _preview(project: str, current: AuditEntry | None, build: EntryBuilder) -> AuditEntry:
    """Return the entry that would be written now, unsigned."""
    head = {"project": project, "sequence": current.sequence + 1 if current else 1, "previous_entry": None}
    return AuditEntry.model_validate({**head, **build(current)})


def _check_not_retired(
    context: PromotionContext, project: str, version: str, seen: AuditEntry | None = None, head: AuditEntry | None = None
) -> None:
    """Raise Retired if the log, or only its part after `seen`, retires the version."""
    if seen and head and seen.sequence == head.sequence:
        return
    if version in retired_versions(context.entries(project, seen.sequence if seen else 0)):
        raise Retired(f"the files of {version} were deleted by garbage collection: train or import it again")


def _check_champion(project: str, head: AuditEntry | None, expect: str | None) -> None:
    """Raise AliasMoved unless the champion is the expected one."""
    champion = head.champion if head else None
    if champion != expect:
        found = f"{champion} (entry {head.sequence}, by {head.by})" if head and champion else "not set"
        raise AliasMoved(f"the champion of {project} is {found}, expected {expect or 'none'}")


def _same_champion(head: AuditEntry | None) -> dict[str, Any]:
    if head is None:
        return {"champion": None, "manifest_sha256": None, "previous": None}
    return {"champion": head.champion, "manifest_sha256": head.manifest_sha256, "previous": head.previous}


def _rollback_target(context: PromotionContext, project: str, champion: str, to: str | None) -> str:
    """Return `to`, an earlier champion, or by default the version that the champion replaced. Raises NoPreviousChampion."""
    entries = context.entries(project)
    if to is not None:
        if to == champion:
            raise NoPreviousChampion(f"cannot roll back: {to} is already the champion of {project}")
        if to not in {entry.champion for entry in entries}:
            raise NoPreviousChampion(f"cannot roll back: {to} was never the champion of {project}")
        return to
    promotions = [entry for entry in entries if entry.action == "promote" and entry.champion == champion]
    if not promotions or promotions[-1].previous is None:
        raise NoPreviousChampion(f"cannot roll back: {champion} is the first champion of {project}")
    return promotions[-1].previous


def _evaluate(
    context: PromotionContext, project: str, version: str, sha256: str, current: AuditEntry | None
) -> list[GateResult]:
    """Return the results of all gates, or only the load error if the version cannot be loaded."""
    try:
        loaded = context.load(project, version, sha256)
    except StoreError as error:
        return [GateResult(name="loads", passed=False, detail=str(error))]
    champion, results = _load_champion(context, project, current)
    rules = context.rules(project)
    if rules.gates.four_eyes:
        results.append(four_eyes(loaded.manifest, context.trust.trainers, context.by, context.signer))
    if rules.gates.max_changed is not None:
        results.append(_replay(context, loaded, rules.gates.max_changed))
    try:
        golden = GOLDEN.validate_json(read_file(loaded.manifest, GOLDEN_FILE, context.fetch))
        rows = read_evaluation_rows(loaded.manifest, context.fetch)
        return results + evaluate_gates(loaded, golden, champion, rows, rules, context.fetch)
    except (UnreadableRows, IntegrityError, TooLarge, UnknownMetric) as error:
        return [*results, GateResult(name="test-rows", passed=False, detail=str(error))]


def _replay(context: PromotionContext, loaded: LoadedVersion, max_changed: float) -> GateResult:
    if context.replay is None:
        return GateResult(name="replay", passed=False, detail="logged predictions cannot be replayed by this process")
    return context.replay(context.store, loaded, max_changed)


def _load_champion(
    context: PromotionContext, project: str, current: AuditEntry | None
) -> tuple[LoadedVersion | None, list[GateResult]]:
    """Return the champion to compare with. A champion that fails to load must not block its successor."""
    if current is None or current.champion is None or current.manifest_sha256 is None:
        return None, []
    try:
        return context.load(project, current.champion, current.manifest_sha256), []
    except StoreError as error:
        detail = f"no comparison, because the current champion fails to load: {error}"
        return None, [GateResult(name="champion", passed=True, detail=detail)]

"""Promotion and rollback: judged, written to the history, then in force."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from podium.gates import judge
from podium.identity import second_person
from podium.learn.clean import Unreadable, from_parquet
from podium.learn.metrics import UnknownMetric
from podium.loading import Loaded
from podium.model.golden import GOLDEN
from podium.project import Rules
from podium.prover import Prover
from podium.store.history import (
    AliasMoved,
    Draft,
    Entry,
    Gate,
    Retired,
    append,
    entries_since,
    repair,
    retired_versions,
)
from podium.store.s3 import Store, StoreError, TooLarge
from podium.store.signing import Signer, Trust
from podium.store.versions import GOLDEN_FILE, TEST_FILE, Damaged, Fetch, Manifest, digest, read_file, read_manifest

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class GateFailed(StoreError):
    """The version may not serve; the entry in the history says why."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        super().__init__("; ".join(f"{gate.name}: {gate.detail}" for gate in entry.evidence if not gate.passed))


class NothingBefore(StoreError):
    """There is no version to go back to."""


class StillNeeded(StoreError):
    """The version is in use again."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where promotions are made: the store, whom it believes, who acts, how files are fetched, and by which rules.

    `rules` are the promoter's own, by project; a version's manifest cannot change them.
    """

    store: Store
    trust: Trust
    signer: Signer
    by: str
    fetch: Fetch
    prover: Prover = field(default_factory=Prover)
    rules: Callable[[str], Rules] = lambda project: Rules()


ANY = "*"
"""Expect whatever serves now."""
MAX_TEST_BYTES = 1 << 30
RACES = 5
"""So often another promotion may come first."""


def promote(
    desk: Desk,
    project: str,
    version: str,
    reason: str,
    now: Clock,
    *,
    expect: str | None = ANY,
    force: bool = False,
    dry: bool = False,
    request: str = "",
) -> Entry:
    """Judge a version and make it the champion; a refusal is written down as well.

    `expect` is the champion that must serve now (None: none ever did). `force` goes past failed gates and says so in the
    entry; `dry` judges and writes nothing. Raises NotPublished, Unsigned, AliasMoved, GateFailed.
    """
    _, data = read_manifest(desk.store, project, version, desk.trust.trainers)
    sha256 = digest(data)
    standing = repair(desk.store, project, desk.trust.promoters)
    if expect == ANY:
        expect = standing.champion if standing else None
    _expected(project, standing, expect, version)
    if standing and standing.champion == version:
        return standing
    _not_retired(desk, project, version)
    evidence = tuple(_evidence(desk, project, version, sha256, standing))
    passed = all(gate.passed for gate in evidence)
    fields: dict[str, Any] = {"version": version, "by": desk.by, "reason": reason, "evidence": evidence, "request": request}

    def accepted(head: Entry | None) -> dict[str, Any]:
        _not_retired(desk, project, version, standing, head)
        _expected(project, head, expect, version)
        if head and head.champion == version:
            raise AliasMoved(f"{version} is the champion of {project} already, since number {head.sequence}, by {head.by}")
        act = {"action": "promote", "champion": version, "manifest": sha256, "previous": expect, "forced": not passed}
        return {**fields, **act, "at": now().isoformat()}

    def refused(head: Entry | None) -> dict[str, Any]:
        return {**fields, "action": "refuse", **_unchanged(head), "at": now().isoformat()}

    draft: Draft = accepted if passed or force else refused
    entry = _write(desk, project, draft, standing, dry)
    if entry.action == "refuse":
        raise GateFailed(entry)
    return entry


def promote_in_turn(desk: Desk, project: str, version: str, reason: str, now: Clock) -> Entry:
    """Promote, judged anew against the new champion when another promotion comes first. Raises AliasMoved after RACES."""
    for _ in range(RACES - 1):
        with contextlib.suppress(AliasMoved):
            return promote(desk, project, version, reason, now)
    return promote(desk, project, version, reason, now)


def rollback(
    desk: Desk,
    project: str,
    reason: str,
    now: Clock,
    *,
    to: str | None = None,
    expect: str | None = ANY,
    dry: bool = False,
    request: str = "",
) -> Entry:
    """Go back to the version that served before the present one was promoted, or to any that served.

    Needs the store only. `dry` loads what it would go back to and writes nothing. `request` names the wish, so that who asks
    again can find what became of it. Raises NothingBefore, AliasMoved, Damaged, Unsigned.
    """
    standing = repair(desk.store, project, desk.trust.promoters)
    if standing is None or standing.champion is None:
        raise NothingBefore(f"{project} never had a champion")
    if expect == ANY:
        expect = standing.champion
    _stands(project, standing, expect)
    goal = _before(desk, project, standing.champion) if to is None else _served(desk, project, to, standing.champion)
    _not_retired(desk, project, goal)
    _, data = read_manifest(desk.store, project, goal, desk.trust.trainers)
    desk.prover.load(project, goal, digest(data), desk.fetch, desk.trust.trainers)

    def draft(head: Entry | None) -> dict[str, Any]:
        _not_retired(desk, project, goal, standing, head)
        _stands(project, head, expect)
        act = {"version": goal, "champion": goal, "manifest": digest(data), "previous": expect}
        return {"action": "rollback", **act, "by": desk.by, "reason": reason, "at": now().isoformat(), "request": request}

    return _write(desk, project, draft, standing, dry)


def _write(desk: Desk, project: str, draft: Draft, standing: Entry | None, dry: bool) -> Entry:
    """The next entry; a dry one is as it would be now, unsigned, and is not written."""
    if not dry:
        return append(desk.store, project, desk.signer, desk.trust.promoters, draft)
    head = {"project": project, "sequence": standing.sequence + 1 if standing else 1, "before": None}
    return Entry.model_validate({**head, **draft(standing)})


def retire(desk: Desk, project: str, version: str, reason: str, now: Clock, planned: int) -> Entry:
    """Write down that a version's files will be deleted; from then on nobody can promote it.

    `planned` is the number of the last entry that was looked at. Raises StillNeeded if a later one speaks of the version: the
    chain of numbers decides who was first, this or a promotion.
    """

    def draft(head: Entry | None) -> dict[str, Any]:
        later = entries_since(desk.store, project, desk.trust.promoters, planned, head.sequence) if head else []
        if any(version in (entry.version, entry.champion, entry.previous) for entry in later):
            raise StillNeeded(f"{version} was spoken of again after the garbage was looked for")
        return {
            "action": "retire",
            "version": version,
            **_unchanged(head),
            "by": desk.by,
            "reason": reason,
            "at": now().isoformat(),
        }

    return append(desk.store, project, desk.signer, desk.trust.promoters, draft)


def _not_retired(desk: Desk, project: str, version: str, seen: Entry | None = None, head: Entry | None = None) -> None:
    """By the whole history, or by what was added to it since `seen`. Raises Retired."""
    if seen and head and seen.sequence == head.sequence:
        return
    entries = entries_since(desk.store, project, desk.trust.promoters, seen.sequence if seen else 0)
    if version in retired_versions(entries):
        raise Retired(f"the files of {version} were collected as garbage: train or import it again")


def _served(desk: Desk, project: str, version: str, champion: str) -> str:
    """A version that served and does not now. Raises NothingBefore."""
    entries = entries_since(desk.store, project, desk.trust.promoters)
    if version == champion or version not in {entry.champion for entry in entries}:
        raise NothingBefore(
            f"{version} {'serves now' if version == champion else f'never served {project}'}: nothing to go back to"
        )
    return version


def _stands(project: str, head: Entry | None, expect: str | None) -> None:
    """Raises AliasMoved unless the champion is the expected one."""
    if (head.champion if head else None) != expect:
        _expected(project, head, expect, None)


def _before(desk: Desk, project: str, champion: str) -> str:
    """The version that the champion followed when it was last promoted."""
    entries = entries_since(desk.store, project, desk.trust.promoters)
    promoted = [entry for entry in entries if entry.action == "promote" and entry.champion == champion]
    if not promoted or promoted[-1].previous is None:
        raise NothingBefore(f"{champion} is the first champion of {project}")
    return promoted[-1].previous


def _expected(project: str, head: Entry | None, expect: str | None, version: str | None) -> None:
    """Raises AliasMoved unless the champion is the expected one, or the wanted one already."""
    champion = head.champion if head else None
    if champion != expect and (champion is None or champion != version):
        stands = f"{champion} since number {head.sequence}, by {head.by}" if head else "unset"
        raise AliasMoved(f"the champion of {project} is {stands}, not {expect or 'unset'} as expected")


def _unchanged(head: Entry | None) -> dict[str, Any]:
    if head is None:
        return {"champion": None, "manifest": None, "previous": None}
    return {"champion": head.champion, "manifest": head.manifest, "previous": head.previous}


def _evidence(desk: Desk, project: str, version: str, sha256: str, standing: Entry | None) -> list[Gate]:
    """The gates' findings; a version that cannot be loaded has one finding, that it cannot."""
    trainers = desk.trust.trainers
    try:
        loaded = desk.prover.load(project, version, sha256, desk.fetch, trainers)
    except StoreError as error:
        return [Gate(name="loads", passed=False, detail=str(error))]
    champion, found = _champion(desk, project, standing)
    rules = desk.rules(project)
    if rules.gates.second_person:
        found.append(second_person(loaded.manifest, desk.trust.trainers, desk.by, desk.signer))
    try:
        golden = GOLDEN.validate_json(read_file(loaded.manifest, GOLDEN_FILE, desk.fetch))
        test = from_parquet(_test_rows(loaded.manifest, desk.fetch))
        return found + judge(loaded, golden, champion, test, rules)
    except (Unreadable, Damaged, TooLarge, UnknownMetric) as error:
        return [*found, Gate(name="test-rows", passed=False, detail=str(error))]


def _test_rows(manifest: Manifest, fetch: Fetch) -> bytes:
    """Raises Damaged, TooLarge."""
    bound = manifest.files.get(TEST_FILE)
    if bound and bound.size > MAX_TEST_BYTES:
        raise TooLarge(f"{TEST_FILE} has {bound.size} bytes, at most {MAX_TEST_BYTES} are read to judge a version")
    return read_file(manifest, TEST_FILE, fetch)


def _champion(desk: Desk, project: str, standing: Entry | None) -> tuple[Loaded | None, list[Gate]]:
    """The champion to compare with; one that cannot be loaded any more must not keep its successor out."""
    if standing is None or standing.champion is None or standing.manifest is None:
        return None, []
    try:
        return desk.prover.load(project, standing.champion, standing.manifest, desk.fetch, desk.trust.trainers), []
    except StoreError as error:
        return None, [Gate(name="champion", passed=True, detail=f"nothing to compare with, as it cannot be loaded: {error}")]

"""Garbage collection deletes only versions that are not referenced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from podium.registry.audit_log import Retired, entries_since
from podium.registry.fsck import fsck
from podium.registry.gc import GcCandidate, delete_garbage, find_garbage
from podium.registry.promotion import PromotionContext, StillReferenced, promote, rollback
from podium.registry.versions import TOMBSTONE, publish, read_manifest
from podium.storage.object_store import StoreError
from podium.storage.predictions import logged_key
from tests.integration.registry.test_fsck import publish_and_promote, trained
from tests.integration.registry.test_promotion import published

LATER = datetime(2027, 6, 1, tzinfo=UTC)


def later() -> datetime:
    return LATER


def garbage(context: PromotionContext, keep: int = 1, days: int = 30, now: datetime = LATER) -> list[GcCandidate]:
    return list(find_garbage(context, "p", now, keep=keep, days=days))


@pytest.fixture
def versions(context: PromotionContext) -> list[str]:
    """Three versions that were champion in turn, and one that never was."""
    names = [published(context, seed) for seed in range(4)]
    for name in names[:3]:
        promote(context, "p", name, "a test", later, force=True)
    return names


def test_unreferenced_versions_are_found_and_deleted(context: PromotionContext, versions: list[str]) -> None:
    candidates = garbage(context)
    assert [candidate.version for candidate in candidates] == sorted([versions[0], versions[3]])
    for candidate in candidates:
        delete_garbage(context, candidate, "too old", later)
    assert fsck(context.store, context.trust) == []
    assert garbage(context) == []
    remaining = context.store.list_objects(f"versions/p/{versions[0]}/")
    assert [info.key.rpartition("/")[2] for info in remaining] == ["manifest.json"]
    assert read_manifest(context.store, "p", versions[0], context.trust.trainers)[0].version == versions[0]
    entries = entries_since(context.store, "p", context.trust.promoters)
    assert [(entry.action, entry.champion, entry.reason) for entry in entries[3:]] == [("retire", versions[2], "too old")] * 2
    assert rollback(context, "p", "back", later).champion == versions[1]


def test_recent_and_logged_versions_and_recent_entries_are_kept(context: PromotionContext, versions: list[str]) -> None:
    assert [candidate.version for candidate in garbage(context, keep=3)] == [versions[3]]
    assert garbage(context, days=100_000) == []
    context.store.create(f"predictions/p/dt=2026-05-01/{versions[3]}/1.csv", b"x")
    assert garbage(context, keep=3) == []
    assert versions[0] in {candidate.version for candidate in garbage(context, keep=0)}
    (promoted,) = [entry for entry in context.entries("p") if entry.champion == versions[0]]
    context.store.create(logged_key("p", "20260501c0ffeec0ffee", promoted.sequence), b"x")
    assert versions[0] not in {candidate.version for candidate in garbage(context, keep=0)}


def test_a_retired_version_cannot_be_promoted(context: PromotionContext, versions: list[str]) -> None:
    former_champion = next(candidate for candidate in garbage(context) if candidate.version == versions[0])
    delete_garbage(context, former_champion, "old", later)
    with pytest.raises(Retired):
        promote(context, "p", versions[0], "again", later, force=True)
    with pytest.raises(Retired):
        rollback(context, "p", "again", later, to=versions[0])


def test_a_promotion_before_the_retirement_keeps_the_files(context: PromotionContext, versions: list[str]) -> None:
    plan = garbage(context)
    promote(context, "p", plan[0].version, "needed after all", later, force=True)
    with pytest.raises(StillReferenced):
        delete_garbage(context, plan[0], "old", later)
    assert fsck(context.store, context.trust) == []


def test_a_retirement_before_the_promotion_stops_it(
    context: PromotionContext, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retirement happens after the gates are evaluated and before the entry is written."""
    import podium.registry.promotion

    plan = garbage(context)[0]
    real = podium.registry.promotion.append

    def retire_first(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(podium.registry.promotion, "append", real)
        delete_garbage(context, plan, "old", later)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(podium.registry.promotion, "append", retire_first)
    with pytest.raises(Retired):
        promote(context, "p", plan.version, "late", later, force=True)


def test_an_interrupted_collection_is_finished_by_the_next(context: PromotionContext, versions: list[str]) -> None:
    plan = garbage(context)[0]
    partial = GcCandidate(**{**{name: getattr(plan, name) for name in plan.__slots__}, "keys": plan.keys[:2]})
    delete_garbage(context, partial, "old", later)
    rest = next(candidate for candidate in garbage(context) if candidate.version == plan.version)
    assert rest.why == "retired, but not fully deleted"
    delete_garbage(context, rest, "old", later)
    assert plan.version not in [candidate.version for candidate in garbage(context)]
    assert len(entries_since(context.store, "p", context.trust.promoters)) == 4


def test_an_unfinished_version_is_kept_for_a_day(context: PromotionContext) -> None:
    manifest, files = trained(0, None)
    publish_and_promote(context, manifest, files)
    context.store.create("versions/p/20260101T000000Z-aaaaaaaa/models/linear.pkl", b"x")
    now = datetime.now(UTC)
    assert garbage(context, now=now, days=100_000) == []
    candidates = garbage(context, now=now + timedelta(days=2), days=100_000)
    assert [candidate.why for candidate in candidates] == ["unfinished"]
    delete_garbage(context, candidates[0], "", later)
    assert fsck(context.store, context.trust) == []


def test_a_version_finished_during_collection_stays_complete(
    context: PromotionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = trained(0, None)
    for name, data in files.items():
        context.store.create(f"versions/p/{manifest.version}/{name}", data)
    (plan,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    publish(context.store, manifest, files, context.signer)
    with pytest.raises(StillReferenced):
        delete_garbage(context, plan, "", later)
    assert fsck(context.store, context.trust) == []


def test_publishing_during_a_collection_fails_and_can_be_repeated(context: PromotionContext) -> None:
    manifest, files = trained(0, None)
    prefix = f"versions/p/{manifest.version}"
    for name, data in files.items():
        context.store.create(f"{prefix}/{name}", data)
    (plan,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    context.store.create(f"{prefix}/manifest.json", TOMBSTONE)  # as written by a running or interrupted collection
    with pytest.raises(StoreError, match="try again"):
        publish(context.store, manifest, files, context.signer)
    (again,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    assert again.keys == plan.keys
    delete_garbage(context, again, "", later)
    publish(context.store, manifest, files, context.signer)
    assert fsck(context.store, context.trust) == []


def test_files_deleted_before_the_manifest_was_written_are_restored(
    context: PromotionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = trained(0, None)
    real = context.store.create

    def collect_first(key: str, data: bytes) -> str:
        """Run a whole collection between the last file and the manifest."""
        if key.endswith("/manifest.json") and data != TOMBSTONE:
            monkeypatch.setattr(type(context.store), "create", lambda _, key, data: real(key, data))
            for plan in garbage(context, now=datetime.now(UTC) + timedelta(days=2)):
                delete_garbage(context, plan, "", later)
        return real(key, data)

    monkeypatch.setattr(type(context.store), "create", lambda _, key, data: collect_first(key, data))
    publish(context.store, manifest, files, context.signer)
    assert fsck(context.store, context.trust) == []

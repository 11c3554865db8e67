"""Garbage collection takes what nothing refers to, and never what somebody needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from podium.registry.audit_log import Retired, entries_since
from podium.registry.fsck import fsck
from podium.registry.gc import GcCandidate, delete_garbage, find_garbage
from podium.registry.promotion import PromotionContext, StillReferenced, promote, rollback
from podium.registry.versions import TOMBSTONE, publish, read_manifest
from podium.storage.object_store import StoreError
from tests.integration.registry.test_audit_log import published
from tests.integration.registry.test_fsck import learned, put_in_service

LATER = datetime(2027, 6, 1, tzinfo=UTC)


def then() -> datetime:
    return LATER


def garbage(context: PromotionContext, keep: int = 1, days: int = 30, now: datetime = LATER) -> list[GcCandidate]:
    return list(find_garbage(context, "p", now, keep=keep, days=days))


@pytest.fixture
def versions(context: PromotionContext) -> list[str]:
    """Three that served one after the other, and one that never did."""
    names = [published(context, seed) for seed in range(4)]
    for name in names[:3]:
        promote(context, "p", name, "a test", then, force=True)
    return names


def test_what_nothing_refers_to_is_found_and_goes(context: PromotionContext, versions: list[str]) -> None:
    found = garbage(context)
    assert [each.version for each in found] == sorted([versions[0], versions[3]])
    for each in found:
        delete_garbage(context, each, "too old", then)
    assert fsck(context.store, context.trust) == []
    assert garbage(context) == []
    assert not [key for key in context.store.keys(f"versions/p/{versions[0]}/") if not key.endswith("manifest.json")]
    assert read_manifest(context.store, "p", versions[0], context.trust.trainers)[0].version == versions[0]
    entries = entries_since(context.store, "p", context.trust.promoters)
    assert [(entry.action, entry.champion, entry.reason) for entry in entries[3:]] == [("retire", versions[2], "too old")] * 2
    assert rollback(context, "p", "back", then).champion == versions[1]


def test_the_last_entries_the_log_and_the_young_are_kept(context: PromotionContext, versions: list[str]) -> None:
    assert [each.version for each in garbage(context, keep=3)] == [versions[3]]
    assert garbage(context, days=100_000) == []
    context.store.create(f"predictions/p/dt=2026-05-01/{versions[3]}/1.parquet", b"x")
    assert garbage(context, keep=3) == []


def test_a_retired_version_cannot_come_back(context: PromotionContext, versions: list[str]) -> None:
    delete_garbage(context, garbage(context)[0], "old", then)
    gone = garbage(context) and entries_since(context.store, "p", context.trust.promoters)[-1].version
    with pytest.raises(Retired):
        promote(context, "p", str(gone), "again", then, force=True)
    with pytest.raises(Retired):
        rollback(context, "p", "again", then, to=str(gone))


def test_a_promotion_that_came_first_keeps_its_files(context: PromotionContext, versions: list[str]) -> None:
    plan = garbage(context)
    promote(context, "p", plan[0].version, "needed after all", then, force=True)
    with pytest.raises(StillReferenced):
        delete_garbage(context, plan[0], "old", then)
    assert fsck(context.store, context.trust) == []


def test_a_retirement_that_came_first_is_seen_by_the_promotion(
    context: PromotionContext, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the look at the gates and the entry."""
    import podium.registry.promotion

    plan = garbage(context)[0]
    real = podium.registry.promotion.append

    def late(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(podium.registry.promotion, "append", real)
        delete_garbage(context, plan, "old", then)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(podium.registry.promotion, "append", late)
    with pytest.raises(Retired):
        promote(context, "p", plan.version, "late", then, force=True)


def test_a_collection_that_died_half_way_is_finished_by_the_next(context: PromotionContext, versions: list[str]) -> None:
    plan = garbage(context)[0]
    half = GcCandidate(**{**{name: getattr(plan, name) for name in plan.__slots__}, "keys": plan.keys[:2]})
    delete_garbage(context, half, "old", then)
    rest = next(each for each in garbage(context) if each.version == plan.version)
    assert rest.why == "was retired, and not all of it deleted"
    delete_garbage(context, rest, "old", then)
    assert plan.version not in [each.version for each in garbage(context)]
    assert len(entries_since(context.store, "p", context.trust.promoters)) == 4


def test_an_unfinished_version_has_a_day(context: PromotionContext) -> None:
    manifest, files = learned(0, None)
    put_in_service(context, manifest, files)
    context.store.create("versions/p/20260101T000000Z-aaaaaaaa/models/linear.pkl", b"x")
    now = datetime.now(UTC)
    assert garbage(context, now=now, days=100_000) == []
    found = garbage(context, now=now + timedelta(days=2), days=100_000)
    assert [each.why for each in found] == ["was never finished"]
    delete_garbage(context, found[0], "", then)
    assert fsck(context.store, context.trust) == []


def test_a_version_that_is_finished_while_it_is_collected_stays_whole(
    context: PromotionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = learned(0, None)
    for name, data in files.items():
        context.store.create(f"versions/p/{manifest.version}/{name}", data)
    (plan,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    publish(context.store, manifest, files, context.signer)
    with pytest.raises(StillReferenced):
        delete_garbage(context, plan, "", then)
    assert fsck(context.store, context.trust) == []


def test_who_publishes_during_a_collection_is_told_to_try_again(context: PromotionContext) -> None:
    manifest, files = learned(0, None)
    place = f"versions/p/{manifest.version}"
    for name, data in files.items():
        context.store.create(f"{place}/{name}", data)
    (plan,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    context.store.create(f"{place}/manifest.json", TOMBSTONE)  # as a collection that is under way, or died
    with pytest.raises(StoreError, match="try again"):
        publish(context.store, manifest, files, context.signer)
    (again,) = garbage(context, now=datetime.now(UTC) + timedelta(days=2))
    assert again.keys == plan.keys
    delete_garbage(context, again, "", then)
    publish(context.store, manifest, files, context.signer)
    assert fsck(context.store, context.trust) == []


def test_what_a_collection_took_before_the_manifest_came_is_written_again(
    context: PromotionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = learned(0, None)
    real = context.store.create

    def slow(key: str, data: bytes) -> str:
        """The whole collection happens between the last file and the manifest."""
        if key.endswith("/manifest.json") and data != TOMBSTONE:
            monkeypatch.setattr(type(context.store), "create", lambda _, key, data: real(key, data))
            for plan in garbage(context, now=datetime.now(UTC) + timedelta(days=2)):
                delete_garbage(context, plan, "", then)
        return real(key, data)

    monkeypatch.setattr(type(context.store), "create", lambda _, key, data: slow(key, data))
    publish(context.store, manifest, files, context.signer)
    assert fsck(context.store, context.trust) == []

"""Garbage collection takes what nothing refers to, and never what somebody needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from podium.garbage import Garbage, collect, find_garbage
from podium.promotion import Desk, StillNeeded, promote, rollback
from podium.store.fsck import fsck
from podium.store.history import Retired, entries_since
from podium.store.s3 import StoreError
from podium.store.versions import BARRED, publish, read_manifest
from tests.store.test_fsck import learned, put_in_service
from tests.store.test_history import published

LATER = datetime(2027, 6, 1, tzinfo=UTC)


def then() -> datetime:
    return LATER


def garbage(desk: Desk, keep: int = 1, days: int = 30, now: datetime = LATER) -> list[Garbage]:
    return list(find_garbage(desk, "p", now, keep=keep, days=days))


@pytest.fixture
def versions(desk: Desk) -> list[str]:
    """Three that served one after the other, and one that never did."""
    names = [published(desk, seed) for seed in range(4)]
    for name in names[:3]:
        promote(desk, "p", name, "a test", then, force=True)
    return names


def test_what_nothing_refers_to_is_found_and_goes(desk: Desk, versions: list[str]) -> None:
    found = garbage(desk)
    assert [each.version for each in found] == sorted([versions[0], versions[3]])
    for each in found:
        collect(desk, each, "too old", then)
    assert fsck(desk.store, desk.trust) == []
    assert garbage(desk) == []
    assert not [key for key in desk.store.keys(f"versions/p/{versions[0]}/") if not key.endswith("manifest.json")]
    assert read_manifest(desk.store, "p", versions[0], desk.trust.trainers)[0].version == versions[0]
    entries = entries_since(desk.store, "p", desk.trust.promoters)
    assert [(entry.action, entry.champion, entry.reason) for entry in entries[3:]] == [("retire", versions[2], "too old")] * 2
    assert rollback(desk, "p", "back", then).champion == versions[1]


def test_the_last_entries_the_log_and_the_young_are_kept(desk: Desk, versions: list[str]) -> None:
    assert [each.version for each in garbage(desk, keep=3)] == [versions[3]]
    assert garbage(desk, days=100_000) == []
    desk.store.create(f"predictions/p/dt=2026-05-01/{versions[3]}/1.parquet", b"x")
    assert garbage(desk, keep=3) == []


def test_a_retired_version_cannot_come_back(desk: Desk, versions: list[str]) -> None:
    collect(desk, garbage(desk)[0], "old", then)
    gone = garbage(desk) and entries_since(desk.store, "p", desk.trust.promoters)[-1].version
    with pytest.raises(Retired):
        promote(desk, "p", str(gone), "again", then, force=True)
    with pytest.raises(Retired):
        rollback(desk, "p", "again", then, to=str(gone))


def test_a_promotion_that_came_first_keeps_its_files(desk: Desk, versions: list[str]) -> None:
    plan = garbage(desk)
    promote(desk, "p", plan[0].version, "needed after all", then, force=True)
    with pytest.raises(StillNeeded):
        collect(desk, plan[0], "old", then)
    assert fsck(desk.store, desk.trust) == []


def test_a_retirement_that_came_first_is_seen_by_the_promotion(
    desk: Desk, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the look at the gates and the entry."""
    import podium.promotion

    plan = garbage(desk)[0]
    real = podium.promotion.append

    def late(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(podium.promotion, "append", real)
        collect(desk, plan, "old", then)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(podium.promotion, "append", late)
    with pytest.raises(Retired):
        promote(desk, "p", plan.version, "late", then, force=True)


def test_a_collection_that_died_half_way_is_finished_by_the_next(desk: Desk, versions: list[str]) -> None:
    plan = garbage(desk)[0]
    half = Garbage(**{**{name: getattr(plan, name) for name in plan.__slots__}, "keys": plan.keys[:2]})
    collect(desk, half, "old", then)
    rest = next(each for each in garbage(desk) if each.version == plan.version)
    assert rest.why == "was retired, and not all of it deleted"
    collect(desk, rest, "old", then)
    assert plan.version not in [each.version for each in garbage(desk)]
    assert len(entries_since(desk.store, "p", desk.trust.promoters)) == 4


def test_an_unfinished_version_has_a_day(desk: Desk) -> None:
    manifest, files = learned(0, None)
    put_in_service(desk, manifest, files)
    desk.store.create("versions/p/20260101T000000Z-aaaaaaaa/models/linear.pkl", b"x")
    now = datetime.now(UTC)
    assert garbage(desk, now=now, days=100_000) == []
    found = garbage(desk, now=now + timedelta(days=2), days=100_000)
    assert [each.why for each in found] == ["was never finished"]
    collect(desk, found[0], "", then)
    assert fsck(desk.store, desk.trust) == []


def test_a_version_that_is_finished_while_it_is_collected_stays_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, files = learned(0, None)
    for name, data in files.items():
        desk.store.create(f"versions/p/{manifest.version}/{name}", data)
    (plan,) = garbage(desk, now=datetime.now(UTC) + timedelta(days=2))
    publish(desk.store, manifest, files, desk.signer)
    with pytest.raises(StillNeeded):
        collect(desk, plan, "", then)
    assert fsck(desk.store, desk.trust) == []


def test_who_publishes_during_a_collection_is_told_to_try_again(desk: Desk) -> None:
    manifest, files = learned(0, None)
    place = f"versions/p/{manifest.version}"
    for name, data in files.items():
        desk.store.create(f"{place}/{name}", data)
    (plan,) = garbage(desk, now=datetime.now(UTC) + timedelta(days=2))
    desk.store.create(f"{place}/manifest.json", BARRED)  # as a collection that is under way, or died
    with pytest.raises(StoreError, match="try again"):
        publish(desk.store, manifest, files, desk.signer)
    (again,) = garbage(desk, now=datetime.now(UTC) + timedelta(days=2))
    assert again.keys == plan.keys
    collect(desk, again, "", then)
    publish(desk.store, manifest, files, desk.signer)
    assert fsck(desk.store, desk.trust) == []


def test_what_a_collection_took_before_the_manifest_came_is_written_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, files = learned(0, None)
    real = desk.store.create

    def slow(key: str, data: bytes) -> str:
        """The whole collection happens between the last file and the manifest."""
        if key.endswith("/manifest.json") and data != BARRED:
            monkeypatch.setattr(type(desk.store), "create", lambda _, key, data: real(key, data))
            for plan in garbage(desk, now=datetime.now(UTC) + timedelta(days=2)):
                collect(desk, plan, "", then)
        return real(key, data)

    monkeypatch.setattr(type(desk.store), "create", lambda _, key, data: slow(key, data))
    publish(desk.store, manifest, files, desk.signer)
    assert fsck(desk.store, desk.trust) == []

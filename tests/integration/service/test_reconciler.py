"""The loop that follows the aliases, against a bucket in memory: whatever events do, it ends where the alias points."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import alias_key
from podium.registry.loading import ModelLoadError
from podium.registry.signing import Signer, TrustPolicy, VerifyingKeys
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store
from service.active_models import ActiveModels
from service.metrics import Metrics
from service.reconciler import Reconciler, ReconcilerOptions

SCHEDULES = 10_000
SIGNER = Signer.new()
KEYS = VerifyingKeys([SIGNER.public])


class Bucket:
    """As much of S3's client as the loop uses; calls fail while `broken`, or once by chance."""

    meta = SimpleNamespace(endpoint_url="memory")

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.broken = False
        self.calls = 0
        self.reads: list[str] = []

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def get_object(self, **asked: str) -> dict[str, Any]:
        self._count("GetObject")
        if asked["Key"] not in self.objects:
            raise _error("NoSuchKey", "GetObject")
        data = self.objects[asked["Key"]]
        self.reads.append(asked["Key"])
        return {"Body": io.BytesIO(data), "ETag": _etag(data), "ContentLength": len(data)}

    def get_paginator(self, _: str) -> Bucket:
        return self

    def paginate(self, **asked: str) -> Iterator[dict[str, Any]]:
        self._count("ListObjectsV2")
        found = [(key, data) for key, data in sorted(self.objects.items()) if key.startswith(asked["Prefix"])]
        facts = {"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}
        yield {"Contents": [{"Key": key, "ETag": _etag(data), "Size": len(data), **facts} for key, data in found]}

    def _count(self, verb: str) -> None:
        self.calls += 1
        if self.broken:
            raise _error("503", verb) if self.calls % 2 else EndpointConnectionError(endpoint_url="memory")


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


def _error(code: str, verb: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, verb)


ENTRIES: dict[tuple[str, int, str], bytes] = {}


def entry(project: str, sequence: int, version: str) -> bytes:
    """A signed act of the history."""
    key = project, sequence, version
    if key not in ENTRIES:
        act = {"action": "promote", "version": version, "champion": version, "manifest_sha256": version, "previous": None}
        fields = {"project": project, "sequence": sequence, **act, "by": "a", "reason": "b", "at": "c", "previous_entry": None}
        document = AuditEntry.model_validate(fields).model_dump(mode="json")
        ENTRIES[key] = json.dumps({**document, "signatures": SIGNER.sign(document)}).encode()
    return ENTRIES[key]


class Forgetful(ModelCache):
    """Does not wait for the disk."""

    def remember_alias(self, place: str, project: str, data: bytes) -> None: ...

    def touch_aliases(self, place: str) -> None: ...


class Loader:
    """In the place of the validator; something may happen while it loads."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.refused: set[str] = set()
        self.loads = 0

    def load(self, project: str, version: str, sha256: str, fetch: object, trainers: object) -> Any:
        self.loads += 1
        self.meanwhile()
        if version in self.refused:
            raise ModelLoadError("no")
        manifest = SimpleNamespace(libraries={}, files={}, champion="linear", signature=SimpleNamespace(inputs=(), panel=None))
        return SimpleNamespace(manifest=manifest, models={}, fast={"linear": None}, largest_difference=0.0)


class World:
    """A loop over one bucket and one project, and who moves the alias."""

    def __init__(
        self,
        folder: Path,
        poll: float = 1.0,
        bucket: Bucket | None = None,
        cache: ModelCache | None = None,
        loader: Any = None,
    ) -> None:
        self.bucket, self.loader, self.live = bucket or Bucket(), loader or Loader(), ActiveModels()
        cache, trust = cache or Forgetful(folder), TrustPolicy(KEYS, KEYS)
        store, self.metrics = Store(self.bucket, "b"), Metrics(self.live)
        self.loop = Reconciler(store, cache, self.live, trust, self.loader, self.metrics, ReconcilerOptions(poll))  # type: ignore[arg-type]
        self.sequence, self.version = 0, ""
        self.shown: list[int] = []

    def move(self, version: str) -> None:
        self.sequence, self.version = self.sequence + 1, version
        self.bucket.put(alias_key("p"), entry("p", self.sequence, version))

    async def look(self) -> None:
        await self.loop.look()
        if found := self.live.find("p"):
            self.shown.append(found.sequence)


def test_ten_thousand_schedules_end_at_the_alias(tmp_path: Path) -> None:
    """Moves, and events that are lost, doubled, late and out of order, while the store comes and goes."""

    async def schedule(seed: int) -> None:
        dice = random.Random(seed)
        world, events = World(tmp_path), list[int]()
        world.loader.meanwhile = lambda: world.move(f"v{dice.randrange(4)}") if dice.random() < 0.2 else None
        for _ in range(dice.randrange(1, 9)):
            step = dice.randrange(5)
            if step == 0:
                world.move(f"v{dice.randrange(4)}")
                events += [world.sequence] * dice.choice((0, 1, 1, 2))  # lost, once, doubled
            elif step == 1 and events:
                events.pop(dice.randrange(len(events)))  # in any order; a hint only says "look"
                world.loop.hint()
                await world.look()
            elif step == 2:
                world.bucket.broken = not world.bucket.broken
            else:
                await world.look()
        world.bucket.broken, world.loader.meanwhile = False, lambda: None
        await world.look()  # the poll
        found = world.live.find("p")
        assert (found.version if found else "") == world.version, seed
        assert found is None or found.sequence <= world.sequence
        assert world.shown == sorted(world.shown), seed
        assert not world.loop.failures
        world.loop.close()

    async def every() -> None:
        for seed in range(SCHEDULES):
            await schedule(seed)

    asyncio.run(every())


def test_a_thousand_hints_cost_a_few_looks(tmp_path: Path) -> None:
    async def hinted() -> int:
        world = World(tmp_path, poll=60)
        world.move("v1")
        await world.look()
        running = asyncio.create_task(world.loop.run())
        await asyncio.sleep(0.3)
        before = world.bucket.calls
        for number in range(1000):
            world.loop.hint()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        running.cancel()
        return world.bucket.calls - before

    assert asyncio.run(hinted()) <= 4  # a look is a listing


def test_a_version_that_failed_rests_until_the_alias_moves(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path, poll=60)
        world.move("good")
        await world.look()
        world.loader.refused.add("bad")
        world.move("bad")
        for _ in range(5):
            await world.look()
            assert world.loop.failures == {"p": "no"}
        assert world.loader.loads == 2
        world.move("better")
        await world.look()
        found = world.live.find("p")
        assert found is not None
        assert (found.version, world.loop.failures) == ("better", {})

    asyncio.run(looks())


def test_going_back_loads_nothing(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        for version in ("one", "two", "one", "two"):
            world.move(version)
            await world.look()
        assert world.loader.loads == 2
        assert [receipt["warm"] for receipt in world.loop.receipts] == [False, False, True, True]
        assert [receipt["to"] for receipt in world.loop.receipts] == ["one", "two", "one", "two"]

    asyncio.run(looks())


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_restart_lets_no_alias_be_put_back(tmp_path: Path, sequence: int) -> None:
    """What served last is remembered; with the store away it serves, and an older entry is refused."""

    async def started() -> None:
        cache = ModelCache(tmp_path)
        cache.remember_alias("memory/b", "p", entry("p", 2, "two"))
        world = World(tmp_path)
        world.bucket.broken = True
        await world.loop.start()
        found = world.live.find("p")
        assert found is not None
        assert (found.version, bool(world.loop.looks.stale_since)) == ("two", True)
        world.bucket.broken = False
        world.bucket.put(alias_key("p"), entry("p", sequence, "one" if sequence == 1 else "two"))
        await world.look()
        found = world.live.find("p")
        assert found is not None
        assert found.version == "two"
        assert ("number 2 was seen" in world.loop.failures.get("p", "")) is (sequence == 1)
        assert world.loop.looks.stale_since is None

    asyncio.run(started())

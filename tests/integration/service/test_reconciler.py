"""The reconciler against an in-memory bucket: after any sequence of events, it serves what the alias names."""

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
from podium.registry.champion_alias import alias_key
from podium.registry.loading import ModelLoadError, fetcher
from podium.registry.signing import Signer, TrustPolicy, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store
from service.active_models import ActiveModels
from service.metrics import Metrics
from service.reconciler import Reconciler
from service.swaps import Swaps
from service.version_loader import VersionLoader

SCHEDULES = 10_000
SIGNER = Signer.new()
KEYS = VerifyingKeys([SIGNER.public])


class Bucket:
    """The part of the S3 client that the reconciler uses; calls fail while `broken`."""

    meta = SimpleNamespace(endpoint_url="memory")

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.broken = False
        self.calls = 0
        self.reads: list[str] = []

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def get_object(self, **arguments: str) -> dict[str, Any]:
        self._count("GetObject")
        if arguments["Key"] not in self.objects:
            raise _error("NoSuchKey", "GetObject")
        data = self.objects[arguments["Key"]]
        self.reads.append(arguments["Key"])
        return {"Body": io.BytesIO(data), "ETag": _etag(data), "ContentLength": len(data)}

    def get_paginator(self, _: str) -> Bucket:
        return self

    def paginate(self, **arguments: str) -> Iterator[dict[str, Any]]:
        self._count("ListObjectsV2")
        objects = [(key, data) for key, data in sorted(self.objects.items()) if key.startswith(arguments["Prefix"])]
        facts = {"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}
        yield {"Contents": [{"Key": key, "ETag": _etag(data), "Size": len(data), **facts} for key, data in objects]}

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
    """Return a signed audit-log entry."""
    key = project, sequence, version
    if key not in ENTRIES:
        event = {"action": "promote", "version": version, "champion": version, "manifest_sha256": version, "previous": None}
        fields = {
            "project": project,
            "sequence": sequence,
            **event,
            "by": "a",
            "reason": "b",
            "at": "c",
            "previous_entry": None,
        }
        document = AuditEntry.model_validate(fields).model_dump(mode="json")
        ENTRIES[key] = json.dumps({**document, "signatures": SIGNER.sign(document)}).encode()
    return ENTRIES[key]


class NoDiskCache(ModelCache):
    """A cache that does not write aliases to disk."""

    def remember_alias(self, place: str, project: str, data: bytes) -> None: ...

    def touch_aliases(self, place: str) -> None: ...


class Loader:
    """A fake validator; `on_load` runs during each load, and `rejected` versions fail."""

    def __init__(self) -> None:
        self.on_load: Callable[[], None] = lambda: None
        self.rejected: set[str] = set()
        self.loads = 0

    def load(self, project: str, version: str, sha256: str, fetch: object, trainers: object) -> Any:
        self.loads += 1
        self.on_load()
        if version in self.rejected:
            raise ModelLoadError("no")
        signature = SimpleNamespace(inputs=(), panel=None)
        manifest = SimpleNamespace(libraries={}, files={}, data={}, champion="linear", signature=signature)
        return SimpleNamespace(manifest=manifest, models={}, fast={"linear": None}, largest_difference=0.0)


class World:
    """A reconciler of one bucket, and a project `p` whose alias the test moves."""

    def __init__(
        self,
        folder: Path,
        poll: float = 1.0,
        bucket: Bucket | None = None,
        cache: ModelCache | None = None,
        loader: Any = None,
        witness: Any = None,
    ) -> None:
        self.bucket, self.loader, self.live = bucket or Bucket(), loader or Loader(), ActiveModels()
        cache, trust = cache or NoDiskCache(folder), TrustPolicy(KEYS, KEYS)
        store, self.metrics = Store(self.bucket, "b"), Metrics(self.live)
        loader = VersionLoader(fetcher(store, cache), trust, self.loader)
        self.reconciler = Reconciler(store, cache, loader, Swaps(self.live, self.metrics), poll, witness)
        self.sequence, self.version = 0, ""
        self.served_sequences: list[int] = []

    def move(self, version: str) -> None:
        self.sequence, self.version = self.sequence + 1, version
        self.bucket.put(alias_key("p"), entry("p", self.sequence, version))

    async def poll(self) -> None:
        await self.reconciler.poll_once()
        if served := self.live.find("p"):
            self.served_sequences.append(served.sequence)


@pytest.mark.slow
@pytest.mark.long
def test_ten_thousand_random_schedules_end_at_the_alias(tmp_path: Path) -> None:
    """Alias moves with lost, duplicate, late and reordered events, while the store fails and recovers."""

    async def schedule(seed: int) -> None:
        dice = random.Random(seed)
        world, events = World(tmp_path), list[int]()
        world.loader.on_load = lambda: world.move(f"v{dice.randrange(4)}") if dice.random() < 0.2 else None
        for _ in range(dice.randrange(1, 9)):
            step = dice.randrange(5)
            if step == 0:
                world.move(f"v{dice.randrange(4)}")
                events += [world.sequence] * dice.choice((0, 1, 1, 2))  # lost, delivered once, duplicated
            elif step == 1 and events:
                events.pop(dice.randrange(len(events)))  # in any order
                world.reconciler.notify()
                await world.poll()
            elif step == 2:
                world.bucket.broken = not world.bucket.broken
            else:
                await world.poll()
        world.bucket.broken, world.loader.on_load = False, lambda: None
        await world.poll()
        served = world.live.find("p")
        assert (served.version if served else "") == world.version, seed
        assert served is None or served.sequence <= world.sequence
        assert world.served_sequences == sorted(world.served_sequences), seed
        assert not world.reconciler.failures
        world.reconciler.close()

    async def every() -> None:
        for seed in range(SCHEDULES):
            await schedule(seed)

    asyncio.run(every())


def test_a_champion_older_than_the_prediction_log_is_refused_at_the_start(tmp_path: Path) -> None:
    async def failures(logged: int) -> dict[str, str]:
        world = World(tmp_path, witness=SimpleNamespace(latest_promotions=lambda: {"p": logged}))
        world.move("v1")
        await world.reconciler.start()
        world.reconciler.close()
        return dict(world.reconciler.failures)

    assert asyncio.run(failures(1)) == {}
    assert asyncio.run(failures(2)).keys() == {"p"}


def test_a_changed_prediction_log_is_reported_and_the_champion_served(tmp_path: Path) -> None:
    def changed() -> None:
        raise IntegrityError("the log does not continue")

    async def start() -> World:
        world = World(tmp_path, witness=SimpleNamespace(latest_promotions=changed))
        world.move("v1")
        await world.reconciler.start()
        world.reconciler.close()
        return world

    world = asyncio.run(start())
    assert world.live.find("p") and world.reconciler.log_error == "the log does not continue"


def test_a_thousand_notifications_cause_few_polls(tmp_path: Path) -> None:
    async def calls_after_notifications() -> int:
        world = World(tmp_path, poll=60)
        world.move("v1")
        await world.poll()
        running = asyncio.create_task(world.reconciler.run())
        await asyncio.sleep(0.3)
        before = world.bucket.calls
        for number in range(1000):
            world.reconciler.notify()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        running.cancel()
        return world.bucket.calls - before

    assert asyncio.run(calls_after_notifications()) <= 4  # one listing per poll


def test_a_failed_version_is_not_retried_until_the_alias_moves(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, poll=60)
        world.move("good")
        await world.poll()
        world.loader.rejected.add("bad")
        world.move("bad")
        for _ in range(5):
            await world.poll()
            assert world.reconciler.failures == {"p": "no"}
        assert world.loader.loads == 2
        world.move("better")
        await world.poll()
        served = world.live.find("p")
        assert served is not None
        assert (served.version, world.reconciler.failures) == ("better", {})

    asyncio.run(scenario())


def test_a_rollback_loads_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        for version in ("one", "two", "one", "two"):
            world.move(version)
            await world.poll()
        assert world.loader.loads == 2
        assert [record["warm"] for record in world.reconciler.swap_records] == [False, False, True, True]
        assert [record["to"] for record in world.reconciler.swap_records] == ["one", "two", "one", "two"]

    asyncio.run(scenario())


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_restart_does_not_accept_an_older_alias(tmp_path: Path, sequence: int) -> None:
    """The last alias is cached: it serves without the store, and an older entry is rejected."""

    async def restart() -> None:
        cache = ModelCache(tmp_path)
        cache.remember_alias("memory/b", "p", entry("p", 2, "two"))
        world = World(tmp_path)
        world.bucket.broken = True
        await world.reconciler.start()
        served = world.live.find("p")
        assert served is not None
        assert (served.version, bool(world.reconciler.store_checks.stale_since)) == ("two", True)
        world.bucket.broken = False
        world.bucket.put(alias_key("p"), entry("p", sequence, "one" if sequence == 1 else "two"))
        await world.poll()
        served = world.live.find("p")
        assert served is not None
        assert served.version == "two"
        assert ("older than entry 2" in world.reconciler.failures.get("p", "")) is (sequence == 1)
        assert world.reconciler.store_checks.stale_since is None

    asyncio.run(restart())

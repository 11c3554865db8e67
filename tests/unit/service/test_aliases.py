"""The reconciler with unsigned, missing, hanging and many aliases, against an in-memory bucket."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from podium.registry.champion_alias import alias_key
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError
from service import reconciler
from service.aliases import MAX_LISTED, MAX_NEW
from service.errors import ModelNotReady, UnknownProject
from service.staleness import MIN_STALE_SECONDS, public_reason
from tests.integration.service.test_reconciler import Bucket, Loader, World, entry

MAX_SECONDS = 5.0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "FIRST_POLL_SECONDS", 0.5)
    monkeypatch.setattr(reconciler, "FIRST_LOAD_SECONDS", 1.0)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


class HangingLoader(Loader):
    """Versions whose name starts with `hangs` do not load until the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def load(self, project: str, version: str, sha256: str, fetch: object, trainers: object) -> Any:
        if version.startswith("hangs"):
            self.over.wait(30)
        return super().load(project, version, sha256, fetch, trainers)


def put(world: World, project: str, sequence: int, version: str) -> None:
    world.bucket.put(alias_key(project), entry(project, sequence, version))


def serving(world: World, project: str) -> str | None:
    served = world.live.find(project)
    return served.version if served else None


@pytest.mark.parametrize("data", [b"{}", b"", b"\xff", b"[" * 100_000, b'{"signatures": {}}'])
def test_an_unsigned_alias_is_read_once_and_causes_no_failure(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        put(world, "p", 1, "v1")
        world.bucket.put(alias_key("unsigned"), data)
        for _ in range(4):
            await world.poll()
        assert serving(world, "p") == "v1"
        assert world.reconciler.failures == {}
        assert world.reconciler.rejected_aliases == {"count": 1, "projects": ["unsigned"]}
        assert world.bucket.reads.count(alias_key("unsigned")) == 1
        assert world.metrics.aliases_rejected == 1
        assert not any("unsigned" in key for key in world.metrics.swaps)
        with pytest.raises(UnknownProject):
            world.live.get("unsigned")
        world.reconciler.close()

    run(scenario())


def test_an_alias_is_accepted_once_it_is_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        world.bucket.put(alias_key("p"), b"{}")
        await world.poll()
        put(world, "p", 1, "v1")
        await world.poll()
        assert (serving(world, "p"), world.reconciler.rejected_aliases["count"]) == ("v1", 0)
        world.reconciler.close()

    run(scenario())


def test_a_thousand_unsigned_aliases_delay_no_project(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        put(world, "zebra", 1, "v1")
        await world.poll()
        for number in range(1000):
            world.bucket.put(alias_key(f"bogus-{number}"), b"{}")
        put(world, "zebra", 2, "v2")
        before = len(world.bucket.reads)
        await world.poll()
        assert serving(world, "zebra") == "v2"
        assert len(world.bucket.reads) - before <= MAX_NEW + 1
        for _ in range(1000 // MAX_NEW):
            await world.poll()
        assert world.reconciler.rejected_aliases["count"] == 1000
        assert len(world.reconciler.rejected_aliases["projects"]) == MAX_LISTED
        before = world.bucket.calls
        await world.poll()
        assert world.bucket.calls - before == 1  # the listing
        world.reconciler.close()

    run(scenario())


def test_a_new_project_is_found_among_unsigned_aliases_that_keep_changing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        for round_number in range(4):
            for number in range(3 * MAX_NEW):
                world.bucket.put(alias_key(f"bogus-{number}"), b"{}" + b" " * round_number)
            await world.poll()
        put(world, "zebra", 1, "v1")
        await world.poll()
        assert serving(world, "zebra") == "v1"
        world.reconciler.close()

    run(scenario())


def test_a_project_whose_alias_is_deleted_keeps_serving_even_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world = World(tmp_path, cache=ModelCache(tmp_path))
        put(world, "p", 1, "v1")
        await world.poll()
        del world.bucket.objects[alias_key("p")]
        await world.poll()
        world.reconciler.close()
        restarted = World(tmp_path, bucket=world.bucket, cache=ModelCache(tmp_path))
        await restarted.reconciler.start()
        for either in (world, restarted):
            assert serving(either, "p") == "v1"
            assert either.reconciler.failures["p"].startswith("alias-missing")
            assert either.metrics.aliases_missing == 1
        assert "an alias is missing" in caplog.text
        assert restarted.reconciler.is_initialized
        put(restarted, "p", 2, "v2")
        await restarted.poll()
        assert (serving(restarted, "p"), restarted.reconciler.failures, restarted.metrics.aliases_missing) == ("v2", {}, 0)
        restarted.reconciler.close()

    run(scenario())


@pytest.mark.parametrize("alias", [b"{}", entry("p", 1, "v1")])
def test_a_start_serves_the_cached_alias_when_the_alias_is_invalid(tmp_path: Path, alias: bytes) -> None:
    async def scenario() -> None:
        ModelCache(tmp_path).remember_alias("memory/b", "p", entry("p", 2, "v2"))
        world = World(tmp_path)
        world.bucket.put(alias_key("p"), alias)
        await world.reconciler.start()
        assert (serving(world, "p"), world.reconciler.is_initialized) == ("v2", True)
        await world.poll()
        assert (serving(world, "p"), list(world.reconciler.failures)) == ("v2", ["p"])
        world.reconciler.close()

    run(scenario())


def test_a_failed_project_is_no_longer_a_failure_after_its_alias_is_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        world.loader.rejected.add("bad")
        put(world, "p", 1, "bad")
        await world.poll()
        assert world.reconciler.failures == {"p": "no"}
        del world.bucket.objects[alias_key("p")]
        await world.poll()
        assert world.reconciler.failures == {}
        world.reconciler.close()

    run(scenario())


def test_a_version_that_hangs_delays_no_other_project(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, poll=0.1, loader=HangingLoader())
        for number in range(3):
            put(world, f"slow-{number}", 1, f"hangs-{number}")
        put(world, "p", 1, "v1")
        started = time.monotonic()
        await world.reconciler.start()
        task = asyncio.create_task(world.reconciler.run())
        for sequence in (2, 3):
            put(world, "p", sequence, f"v{sequence}")
            while serving(world, "p") != f"v{sequence}":
                await asyncio.sleep(0.02)
        await world.reconciler.poll_once("p")
        assert time.monotonic() - started < MAX_SECONDS
        assert not world.reconciler.is_initialized  # three projects still load
        task.cancel()
        world.loader.over.set()
        world.reconciler.close()

    run(scenario())


def test_a_start_waits_for_the_versions_that_the_poll_found(tmp_path: Path) -> None:
    class SlowLoader(Loader):
        def load(self, *arguments: Any) -> Any:
            time.sleep(reconciler.FIRST_POLL_SECONDS + 0.3)
            return super().load(*arguments)

    async def scenario() -> None:
        world = World(tmp_path, loader=SlowLoader())
        put(world, "p", 1, "v1")
        await world.reconciler.start()
        assert serving(world, "p") == "v1"
        world.reconciler.close()

    run(scenario())


def test_a_start_completes_while_a_version_hangs_and_reports_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "FIRST_LOAD_SECONDS", 0.5)

    async def scenario() -> None:
        ModelCache(tmp_path).remember_alias("memory/b", "known", entry("known", 1, "v1"))
        world = World(tmp_path, loader=HangingLoader())
        put(world, "p", 1, "hangs")
        put(world, "known", 2, "hangs-too")
        started = time.monotonic()
        await world.reconciler.start()
        assert time.monotonic() - started < MAX_SECONDS
        assert not world.reconciler.is_initialized
        assert serving(world, "known") == "v1"
        with pytest.raises(ModelNotReady):
            world.live.get("p")
        world.loader.over.set()
        await world.reconciler.poll_once()
        assert (serving(world, "p"), serving(world, "known")) == ("hangs", "hangs-too")
        world.reconciler.close()

    run(scenario())


class SlowBucket(Bucket):
    """Counts concurrent listings."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.max_running = self.listings = 0

    def paginate(self, **arguments: str) -> Any:
        self.running += 1
        self.listings += 1
        self.max_running = max(self.max_running, self.running)
        time.sleep(0.1)
        self.running -= 1
        return super().paginate(**arguments)


def test_polls_do_not_overlap_and_are_shared(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = SlowBucket()
        world = World(tmp_path, bucket=bucket)
        put(world, "p", 1, "v1")
        first = asyncio.create_task(world.reconciler.poll_once())
        await asyncio.sleep(0.05)
        put(world, "p", 2, "v2")
        await asyncio.gather(*(world.reconciler.poll_once() for _ in range(20)), first)
        assert (bucket.max_running, bucket.listings, serving(world, "p")) == (1, 2, "v2")
        world.reconciler.close()

    run(scenario())


def test_a_cancelled_poll_does_not_break_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, bucket=SlowBucket())
        put(world, "p", 1, "v1")
        cancelled = asyncio.create_task(world.reconciler.poll_once())
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(world.reconciler.poll_once())
        cancelled.cancel()
        await waiting
        assert serving(world, "p") == "v1"
        world.reconciler.close()

    run(scenario())


def test_a_failing_store_is_reported_as_stale_with_the_class_of_the_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, poll=0.1)
        put(world, "p", 1, "v1")
        await world.poll()
        assert (world.reconciler.store_checks.stale_since, world.metrics.store_up) == (None, True)
        world.bucket.broken = True
        await asyncio.sleep(MIN_STALE_SECONDS + 0.1)
        await world.poll()
        checks = world.reconciler.store_checks
        assert checks.stale_since == checks.checked_at[:19] + "+00:00"  # type: ignore[index]
        assert checks.error in ("store-unavailable: ClientError", "store-unavailable: EndpointConnectionError")
        assert (world.metrics.store_up, serving(world, "p")) == (False, "v1")
        assert 0 < world.metrics.store_last_success < time.time()
        world.bucket.broken = False
        await world.poll()
        assert (checks.stale_since, checks.error, world.metrics.store_up) == (None, None, True)
        world.reconciler.close()

    run(scenario())


def test_store_errors_are_reported_without_addresses() -> None:
    error = StoreError("GetObject s3://secret-bucket/x: http://10.0.0.1 did not answer")
    error.__cause__ = ReadTimeoutError(endpoint_url="http://10.0.0.1")
    assert public_reason(error) == "store-unavailable: ReadTimeoutError"
    assert "10.0.0.1" not in public_reason(ReadTimeoutError(endpoint_url="http://10.0.0.1"))


def test_a_failed_swap_is_logged_once_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        world = World(tmp_path, poll=0.001)
        world.loader.rejected.add("bad")
        put(world, "p", 1, "bad")
        for _ in range(5):
            await world.poll()
            await asyncio.sleep(0.01)
        world.reconciler.close()

    with caplog.at_level(logging.WARNING):
        run(scenario())
    records = [record for record in caplog.records if "failed to load p bad" in record.getMessage()]
    extra = [(record.__dict__["project"], record.__dict__["version"], record.__dict__["reason"]) for record in records]
    assert extra == [("p", "bad", "no")]


def test_fifty_swaps_leave_no_garbage(tmp_path: Path) -> None:
    async def scenario() -> None:
        references: list[weakref.ref[Any]] = []

        class WatchedManifest(SimpleNamespace):
            """A namespace that weak references can watch."""

        class CyclicLoader(Loader):
            def load(self, *args: Any) -> Any:
                loaded = super().load(*args)
                manifest = WatchedManifest(**vars(loaded.manifest))
                loaded.manifest = manifest.cycle = manifest  # only a garbage collection frees it
                references.append(weakref.ref(manifest))
                return loaded

        world = World(tmp_path, loader=CyclicLoader())
        await world.reconciler.start()
        for number in range(50):
            world.move(f"v{number}")
            await world.poll()
        gc.collect()
        assert len(references) == 50
        assert sum(ref() is not None for ref in references) <= 3
        world.reconciler.close()

    run(scenario())
    gc.unfreeze()

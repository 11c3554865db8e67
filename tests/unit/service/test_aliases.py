"""What the loop makes of aliases: strangers', missing, hanging and many, against a bucket in memory."""

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

from podium.registry.audit_log import alias_key
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError
from service.aliases import MAX_NEW, MAX_SHOWN
from service.errors import ModelNotReady, UnknownProject
from service.staleness import MIN_STALE_SECONDS, public_reason
from tests.integration.service.test_reconciler import Bucket, Loader, World, entry

GENEROUS = 5.0


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


class HangingLoader(Loader):
    """Versions called `hangs` do not load until the test is over."""

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
    found = world.live.find(project)
    return found.version if found else None


@pytest.mark.parametrize("data", [b"{}", b"", b"\xff", b"[" * 100_000, b'{"signatures": {}}'])
def test_a_strangers_alias_is_read_once_and_fails_nothing(tmp_path: Path, data: bytes) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        put(world, "p", 1, "v1")
        world.bucket.put(alias_key("stranger"), data)
        for _ in range(4):
            await world.look()
        assert serving(world, "p") == "v1"
        assert world.loop.failures == {}
        assert world.loop.rejected == {"count": 1, "projects": ["stranger"]}
        assert world.bucket.reads.count(alias_key("stranger")) == 1
        assert world.metrics.aliases_rejected == 1
        assert not any("stranger" in key for key in world.metrics.swaps)
        with pytest.raises(UnknownProject):
            world.live.get("stranger")
        world.loop.close()

    run(looks())


def test_an_alias_becomes_accepted_once_it_is_signed(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        world.bucket.put(alias_key("p"), b"{}")
        await world.look()
        put(world, "p", 1, "v1")
        await world.look()
        assert (serving(world, "p"), world.loop.rejected["count"]) == ("v1", 0)
        world.loop.close()

    run(looks())


def test_a_thousand_strangers_delay_no_project(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        put(world, "zebra", 1, "v1")
        await world.look()
        for number in range(1000):
            world.bucket.put(alias_key(f"bogus-{number}"), b"{}")
        put(world, "zebra", 2, "v2")
        before = len(world.bucket.reads)
        await world.look()
        assert serving(world, "zebra") == "v2"
        assert len(world.bucket.reads) - before <= MAX_NEW + 1
        for _ in range(1000 // MAX_NEW):
            await world.look()
        assert world.loop.rejected["count"] == 1000
        assert len(world.loop.rejected["projects"]) == MAX_SHOWN
        before = world.bucket.calls
        await world.look()
        assert world.bucket.calls - before == 1  # the listing
        world.loop.close()

    run(looks())


def test_a_new_project_is_found_among_strangers_that_change_all_the_time(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        for turn in range(4):
            for number in range(3 * MAX_NEW):
                world.bucket.put(alias_key(f"bogus-{number}"), b"{}" + b" " * turn)
            await world.look()
        put(world, "zebra", 1, "v1")
        await world.look()
        assert serving(world, "zebra") == "v1"
        world.loop.close()

    run(looks())


def test_a_project_without_its_alias_goes_on_serving_and_after_a_restart_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def looks() -> None:
        world = World(tmp_path, cache=ModelCache(tmp_path))
        put(world, "p", 1, "v1")
        await world.look()
        del world.bucket.objects[alias_key("p")]
        await world.look()
        world.loop.close()
        again = World(tmp_path, bucket=world.bucket, cache=ModelCache(tmp_path))
        await again.loop.start()
        for each in (world, again):
            assert serving(each, "p") == "v1"
            assert each.loop.failures["p"].startswith("alias-missing")
            assert each.metrics.aliases_missing == 1
        assert "an alias is missing" in caplog.text
        assert again.loop.settled
        put(again, "p", 2, "v2")
        await again.look()
        assert (serving(again, "p"), again.loop.failures, again.metrics.aliases_missing) == ("v2", {}, 0)
        again.loop.close()

    run(looks())


@pytest.mark.parametrize("alias", [b"{}", entry("p", 1, "v1")])
def test_a_start_serves_what_is_remembered_when_the_alias_is_bad(tmp_path: Path, alias: bytes) -> None:
    async def looks() -> None:
        ModelCache(tmp_path).remember_alias("memory/b", "p", entry("p", 2, "v2"))
        world = World(tmp_path)
        world.bucket.put(alias_key("p"), alias)
        await world.loop.start()
        assert (serving(world, "p"), world.loop.settled) == ("v2", True)
        await world.look()
        assert (serving(world, "p"), list(world.loop.failures)) == ("v2", ["p"])
        world.loop.close()

    run(looks())


def test_a_failed_project_that_is_withdrawn_is_no_failure_any_more(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path)
        world.loader.refused.add("bad")
        put(world, "p", 1, "bad")
        await world.look()
        assert world.loop.failures == {"p": "no"}
        del world.bucket.objects[alias_key("p")]
        await world.look()
        assert world.loop.failures == {}
        world.loop.close()

    run(looks())


def test_a_version_that_hangs_delays_no_other_project(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path, poll=0.1, loader=HangingLoader())
        for number in range(3):
            put(world, f"slow-{number}", 1, f"hangs-{number}")
        put(world, "p", 1, "v1")
        began = time.monotonic()
        await world.loop.start()
        task = asyncio.create_task(world.loop.run())
        for sequence in (2, 3):
            put(world, "p", sequence, f"v{sequence}")
            while serving(world, "p") != f"v{sequence}":
                await asyncio.sleep(0.02)
        await world.loop.look("p")
        assert time.monotonic() - began < GENEROUS
        assert not world.loop.settled  # three projects still load
        task.cancel()
        world.loader.over.set()
        world.loop.close()

    run(looks())


def test_a_start_opens_while_a_version_hangs_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    async def looks() -> None:
        ModelCache(tmp_path).remember_alias("memory/b", "known", entry("known", 1, "v1"))
        world = World(tmp_path, loader=HangingLoader())
        put(world, "p", 1, "hangs")
        put(world, "known", 2, "hangs-too")
        began = time.monotonic()
        await world.loop.start()
        assert time.monotonic() - began < GENEROUS
        assert not world.loop.settled
        assert serving(world, "known") == "v1"
        with pytest.raises(ModelNotReady):
            world.live.get("p")
        world.loader.over.set()
        await world.loop.look()
        assert (serving(world, "p"), serving(world, "known")) == ("hangs", "hangs-too")
        world.loop.close()

    run(looks())


class SlowBucket(Bucket):
    """Notes how many listings run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = self.listings = 0

    def paginate(self, **asked: str) -> Any:
        self.running += 1
        self.listings += 1
        self.most = max(self.most, self.running)
        time.sleep(0.1)
        self.running -= 1
        return super().paginate(**asked)


def test_looks_do_not_overlap_and_are_shared(tmp_path: Path) -> None:
    async def looks() -> None:
        bucket = SlowBucket()
        world = World(tmp_path, bucket=bucket)
        put(world, "p", 1, "v1")
        first = asyncio.create_task(world.loop.look())
        await asyncio.sleep(0.05)
        put(world, "p", 2, "v2")
        await asyncio.gather(*(world.loop.look() for _ in range(20)), first)
        assert (bucket.most, bucket.listings, serving(world, "p")) == (1, 2, "v2")
        world.loop.close()

    run(looks())


def test_a_look_that_fails_or_is_left_spoils_no_later_one(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path, bucket=SlowBucket())
        put(world, "p", 1, "v1")
        left = asyncio.create_task(world.loop.look())
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(world.loop.look())
        left.cancel()
        await waiting
        assert serving(world, "p") == "v1"
        world.loop.close()

    run(looks())


def test_a_store_that_fails_is_told_as_stale_with_the_class_of_the_error(tmp_path: Path) -> None:
    async def looks() -> None:
        world = World(tmp_path, poll=0.1)
        put(world, "p", 1, "v1")
        await world.look()
        assert (world.loop.looks.stale_since, world.metrics.store_up) == (None, True)
        world.bucket.broken = True
        await asyncio.sleep(MIN_STALE_SECONDS + 0.1)
        await world.look()
        looks = world.loop.looks
        assert looks.stale_since == looks.looked_at[:19] + "+00:00"  # type: ignore[index]
        assert looks.error in ("store-unavailable: ClientError", "store-unavailable: EndpointConnectionError")
        assert (world.metrics.store_up, serving(world, "p")) == (False, "v1")
        assert 0 < world.metrics.store_last_success < time.time()
        world.bucket.broken = False
        await world.look()
        assert (looks.stale_since, looks.error, world.metrics.store_up) == (None, None, True)
        world.loop.close()

    run(looks())


def test_an_error_of_the_store_is_named_without_addresses() -> None:
    error = StoreError("GetObject s3://secret-bucket/x: http://10.0.0.1 did not answer")
    error.__cause__ = ReadTimeoutError(endpoint_url="http://10.0.0.1")
    assert public_reason(error) == "store-unavailable: ReadTimeoutError"
    assert "10.0.0.1" not in public_reason(ReadTimeoutError(endpoint_url="http://10.0.0.1"))


def test_a_failed_swap_is_logged_once_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def looks() -> None:
        world = World(tmp_path, poll=0.001)
        world.loader.refused.add("bad")
        put(world, "p", 1, "bad")
        for _ in range(5):
            await world.look()
            await asyncio.sleep(0.01)
        world.loop.close()

    with caplog.at_level(logging.WARNING):
        run(looks())
    records = [record for record in caplog.records if "not put in service" in record.getMessage()]
    facts = [(record.__dict__["project"], record.__dict__["version"], record.__dict__["reason"]) for record in records]
    assert facts == [("p", "bad", "no")]


def test_fifty_swaps_keep_no_garbage(tmp_path: Path) -> None:
    async def looks() -> None:
        made: list[weakref.ref[Any]] = []

        class Kept(SimpleNamespace):
            """A namespace that can be watched."""

        class CyclicLoader(Loader):
            def load(self, *given: Any) -> Any:
                loaded = super().load(*given)
                kept = Kept(**vars(loaded.manifest))
                loaded.manifest = kept.itself = kept  # only a collection frees it
                made.append(weakref.ref(kept))
                return loaded

        world = World(tmp_path, loader=CyclicLoader())
        await world.loop.start()
        for number in range(50):
            world.move(f"v{number}")
            await world.look()
        gc.collect()
        assert len(made) == 50
        assert sum(ref() is not None for ref in made) <= 3
        world.loop.close()

    run(looks())
    gc.unfreeze()

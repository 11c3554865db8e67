"""Background tasks that end are counted and start again; pools hold what hangs; metrics of processes add up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import yaml

from podium.settings import ROOT
from podium.storage.object_store import StoreError
from service.active_models import ActiveModels
from service.background import supervised
from service.dask_executor import DaskExecutor
from service.metrics import MAX_VERSIONS, Metrics
from service.settings import ServiceSettings
from service.store_calls import PAGE_SECONDS, THREADS, from_store
from service.thread_pools import ThreadPool


def fails() -> None:
    raise OSError("no")


def is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("ends", [fails, is_cancelled, lambda: None])
def test_a_task_that_ends_is_counted_and_starts_again(ends: Callable[[], None]) -> None:
    async def run() -> None:
        metrics, started, again = Metrics(ActiveModels()), 0, asyncio.Event()

        async def work() -> None:
            nonlocal started
            started += 1
            if started < 3:
                return ends()
            again.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(supervised("work", work, metrics, pause=0.01))
        await asyncio.wait_for(again.wait(), 5)
        assert metrics.background_failures == {"work": 2}
        assert b'background_task_failures_total{task="work"} 2.0' in metrics.text()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_calls_that_hang_leave_pages_and_other_threads_free() -> None:
    over = threading.Event()

    async def page() -> float:
        began = time.monotonic()
        with pytest.raises(StoreError):
            await from_store(over.wait, 30)
        return time.monotonic() - began

    async def run() -> None:
        try:
            slowest = max(await asyncio.gather(*(page() for _ in range(10 * THREADS))))
            assert slowest < PAGE_SECONDS + 2
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 2) == "free"
            assert await ThreadPool(1, "other").run(lambda: "free") == "free"
        finally:
            over.set()
        assert await from_store(lambda: "well again") == "well again"

    asyncio.run(run())


def test_metrics_of_several_processes_tell_the_oldest_look_and_every_failure() -> None:
    one, other = Metrics(ActiveModels()), Metrics(ActiveModels())
    one.store_last_success, one.store_up, one.aliases_missing = 200.0, True, 1
    other.store_last_success, other.store_up, other.aliases_rejected = 100.0, False, 3
    other.background_failures["dask"] += 2
    text = one.with_others([(True, other.dump())]).text().decode()
    for line in (
        "store_last_success_timestamp_seconds 100.0",
        "store_up 0.0",
        "aliases_missing 1.0",
        "aliases_rejected_total 3.0",
        'background_task_failures_total{task="dask"} 2.0',
    ):
        assert line in text
    assert "store_up 1.0" in one.with_others([(False, other.dump())]).text().decode()


def test_versions_that_went_long_ago_leave_the_metrics() -> None:
    metrics = Metrics(ActiveModels())
    for number in range(100):
        metrics.swapped("p", f"v{number}")
        metrics.answered("p", f"v{number}", 200, 0.001)
    assert len(metrics.predictions) == MAX_VERSIONS
    assert metrics.served("p", "v99") == 1


def test_alerts_name_metrics_that_there_are() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    metrics = Metrics(ActiveModels())
    text = metrics.text().decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for rule in rules:
        used = {name.removesuffix("_total") for name in names if name.removesuffix("_total") in rule["expr"]}
        assert used or "up{" in rule["expr"], rule["alert"]
        assert rule["annotations"]["summary"]
    assert {"StoreStale", "SwapFailed", "JobFailed", "InboxErrors", "QueueLong", "Draining"} <= {
        rule["alert"] for rule in rules
    }


def test_a_cluster_that_does_not_start_is_tried_again() -> None:
    async def run() -> None:
        spread = DaskExecutor(ServiceSettings(dask_address="tcp://127.0.0.1:1", dask_timeout=0.2))
        metrics = Metrics(ActiveModels())
        task = asyncio.create_task(supervised("dask", spread.run, metrics, pause=0.01))
        while metrics.background_failures["dask"] < 2:
            await asyncio.sleep(0.05)
        assert spread.state["mode"] in ("starting", "failed")
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(spread.close)

    asyncio.run(asyncio.wait_for(run(), 30))

"""Background tasks restart, thread pools isolate hanging calls, and metrics of several processes add up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from podium.local.processes import Process, free_ports
from podium.settings import ROOT
from podium.storage.object_store import StoreError
from service.active_models import ActiveModels
from service.background import supervised
from service.dask_executor import DaskExecutor
from service.metrics import MAX_VERSIONS, Metrics
from service.settings import ServiceSettings
from service.store_calls import PAGE_SECONDS, THREADS, from_store
from service.thread_pools import ThreadPool


def fail() -> None:
    raise OSError("no")


def cancel() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("end", [fail, cancel, lambda: None])
def test_a_task_that_ends_is_counted_and_restarted(end: Callable[[], None]) -> None:
    async def run() -> None:
        metrics, started, restarted = Metrics(ActiveModels()), 0, asyncio.Event()

        async def work() -> None:
            nonlocal started
            started += 1
            if started < 3:
                return end()
            restarted.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(supervised("work", work, metrics, pause=0.01))
        await asyncio.wait_for(restarted.wait(), 5)
        assert metrics.background_failures == {"work": 2}
        assert b'background_task_failures_total{task="work"} 2.0' in metrics.text()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_hanging_store_calls_do_not_block_pages_or_other_threads() -> None:
    over = threading.Event()

    async def page() -> float:
        started = time.monotonic()
        with pytest.raises(StoreError):
            await from_store(over.wait, 30)
        return time.monotonic() - started

    async def run() -> None:
        try:
            slowest = max(await asyncio.gather(*(page() for _ in range(10 * THREADS))))
            assert slowest < PAGE_SECONDS + 2
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 2) == "free"
            assert await ThreadPool(1, "other").run(lambda: "free") == "free"
        finally:
            over.set()
        assert await from_store(lambda: "recovered") == "recovered"

    asyncio.run(run())


def test_merged_metrics_have_the_oldest_store_check_and_all_failures() -> None:
    one, other = Metrics(ActiveModels()), Metrics(ActiveModels())
    one.store_last_success, one.store_up, one.aliases_missing = 200.0, True, 1
    other.store_last_success, other.store_up, other.aliases_rejected = 100.0, False, 3
    other.background_failures["dask"] += 2
    text = one.merged_with([(True, other.dump())]).text().decode()
    for line in (
        "store_last_success_timestamp_seconds 100.0",
        "store_up 0.0",
        "aliases_missing 1.0",
        "aliases_rejected_total 3.0",
        'background_task_failures_total{task="dask"} 2.0',
    ):
        assert line in text
    assert "store_up 1.0" in one.merged_with([(False, other.dump())]).text().decode()


def test_metrics_drop_old_versions() -> None:
    metrics = Metrics(ActiveModels())
    for number in range(100):
        metrics.record_swap("p", f"v{number}")
        metrics.record_prediction("p", f"v{number}", 200, 0.001)
    assert len(metrics.predictions) == MAX_VERSIONS
    assert metrics.successful("p", "v99") == 1


def test_alert_rules_use_existing_metrics() -> None:
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


def test_a_cluster_that_fails_to_start_is_started_again() -> None:
    async def run() -> None:
        dask = DaskExecutor(ServiceSettings(dask_address="tcp://127.0.0.1:1", dask_timeout=0.2))
        metrics = Metrics(ActiveModels())
        task = asyncio.create_task(supervised("dask", dask.run, metrics, pause=0.01))
        while metrics.background_failures["dask"] < 2:
            await asyncio.sleep(0.05)
        assert dask.state["mode"] in ("starting", "failed")
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(dask.close)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_scheduler_that_hangs_delays_batches_by_the_timeout_only(tmp_path: Path) -> None:
    """Every thread falls back to its own process, although all of them wait for the same scheduler."""
    port, features = free_ports(1)[0], np.ones((2000, 3))
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    scheduler = Process([*command, "--no-dashboard"], tmp_path / "scheduler.log", os.environ)
    scorer = SimpleNamespace(scores=lambda rows: rows[:, :1])
    served: Any = SimpleNamespace(models={"m": SimpleNamespace(scorer=scorer)}, project="p", version="v", manifest_sha256="0")
    try:
        while not scheduler.listens(port):
            time.sleep(0.05)
        dask = DaskExecutor(ServiceSettings(dask_address=f"tcp://127.0.0.1:{port}", dask_timeout=2.0))
        while dask.state["mode"] == "starting":
            time.sleep(0.05)
        os.kill(scheduler.pid, signal.SIGSTOP)
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: dask.scores_of(served, "m", features), range(4)))
        assert time.monotonic() - started < 10
        assert all(np.array_equal(result, features[:, :1]) for result in results)
        assert dask.state["fallbacks"] == 4
        os.kill(scheduler.pid, signal.SIGCONT)
        dask.close()
    finally:
        scheduler.stop()

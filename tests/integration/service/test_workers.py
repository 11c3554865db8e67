"""Several worker processes behind one socket: same models, shared results, replacement of killed workers."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, start_service
from podium.project import Project
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.validation import Validator
from podium.registry.versions import Manifest
from tests import tables
from tests.conftest import publish_champion

pytestmark = pytest.mark.slow

CSV = {"content-type": "text/csv"}
RECORD = {"petal": 2.5, "sepal": 5.1}
PATH = "/projects/many/predict"
ENTRIES: dict[str, Any] = {"name": "many", "target": "kind", "families": ["linear"], "n_trials": 1}


@pytest.fixture(scope="module")
def own_context(own_cloud: LocalCloud, validator: Validator) -> PromotionContext:
    return replace(promotion_context(own_cloud), validator=validator)


@pytest.fixture(scope="module")
def versions(own_context: PromotionContext) -> list[Manifest]:
    project = Project(data="s3://podium/none", **ENTRIES)
    return [publish_champion(own_context, tables.flowers(seed=seed), project) for seed in (21, 22)]


@pytest.fixture(scope="module")
def two_workers(own_cloud: LocalCloud, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    (port,) = free_ports(1)
    variables = {"PODIUM_POLL_SECONDS": "0.5", "PODIUM_DASK_WORKERS": "1", "PODIUM_ASYNC_THRESHOLD_BYTES": "2000"}
    process = start_service({**own_cloud.environment, **variables}, port, tmp_path_factory.mktemp("two"), workers=2)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        client.wait_until(lambda: all_serve(client, versions[1].version), 60)
        yield client
    finally:
        process.stop(30)


def workers(client: Client) -> list[dict[str, Any]]:
    status: list[dict[str, Any]] = client.get("/status").json()["workers"]
    return status


def all_serve(client: Client, version: str) -> bool:
    return [worker["serving"].get("many") for worker in workers(client)] == [version] * 2


def test_both_workers_serve_and_swap(two_workers: Client, own_context: PromotionContext, versions: list[Manifest]) -> None:
    promote(own_context, "many", versions[0].version, "a test", utc_now, force=True)
    two_workers.wait_until(lambda: all_serve(two_workers, versions[0].version), 20)
    assert len({worker["pid"] for worker in workers(two_workers)}) == 2
    assert two_workers.get("/status").json()["oldest_check_seconds"] < 60
    promote(own_context, "many", versions[1].version, "a test", utc_now, force=True)
    two_workers.wait_until(lambda: all_serve(two_workers, versions[1].version), 20)


def test_results_and_jobs_are_available_from_every_worker(two_workers: Client) -> None:
    page = two_workers.post("/projects/many/predict.html", b"petal,sepal\n" + b"2.5,5.1\n" * 12, CSV).text
    match = re.search(r"/jobs/[^\"]+/result\.csv", page)
    assert match
    job = two_workers.post("/projects/many/batch.json", b"petal,sepal\n" + b"2.5,5.1\n" * 1000, CSV).headers["location"]
    two_workers.wait_until(lambda: two_workers.get(job).json()["state"] == "done", 30)
    for path in (match[0], job, f"{job}/result.csv"):
        assert {two_workers.get(path).status for _ in range(20)} == {200}  # each request is a new connection to either worker


def test_metrics_include_all_workers(two_workers: Client, versions: list[Manifest]) -> None:
    line = f'predictions_total{{model_name="many",model_version="{versions[1].version}",status="200"}}'

    def count() -> float:
        match = re.search(re.escape(line) + r" ([0-9.]+)", two_workers.get("/metrics").text)
        return float(match[1]) if match else 0.0

    before = count()
    for _ in range(50):
        assert two_workers.post_json(PATH, RECORD).status == 200
    two_workers.wait_until(lambda: count() >= before + 50, 10)


def test_killed_workers_are_replaced(two_workers: Client, versions: list[Manifest]) -> None:
    """A kill may fail only the requests that the worker was processing."""
    outcomes: Counter[str] = Counter()
    stopped = threading.Event()

    def send_requests() -> None:
        while not stopped.is_set():
            try:
                outcomes["success" if two_workers.post_json(PATH, RECORD).status == 200 else "failure"] += 1
            except OSError:
                outcomes["broken"] += 1
            time.sleep(0.002)

    threads = [threading.Thread(target=send_requests) for _ in range(2)]
    for thread in threads:
        thread.start()
    kills = 0
    try:
        for _ in range(3):
            os.kill(workers(two_workers)[0]["pid"], signal.SIGKILL)
            kills += 1
            time.sleep(1)
            two_workers.wait_until(lambda: all_serve(two_workers, versions[1].version), 60)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert outcomes["failure"] == 0
    assert outcomes["broken"] <= kills * len(threads)
    assert outcomes["success"] > 500


def test_evicted_models_are_reloaded_on_the_next_request(validator: Validator, tmp_path: Path) -> None:
    """Memory for about two of four projects: requests to all of them succeed, and inbox files are processed."""
    names = [f"lru-{number}" for number in range(4)]
    (port,) = free_ports(1)
    with LocalCloud(tmp_path / "cloud", port) as cloud:
        context = replace(promotion_context(cloud), validator=validator)
        manifests = [
            publish_champion(
                context, tables.flowers(seed=number), Project(data="s3://podium/none", **{**ENTRIES, "name": name})
            )
            for number, name in enumerate(names)
        ]
        size = max(
            sum(file.size for name, file in manifest.files.items() if name.startswith("models/")) for manifest in manifests
        )
        variables = {"PODIUM_MODEL_MEMORY": str(int(2.5 * size)), "PODIUM_DASK_WORKERS": "0"}
        process = start_service({**cloud.environment, **variables}, port, tmp_path)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 60)
            for name, manifest in [*zip(names, manifests, strict=True)] * 2:
                response = client.post_json(f"/projects/{name}/predict", RECORD)
                assert (response.status, response.headers["x-model-version"]) == (200, manifest.version)
                status = client.get("/status").json()
                assert len(status["serving"]) <= 2
                assert name not in status["evicted"]
            assert "lru-0" in client.get("/status").json()["evicted"]
            assert client.get("/readyz").status == 200
            assert "Unloaded to save memory" in client.get("/").text
            cloud.client().put_object(Bucket="podium", Key="inbox/lru-0/x.csv", Body=b"petal,sepal\n2.5,5.1\n")
            client.wait_until(lambda: client.get("/status").json()["inbox"].get("done", 0) == 1, 20)
        finally:
            process.stop()

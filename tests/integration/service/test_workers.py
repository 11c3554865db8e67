"""Several processes behind one socket: they serve the same, find each other's results, and one may die."""

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
from tests.conftest import Put, publish_champion

CSV = {"content-type": "text/csv"}
RECORD = {"petal": 2.5, "sepal": 5.1}
PATH = "/projects/many/predict"
ENTRIES: dict[str, Any] = {"name": "many", "target": "kind", "families": ["linear"], "n_trials": 1}


@pytest.fixture(scope="module")
def versions(put_champion: Put) -> list[Manifest]:
    return [put_champion(tables.flowers(seed=seed), **ENTRIES) for seed in (21, 22)]


@pytest.fixture(scope="module")
def two(cloud: LocalCloud, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    (port,) = free_ports(1)
    own = {"PODIUM_POLL_SECONDS": "0.5", "PODIUM_DASK_WORKERS": "1", "PODIUM_ASYNC_THRESHOLD_BYTES": "2000"}
    process = start_service({**cloud.environment, **own}, port, tmp_path_factory.mktemp("two"), workers=2)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        client.wait_until(lambda: agree(client, versions[1].version), 60)
        yield client
    finally:
        process.stop(30)


def workers(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/status").json()["workers"]
    return found


def agree(client: Client, version: str) -> bool:
    return [each["serving"].get("many") for each in workers(client)] == [version] * 2


def test_both_answer_and_both_swap(two: Client, cloud_context: PromotionContext, versions: list[Manifest]) -> None:
    promote(cloud_context, "many", versions[0].version, "a test", utc_now, force=True)
    two.wait_until(lambda: agree(two, versions[0].version), 20)
    assert len({each["pid"] for each in workers(two)}) == 2
    assert two.get("/status").json()["oldest_look_seconds"] < 60
    promote(cloud_context, "many", versions[1].version, "a test", utc_now, force=True)
    two.wait_until(lambda: agree(two, versions[1].version), 20)


def test_results_and_jobs_are_found_by_whoever_is_asked(two: Client) -> None:
    page = two.post("/projects/many/predict.html", b"petal,sepal\n" + b"2.5,5.1\n" * 12, CSV).text
    found = re.search(r"/jobs/[^\"]+/result\.csv", page)
    assert found
    job = two.post("/projects/many/batch.json", b"petal,sepal\n" + b"2.5,5.1\n" * 1000, CSV).headers["location"]
    two.wait_until(lambda: two.get(job).json()["state"] == "done", 30)
    for path in (found[0], job, f"{job}/result.csv"):
        assert {two.get(path).status for _ in range(20)} == {200}  # a connection each: either may answer


def test_counts_are_those_of_all(two: Client, versions: list[Manifest]) -> None:
    line = f'predictions_total{{model_name="many",model_version="{versions[1].version}",status="200"}}'

    def count() -> float:
        found = re.search(re.escape(line) + r" ([0-9.]+)", two.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = count()
    for _ in range(50):
        assert two.post_json(PATH, RECORD).status == 200
    two.wait_until(lambda: count() >= before + 50, 10)


def test_one_is_killed_again_and_again(two: Client, versions: list[Manifest]) -> None:
    """Each kill may cost what that process was just answering, and no more."""
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                outcomes["right" if two.post_json(PATH, RECORD).status == 200 else "wrong"] += 1
            except OSError:
                outcomes["broken"] += 1
            time.sleep(0.002)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    kills = 0
    try:
        for _ in range(3):
            os.kill(workers(two)[0]["pid"], signal.SIGKILL)
            kills += 1
            time.sleep(1)
            two.wait_until(lambda: agree(two, versions[1].version), 60)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert outcomes["wrong"] == 0
    assert outcomes["broken"] <= kills * len(threads)
    assert outcomes["right"] > 500


def test_models_share_a_memory_and_who_is_asked_wakes(validator: Validator, tmp_path: Path) -> None:
    """Room for about two of four projects in a cloud of their own: every one is answered, a table in the drop-box too."""
    names = [f"lru-{place}" for place in range(4)]
    (port,) = free_ports(1)
    with LocalCloud(tmp_path / "cloud", port) as cloud:
        context = replace(promotion_context(cloud), validator=validator)
        made = [
            publish_champion(context, tables.flowers(seed=place), Project(data="s3://podium/none", **{**ENTRIES, "name": name}))
            for place, name in enumerate(names)
        ]
        size = max(sum(file.size for name, file in each.files.items() if name.startswith("models/")) for each in made)
        own = {"PODIUM_MODEL_MEMORY": str(int(2.5 * size)), "PODIUM_DASK_WORKERS": "0"}
        process = start_service({**cloud.environment, **own}, port, tmp_path)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 60)
            for name, manifest in [*zip(names, made, strict=True)] * 2:
                answer = client.post_json(f"/projects/{name}/predict", RECORD)
                assert (answer.status, answer.headers["x-model-version"]) == (200, manifest.version)
                status = client.get("/status").json()
                assert len(status["serving"]) <= 2
                assert name not in status["evicted"]
            assert "lru-0" in client.get("/status").json()["evicted"]
            assert client.get("/readyz").status == 200
            assert "Not in memory now" in client.get("/").text
            cloud.client().put_object(Bucket="podium", Key="inbox/lru-0/x.csv", Body=b"petal,sepal\n2.5,5.1\n")
            client.wait_until(lambda: client.get("/status").json()["inbox"].get("done", 0) == 1, 20)
        finally:
            process.stop()

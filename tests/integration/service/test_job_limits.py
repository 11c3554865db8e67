"""Jobs and results of several callers: quotas, cancellation, deadlines and killed processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import start_service
from service.access_log import AccessLog
from service.worker_directory import LOCK, PREFIX, TemporaryFolder

pytestmark = pytest.mark.slow

ANN, EVE = "key-of-ann-0123456789", "key-of-eve-0123456789"
BATCH = "/projects/prices/batch"
SLOW_PATCH = """
import sys
if "serve" in sys.orig_argv:
    import time
    import service.jobs as jobs
    predict_file = jobs.predict_file
    def slow_predict_file(upload, *args, **kwargs):
        rows = upload.read_bytes().count(b"\\n")
        for chunk in predict_file(upload, *args, **kwargs):
            time.sleep(4 if rows > 1500 else 1 if rows > 500 else 0)
            yield chunk
    jobs.predict_file = slow_predict_file
"""
"""Tables of more than 500 rows take a second; more than 1,500 rows take longer than the job timeout."""


def start(cloud: LocalCloud, folder: Path) -> tuple[Client, Process]:
    (port,) = free_ports(1)
    (folder / "sitecustomize.py").write_text(SLOW_PATCH)
    variables = {
        "PODIUM_API_KEYS": json.dumps({"ann": ANN, "eve": EVE}),
        "PODIUM_SHARED": str(folder / "shared"),
        "PODIUM_ASYNC_THRESHOLD_BYTES": "100",
        "PODIUM_JOB_TIMEOUT": "3",
        "PODIUM_MAX_JOBS": "3",
        "PODIUM_MAX_JOBS_PER_CALLER": "2",
        "PODIUM_DASK_WORKERS": "0",
        "PYTHONPATH": str(folder),
    }
    process = start_service({**cloud.environment, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    client.wait_until(lambda: client.get("/readyz").status == 200, 60)
    return client, process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def shared(cloud: LocalCloud, service: Client, folder: Path) -> Iterator[Client]:
    client, process = start(cloud, folder)
    client.process = process  # type: ignore[attr-defined]
    yield client
    process.stop()


def table(rows: int) -> bytes:
    return b"area,rooms\n" + b"50.5,3\n" * rows


def put(client: Client, rows: int, key: str = ANN) -> tuple[int, str]:
    """Return the status, and the URL of the job or the problem code."""
    response = client.post(f"{BATCH}.json", table(rows), {"content-type": "text/csv", "x-api-key": key})
    return response.status, response.headers["location"] or response.json()["code"]


def state(client: Client, location: str, key: str = ANN) -> str:
    response = client.request("GET", location, None, {"x-api-key": key})
    return str(response.json()["state"]) if response.status == 200 else str(response.status)


def delete(client: Client, location: str, key: str = ANN) -> int:
    return client.request("DELETE", location, None, {"x-api-key": key}).status


def test_each_caller_has_a_limited_number_of_jobs(shared: Client) -> None:
    first, second = put(shared, 600), put(shared, 600)
    assert (first[0], second[0]) == (202, 202)
    assert put(shared, 600) == (429, "too-many-jobs")
    other = put(shared, 600, EVE)
    assert other[0] == 202
    assert put(shared, 600, EVE) == (429, "too-many-jobs")
    for location, key in ((first[1], ANN), (second[1], ANN), (other[1], EVE)):
        shared.wait_until(lambda location=location, key=key: state(shared, location, key) == "done", 20)


def test_only_its_caller_can_cancel_a_job(shared: Client, folder: Path) -> None:
    locations = [put(shared, 600)[1], put(shared, 600)[1]]
    for location in locations:
        assert delete(shared, location, EVE) == 404
        assert delete(shared, location) == 204
    for location in locations:
        shared.wait_until(lambda location=location: state(shared, location) == "404", 20)
    done = put(shared, 20)[1]
    shared.wait_until(lambda: state(shared, done) == "done", 20)
    assert delete(shared, done) == 204
    assert state(shared, done) == "404"
    names = [location.split("/")[-1] for location in (*locations, done)]
    assert not [path for path in folder.rglob("*") if path.stem in names]


def test_a_job_that_takes_too_long_fails(shared: Client) -> None:
    location = put(shared, 2000)[1]
    shared.wait_until(lambda: state(shared, location) == "failed", 20)
    assert "took longer" in shared.request("GET", location, None, {"x-api-key": ANN}).json()["reason"]


def test_results_of_one_caller_do_not_delete_those_of_others(shared: Client) -> None:
    def page(key: str) -> str:
        form = {"content-type": "text/csv", "x-api-key": key}
        text = shared.post("/projects/prices/predict.html", table(1), form).text
        return f"/jobs/{text.split('/jobs/')[1].split(chr(34))[0]}"

    own_result = page(ANN)
    others = [page(EVE) for _ in range(55)]
    assert shared.request("GET", own_result, None, {"x-api-key": ANN}).status == 200
    assert shared.request("GET", others[0], None, {"x-api-key": EVE}).status == 404
    assert shared.request("GET", others[-1], None, {"x-api-key": EVE}).status == 200


def test_jobs_of_a_killed_process_are_taken_over(shared: Client, cloud: LocalCloud, folder: Path) -> None:
    """Must be the last test of this fixture, which it kills."""
    locations = [put(shared, 600)[1], put(shared, 700)[1]]
    os.kill(shared.process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    client, process = start(cloud, folder)
    try:
        for location, rows in zip(locations, (600, 700), strict=True):
            client.wait_until(lambda location=location: state(client, location) == "done", 30)
            response = client.request("GET", f"{location}/result.csv", None, {"x-api-key": ANN})
            assert response.text.count("\n") == rows + 1
            assert response.headers["x-model-version"]
        assert not list(folder.rglob("*.upload"))
    finally:
        process.stop()


def test_temporary_folders_of_killed_processes_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned, used = tmp_path / f"{PREFIX}a", tmp_path / f"{PREFIX}b"
    for path in (abandoned, used):
        (path / "jobs").mkdir(parents=True)
        (path / LOCK).touch()
    with (used / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own_result = TemporaryFolder()
        assert (abandoned.exists(), used.exists(), own_result.path.exists()) == (False, True, True)
        own_result.close()
    assert not own_result.path.exists()


def test_a_blocked_log_reader_delays_nothing_and_dropped_lines_are_counted() -> None:
    reading, writing = os.pipe()
    counts = Counter[str]()
    log = AccessLog(counts, writing)
    for _ in range(60_000):
        log.write(b"x" * 100 + b"\n")
    assert counts["dropped"] > 0
    os.close(reading)
    log.close()
    os.close(writing)

"""Jobs and results of several callers: quotas, cancellation, deadlines, and processes that are killed."""

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
from service.worker_directory import LOCK, PREFIX, OwnFolder

ANN, EVE = "key-of-ann-0123456789", "key-of-eve-0123456789"
BATCH = "/projects/prices/batch"
SLOW = """
import sys
if "serve" in sys.orig_argv:
    import time
    import service.jobs as jobs
    predict_file = jobs.predict_file
    def slowly(upload, *more, **named):
        rows = upload.read_bytes().count(b"\\n")
        for piece in predict_file(upload, *more, **named):
            time.sleep(4 if rows > 1500 else 1 if rows > 500 else 0)
            yield piece
    jobs.predict_file = slowly
"""
"""Tables of more than 500 rows take a second, those of more than 1,500 longer than a job may."""


def start(cloud: LocalCloud, folder: Path) -> tuple[Client, Process]:
    (port,) = free_ports(1)
    (folder / "sitecustomize.py").write_text(SLOW)
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
    """The status, and where the job is."""
    answer = client.post(f"{BATCH}.json", table(rows), {"content-type": "text/csv", "x-api-key": key})
    return answer.status, answer.headers["location"] or answer.json()["code"]


def state(client: Client, place: str, key: str = ANN) -> str:
    answer = client.request("GET", place, None, {"x-api-key": key})
    return str(answer.json()["state"]) if answer.status == 200 else str(answer.status)


def delete(client: Client, place: str, key: str = ANN) -> int:
    return client.request("DELETE", place, None, {"x-api-key": key}).status


def test_a_caller_has_so_many_jobs_and_leaves_room_for_others(shared: Client) -> None:
    first, second = put(shared, 600), put(shared, 600)
    assert (first[0], second[0]) == (202, 202)
    assert put(shared, 600) == (429, "too-many-jobs")
    other = put(shared, 600, EVE)
    assert other[0] == 202
    assert put(shared, 600, EVE) == (429, "too-many-jobs")
    for place, key in ((first[1], ANN), (second[1], ANN), (other[1], EVE)):
        shared.wait_until(lambda place=place, key=key: state(shared, place, key) == "done", 20)


def test_a_job_is_cancelled_by_its_caller_only(shared: Client, folder: Path) -> None:
    places = [put(shared, 600)[1], put(shared, 600)[1]]
    for place in places:
        assert delete(shared, place, EVE) == 404
        assert delete(shared, place) == 204
    for place in places:
        shared.wait_until(lambda place=place: state(shared, place) == "404", 20)
    done = put(shared, 20)[1]
    shared.wait_until(lambda: state(shared, done) == "done", 20)
    assert delete(shared, done) == 204
    assert state(shared, done) == "404"
    names = [place.split("/")[-1] for place in (*places, done)]
    assert not [path for path in folder.rglob("*") if path.stem in names]


def test_a_job_that_takes_too_long_is_ended(shared: Client) -> None:
    place = put(shared, 2000)[1]
    shared.wait_until(lambda: state(shared, place) == "failed", 20)
    assert "took longer" in shared.request("GET", place, None, {"x-api-key": ANN}).json()["reason"]


def test_one_callers_results_push_out_nobody_elses(shared: Client) -> None:
    def page(key: str) -> str:
        form = {"content-type": "text/csv", "x-api-key": key}
        text = shared.post("/projects/prices/predict.html", table(1), form).text
        return f"/jobs/{text.split('/jobs/')[1].split(chr(34))[0]}"

    own = page(ANN)
    others = [page(EVE) for _ in range(55)]
    assert shared.request("GET", own, None, {"x-api-key": ANN}).status == 200
    assert shared.request("GET", others[0], None, {"x-api-key": EVE}).status == 404
    assert shared.request("GET", others[-1], None, {"x-api-key": EVE}).status == 200


def test_jobs_of_a_killed_process_are_taken_over(shared: Client, cloud: LocalCloud, folder: Path) -> None:
    """The last test of this service."""
    places = [put(shared, 600)[1], put(shared, 700)[1]]
    os.kill(shared.process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    client, process = start(cloud, folder)
    try:
        for place, rows in zip(places, (600, 700), strict=True):
            client.wait_until(lambda place=place: state(client, place) == "done", 30)
            answer = client.request("GET", f"{place}/result.csv", None, {"x-api-key": ANN})
            assert answer.text.count("\n") == rows + 1
            assert answer.headers["x-model-version"]
        assert not list(folder.rglob("*.upload"))
    finally:
        process.stop()


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned, used = tmp_path / f"{PREFIX}a", tmp_path / f"{PREFIX}b"
    for path in (abandoned, used):
        (path / "jobs").mkdir(parents=True)
        (path / LOCK).touch()
    with (used / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = OwnFolder()
        assert (abandoned.exists(), used.exists(), own.path.exists()) == (False, True, True)
        own.close()
    assert not own.path.exists()


def test_a_reader_that_stands_still_delays_no_log_line_and_the_lost_ones_are_counted() -> None:
    reading, writing = os.pipe()
    counts = Counter[str]()
    log = AccessLog(counts, writing)
    for _ in range(60_000):
        log.write(b"x" * 100 + b"\n")
    assert counts["dropped"] > 0
    os.close(reading)
    log.close()
    os.close(writing)

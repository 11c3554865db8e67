"""A service with small limits on bodies, rows and disk space, and isolation between callers."""

from __future__ import annotations

import functools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service
from tests.tables import RECORD

MAX_BYTES, MAX_ROWS, DISK = 3_000_000, 2_000, 1_000_000
MIXED, BATCH = "/projects/mixed/predict", "/projects/mixed/batch"
HEADER, ROW = "income,visits,city,member,since,score", "41000.5,3,Bonn,true,2022-05-17,0.25"
ANN, EVE = "key-of-ann-0123456789", "key-of-eve-0123456789"

FULL_DISK = f"""
import sys
if "serve" in sys.orig_argv:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, ({DISK}, {DISK}))
    import service.http_limits as protocol
    protocol.WRITE_SECONDS, protocol.LINGER_SECONDS = 1.0, 0.2
"""
"""Limits files to a million bytes; further writes fail as on a full disk."""


@pytest.fixture(scope="module")
def small_limits(cloud: LocalCloud, service: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder, (port,) = tmp_path_factory.mktemp("small_limits"), free_ports(1)
    (folder / "sitecustomize.py").write_text(FULL_DISK)
    variables = {
        "PODIUM_API_KEYS": json.dumps({"ann": ANN, "eve": EVE}),
        "PODIUM_MAX_BYTES": str(MAX_BYTES),
        "PODIUM_MAX_RECORDS": str(MAX_ROWS),
        "PODIUM_ASYNC_THRESHOLD_BYTES": "200000",
        "PODIUM_DASK_WORKERS": "0",
        "PYTHONPATH": str(folder),
        "TMPDIR": str(folder),
    }
    process = start_service({**cloud.environment, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    client.process, client.folder = process, folder  # type: ignore[attr-defined]
    try:
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        yield client
    finally:
        process.stop()


def headers(media: str, key: str = ANN, **more: str) -> dict[str, str]:
    return {"content-type": media, "x-api-key": key, **more}


def table(rows: int) -> bytes:
    return "\n".join([HEADER, *[ROW] * rows]).encode()


def files(client: Client) -> list[Path]:
    """Return the files of jobs and results."""
    folder: Path = client.folder  # type: ignore[attr-defined]
    return [path for path in folder.rglob("*") if path.suffix in (".upload", ".csv")]


def test_a_request_with_one_row_too_many_is_rejected(small_limits: Client) -> None:
    for rows, status in ((MAX_ROWS, 200), (MAX_ROWS + 1, 413)):
        responses = [
            small_limits.post(MIXED, table(rows), headers("text/csv")),
            small_limits.post(MIXED, json.dumps([RECORD] * rows).encode(), headers("application/json")),
        ]
        assert [response.status for response in responses] == [status, status]
        if status == 413:
            assert {response.json()["code"] for response in responses} == {"too-many-rows"}


@pytest.mark.parametrize("media", ["application/json", "text/csv", "multipart/form-data; boundary=x", "application/gzip"])
@pytest.mark.parametrize("path", [MIXED, BATCH])
def test_a_body_with_one_byte_too_many_is_rejected(small_limits: Client, media: str, path: str) -> None:
    response = small_limits.post(path, b" " * (MAX_BYTES + 1), headers(media))
    assert (response.status, response.json()["code"]) == (413, "too-large")
    with connect(small_limits) as link:
        link.sendall(f"{head(path, media)}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"%x\r\n%b\r\n" % (100_000, b" " * 100_000)
        with pytest.raises(OSError):
            for _ in range(500):
                link.sendall(chunk)
                time.sleep(0.01)
    assert small_limits.get("/livez").status == 200
    assert files(small_limits) == []


def head(path: str, media: str) -> str:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {ANN}\r\nContent-Type: {media}\r\n"


def connect(client: Client) -> socket.socket:
    host, port = client.host.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize("media", ["text/csv", "multipart/form-data"])
def test_a_full_disk_is_reported_and_leaves_no_files(small_limits: Client, media: str) -> None:
    large = table(60_000)[: MAX_BYTES - 1000]
    if media == "text/csv":
        response = small_limits.post(f"{BATCH}.json", large, headers(media))
    else:
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\n' + large + b"\r\n--x--\r\n"
        response = small_limits.post(f"{BATCH}.json", body, headers(f"{media}; boundary=x"))
    assert (response.status, response.json()["code"]) == (503, "storage-full")
    assert response.headers["retry-after"]
    assert files(small_limits) == []


@pytest.mark.parametrize(("query", "status"), [("?models=nope", 404), ("", 406)])
def test_a_request_that_cannot_be_served_leaves_no_files(small_limits: Client, query: str, status: int) -> None:
    more = {"accept": "image/png"} if status == 406 else {}
    before = len(files(small_limits))
    assert small_limits.post(f"{BATCH}{query}", table(6_000), headers("text/csv", **more)).status == status
    assert len(files(small_limits)) == before


def test_a_result_that_does_not_fit_fails_its_job(small_limits: Client) -> None:
    """The upload fits, but the result with the probabilities does not."""
    response = small_limits.post(f"{BATCH}.json", table(20_000), headers("text/csv"))
    assert response.status == 202
    location = response.headers["location"]
    small_limits.wait_until(lambda: state(small_limits, location)["state"] == "failed", 30)
    assert "Not enough storage" in state(small_limits, location)["reason"]
    assert files(small_limits) == []


def state(client: Client, location: str, key: str = ANN) -> dict[str, str]:
    job: dict[str, str] = client.request("GET", location, None, {"x-api-key": key}).json()
    return job


def test_jobs_and_results_of_other_callers_are_not_found(small_limits: Client) -> None:
    location = small_limits.post(f"{BATCH}.json", table(6_000), headers("text/csv")).headers["location"]
    small_limits.wait_until(lambda: state(small_limits, location)["state"] == "done", 30)
    page = small_limits.post(f"{MIXED}.html", table(12), headers("text/csv")).text
    result = page.split("/jobs/")[1].split('"')[0]
    for path in (location, f"{location}/result.csv", f"/jobs/{result}"):
        assert small_limits.request("GET", path, None, {"x-api-key": ANN}).status == 200
        assert small_limits.request("GET", path, None, {"x-api-key": EVE}).status == 404


def test_a_client_that_disconnects_during_its_body_leaves_no_files(small_limits: Client) -> None:
    before = len(files(small_limits))
    for path in (MIXED, BATCH):
        with connect(small_limits) as link:
            link.sendall(f"{head(path, 'text/csv')}Content-Length: 900000\r\n\r\n".encode() + table(5_000))
            time.sleep(0.2)
    small_limits.wait_until(
        lambda: "requests_in_progress 0.0" in small_limits.request("GET", "/metrics", None, {"x-api-key": ANN}).text, 10
    )
    assert len(files(small_limits)) == before


def is_peer(process: psutil.Process, port: int) -> bool:
    """Return whether the process has a connection to this port."""
    links = process.net_connections("tcp")
    return port in {link.raddr.port for link in links if link.raddr and link.status == "ESTABLISHED"}


def test_a_client_that_never_reads_is_disconnected_and_memory_stays_small(small_limits: Client) -> None:
    process = psutil.Process(small_limits.process.pid)  # type: ignore[attr-defined]
    body = json.dumps([{**RECORD, "city": "x" * 200}] * MAX_ROWS).encode()
    request = f"{head(MIXED + '?inputs=true', 'application/json')}Content-Length: {len(body)}\r\n\r\n".encode() + body
    used = []
    for _ in range(6):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", int(small_limits.host.split(":")[1])))
        with link:
            for _ in range(6):  # more responses than the socket buffers hold
                link.sendall(request)
            port = link.getsockname()[1]
            small_limits.wait_until(functools.partial(is_peer, process, port), 20)
            small_limits.wait_until(functools.partial(lambda port: not is_peer(process, port), port), 60)
        used.append(process.memory_info().rss)
    assert used[-1] - used[1] < 40_000_000

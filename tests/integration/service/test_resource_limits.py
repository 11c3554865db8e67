"""A service with little room: small bodies, few rows, a disk that is soon full, and callers who must not see each other."""

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

MAX_BYTES, MOST_ROWS, DISK = 3_000_000, 2_000, 1_000_000
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
"""No file may grow over a million bytes: what is written after that fails, as on a full disk."""


@pytest.fixture(scope="module")
def small_limits(cloud: LocalCloud, service: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder, (port,) = tmp_path_factory.mktemp("small_limits"), free_ports(1)
    (folder / "sitecustomize.py").write_text(FULL_DISK)
    variables = {
        "PODIUM_API_KEYS": json.dumps({"ann": ANN, "eve": EVE}),
        "PODIUM_MAX_BYTES": str(MAX_BYTES),
        "PODIUM_MAX_RECORDS": str(MOST_ROWS),
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
    """What jobs and results have on the disk."""
    folder: Path = client.folder  # type: ignore[attr-defined]
    return [path for path in folder.rglob("*") if path.suffix in (".upload", ".csv")]


def test_one_row_too_many(small_limits: Client) -> None:
    for rows, status in ((MOST_ROWS, 200), (MOST_ROWS + 1, 413)):
        found = [
            small_limits.post(MIXED, table(rows), headers("text/csv")),
            small_limits.post(MIXED, json.dumps([RECORD] * rows).encode(), headers("application/json")),
        ]
        assert [answer.status for answer in found] == [status, status]
        if status == 413:
            assert {answer.json()["code"] for answer in found} == {"too-many-rows"}


@pytest.mark.parametrize("media", ["application/json", "text/csv", "multipart/form-data; boundary=x", "application/gzip"])
@pytest.mark.parametrize("path", [MIXED, BATCH])
def test_one_byte_too_many_declared_or_not(small_limits: Client, media: str, path: str) -> None:
    answer = small_limits.post(path, b" " * (MAX_BYTES + 1), headers(media))
    assert (answer.status, answer.json()["code"]) == (413, "too-large")
    with connected(small_limits) as link:
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


def connected(client: Client) -> socket.socket:
    host, port = client._host.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize("media", ["text/csv", "multipart/form-data"])
def test_a_full_disk_is_told_and_leaves_nothing(small_limits: Client, media: str) -> None:
    large = table(60_000)[: MAX_BYTES - 1000]
    if media == "text/csv":
        answer = small_limits.post(f"{BATCH}.json", large, headers(media))
    else:
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\n' + large + b"\r\n--x--\r\n"
        answer = small_limits.post(f"{BATCH}.json", body, headers(f"{media}; boundary=x"))
    assert (answer.status, answer.json()["code"]) == (503, "storage-full")
    assert answer.headers["retry-after"]
    assert files(small_limits) == []


@pytest.mark.parametrize(("query", "status"), [("?models=nope", 404), ("", 406)])
def test_what_cannot_be_answered_is_not_kept(small_limits: Client, query: str, status: int) -> None:
    more = {"accept": "image/png"} if status == 406 else {}
    kept = len(files(small_limits))
    assert small_limits.post(f"{BATCH}{query}", table(6_000), headers("text/csv", **more)).status == status
    assert len(files(small_limits)) == kept


def test_a_result_that_has_no_room_fails_its_job(small_limits: Client) -> None:
    """The upload fits, its result with the probabilities does not."""
    answer = small_limits.post(f"{BATCH}.json", table(20_000), headers("text/csv"))
    assert answer.status == 202
    place = answer.headers["location"]
    small_limits.wait_until(lambda: state(small_limits, place)["state"] == "failed", 30)
    assert "no room" in state(small_limits, place)["reason"]
    assert files(small_limits) == []


def state(client: Client, place: str, key: str = ANN) -> dict[str, str]:
    found: dict[str, str] = client.request("GET", place, None, {"x-api-key": key}).json()
    return found


def test_somebody_elses_job_and_result_are_not_found(small_limits: Client) -> None:
    place = small_limits.post(f"{BATCH}.json", table(6_000), headers("text/csv")).headers["location"]
    small_limits.wait_until(lambda: state(small_limits, place)["state"] == "done", 30)
    page = small_limits.post(f"{MIXED}.html", table(12), headers("text/csv")).text
    result = page.split("/jobs/")[1].split('"')[0]
    for path in (place, f"{place}/result.csv", f"/jobs/{result}"):
        assert small_limits.request("GET", path, None, {"x-api-key": ANN}).status == 200
        assert small_limits.request("GET", path, None, {"x-api-key": EVE}).status == 404


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing(small_limits: Client) -> None:
    kept = len(files(small_limits))
    for path in (MIXED, BATCH):
        with connected(small_limits) as link:
            link.sendall(f"{head(path, 'text/csv')}Content-Length: 900000\r\n\r\n".encode() + table(5_000))
            time.sleep(0.2)
    small_limits.wait_until(
        lambda: "requests_in_progress 0.0" in small_limits.request("GET", "/metrics", None, {"x-api-key": ANN}).text, 10
    )
    assert len(files(small_limits)) == kept


def is_peer(process: psutil.Process, port: int) -> bool:
    """Whether who has this port is connected with the process."""
    links = process.net_connections("tcp")
    return port in {link.raddr.port for link in links if link.raddr and link.status == "ESTABLISHED"}


def test_who_never_reads_is_closed_and_memory_stays(small_limits: Client) -> None:
    process = psutil.Process(small_limits.process.pid)  # type: ignore[attr-defined]
    body = json.dumps([{**RECORD, "city": "x" * 200}] * MOST_ROWS).encode()
    request = f"{head(MIXED + '?inputs=true', 'application/json')}Content-Length: {len(body)}\r\n\r\n".encode() + body
    used = []
    for _ in range(6):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", int(small_limits._host.split(":")[1])))
        with link:
            for _ in range(6):  # so many answers are more than the system's buffers take
                link.sendall(request)
            port = link.getsockname()[1]
            small_limits.wait_until(functools.partial(is_peer, process, port), 20)
            small_limits.wait_until(functools.partial(lambda port: not is_peer(process, port), port), 60)
        used.append(process.memory_info().rss)
    assert used[-1] - used[1] < 40_000_000

"""The door: what is not HTTP, too large, too slow, too much, or without a key."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import start_service
from service.active_models import ActiveModels
from service.admission import AdmissionMiddleware
from service.asgi import Message, Receive, Scope, Send
from service.body_intake import BodyIntake
from service.http_head import Head
from service.http_limits import DISCONNECTED, HEAD, LINGER_SECONDS
from service.metrics import Metrics
from service.settings import ServiceSettings
from tests.tables import RECORD

BODY = json.dumps(RECORD).encode()
POST = b"POST /projects/mixed/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@contextmanager
def connected(service: Client) -> Iterator[socket.socket]:
    host, port = service._host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        yield link


def said(link: socket.socket) -> tuple[int, str]:
    """The status and the whole answer, until the other side closes."""
    data = b""
    while piece := link.recv(65536):
        data += piece
    return int(data.split(b" ", 2)[1]) if data else 0, data.decode()


RAW: list[tuple[str, bytes, int]] = [
    ("length and chunks", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("two lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("no number as length", POST + b"Content-Length: five\r\n\r\n", 400),
    ("bad chunk", POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ("no host", b"GET /livez HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("bad host", b"GET /livez HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400),
    ("bare line feeds", b"GET /livez HTTP/1.1\nHost: localhost\n\n", 400),
    ("one bare line feed", b"GET /livez HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
    ("no HTTP", b"hello\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ("10,000 headers", b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
    ("201 headers", b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 201 + b"\r\n", 431),
    ("1 MB header", b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
    ("100 KB address", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
]


@pytest.mark.parametrize(("name", "data", "status"), RAW, ids=[name for name, *_ in RAW])
def test_what_is_not_http_is_answered_and_closed(service: Client, name: str, data: bytes, status: int) -> None:
    with connected(service) as link:
        try:
            link.sendall(data)
        except OSError:
            pass  # closed while it was still sent
        found, text = said(link)
    assert found == status, text
    assert "application/problem+json" in text
    assert service.get("/livez").status == 200


def test_pieces_of_a_request_are_put_together(service: Client) -> None:
    with connected(service) as link:
        for place in range(0, len(WHOLE), 7):
            link.sendall(WHOLE[place : place + 7])
        assert link.recv(65536).startswith(b"HTTP/1.1 200")
        link.sendall(WHOLE + WHOLE + WHOLE[:-5])  # two at once, and a third whose end comes after their answers
        assert answers(link, 2).count(b"HTTP/1.1 200") == 2
        time.sleep(2 * LINGER_SECONDS)
        link.sendall(WHOLE[-5:])
        assert answers(link, 1).startswith(b"HTTP/1.1 200")


def answers(link: socket.socket, count: int) -> bytes:
    text = b""
    while text.count(b"HTTP/1.1 ") < count or not text.endswith(b"}"):
        text += link.recv(65536)
    return text


def test_a_body_that_was_announced_too_large_is_not_read(service: Client) -> None:
    for expect in (b"", b"Expect: 100-continue\r\n"):
        with connected(service) as link:
            link.sendall(POST.replace(b"application/json", b"text/csv") + expect + b"Content-Length: 5000000000\r\n\r\n")
            assert link.recv(65536).startswith(b"HTTP/1.1 413")


HASTE = """
import sys
if "serve" in sys.orig_argv:
    import asyncio
    import service.http_limits as protocol, service.routes.predict as route
    protocol.HEAD_SECONDS = protocol.BODY_SECONDS = protocol.WRITE_SECONDS = 1.0
    parse = route.parse
    async def slow(body, *more):
        if b"slow" in body.data:
            await asyncio.sleep(1)
        return await parse(body, *more)
    route.parse = slow
"""
"""Short patience, and a body that takes a second when it says so."""


@pytest.fixture(scope="module")
def hasty(cloud: LocalCloud, service: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A service of its own with short patience, one place, one seat to wait on, a key and a drain."""
    folder, (port,) = tmp_path_factory.mktemp("hasty"), free_ports(1)
    (folder / "sitecustomize.py").write_text(HASTE)
    variables = {
        "PODIUM_API_KEYS": '{"ann": "key-of-ann-0123456789"}',
        "PODIUM_MAX_CONCURRENCY": "1",
        "PODIUM_MAX_QUEUE": "1",
        "PODIUM_QUEUE_TIMEOUT": "0.4",
        "PODIUM_DRAIN_SECONDS": "1.5",
        "PODIUM_DASK_WORKERS": "0",
        "PYTHONPATH": str(folder),
    }
    process = start_service({**cloud.environment, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    client.process, client.log = process, folder / "logs" / "service.log"  # type: ignore[attr-defined]
    try:
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        yield client
    finally:
        process.stop()


KEY = {"x-api-key": "key-of-ann-0123456789", "content-type": "application/json"}


KEYED = POST + b"X-API-Key: key-of-ann-0123456789\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize(
    "sent", [b"", b"GET /li", WHOLE[:40], KEYED[:-5]], ids=["silence", "half a line", "half a head", "half a body"]
)
def test_who_is_too_slow_is_closed(hasty: Client, sent: bytes) -> None:
    with connected(hasty) as link:
        link.sendall(sent)
        started = time.monotonic()
        status, text = said(link)
        assert time.monotonic() - started < 10
    assert status == (408 if sent else 0), text


def test_dripping_does_not_help(hasty: Client) -> None:
    with connected(hasty) as link:
        started = time.monotonic()
        with pytest.raises(OSError):
            for letter in WHOLE:
                link.sendall(bytes([letter]))
                time.sleep(0.1)
                link.setblocking(False)
                try:
                    if link.recv(1) in (b"", b"H"):
                        raise OSError
                except BlockingIOError:
                    pass
                link.setblocking(True)
        assert time.monotonic() - started < 8


def test_nobody_without_a_key(hasty: Client) -> None:
    assert hasty.post_json("/projects/mixed/predict", RECORD).status == 401
    assert hasty.get("/").headers["www-authenticate"].startswith("Basic")
    assert hasty.post("/projects/mixed/predict", BODY, {**KEY, "x-api-key": "key-of-ann-0123456788"}).status == 401
    bearer = {"authorization": f"Bearer {KEY['x-api-key']}", "content-type": "application/json"}
    basic = {"authorization": "Basic YW5uOmtleS1vZi1hbm4tMDEyMzQ1Njc4OQ==", "content-type": "application/json"}
    for headers in (KEY, bearer, basic):
        assert hasty.post("/projects/mixed/predict", BODY, headers).status == 200
    for path in ("/livez", "/readyz", "/v2/health/ready"):
        assert hasty.get(path).status == 200
    for path in ("/metrics", "/status", "/status.json"):
        assert hasty.get(path).status == 401
        assert hasty.request("GET", path, None, KEY).status == 200


def test_too_many_are_turned_away_and_health_answers(hasty: Client) -> None:
    slow = json.dumps({**RECORD, "city": "slow"}).encode()

    def ask(_: int) -> tuple[int, float, str | None]:
        started = time.monotonic()
        answer = hasty.post("/projects/mixed/predict?models=champion", slow, KEY)
        return answer.status, time.monotonic() - started, answer.headers["retry-after"]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, 0)]
        hasty.wait_until(lambda: "requests_in_progress 1.0" in hasty.request("GET", "/metrics", None, KEY).text, 5)
        futures += [pool.submit(ask, number) for number in range(1, 4)]
        assert hasty.get("/livez").status == 200
        found = [future.result() for future in futures]
    assert sorted(status for status, *_ in found) == [200, 429, 429, 503]
    assert all(retry == "1" for status, _, retry in found if status != 200)
    text = hasty.request("GET", "/metrics", None, KEY).text
    assert 'requests_rejected_total{reason="queue-full"} 2.0' in text
    assert 'requests_rejected_total{reason="waited-too-long"} 1.0' in text


def test_who_left_is_not_worked_for(hasty: Client) -> None:
    """It leaves while its body is parsed: no model is asked."""
    body = json.dumps([{**RECORD, "city": "slow"}] * 20).encode()
    time.sleep(0.2)  # the lines of earlier requests are written
    before = len(logged(hasty))
    with connected(hasty) as link:
        link.sendall(POST + b"X-API-Key: key-of-ann-0123456789\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        hasty.wait_until(lambda: "requests_in_progress 1.0" in hasty.request("GET", "/metrics", None, KEY).text, 5)
    hasty.wait_until(lambda: len(logged(hasty)) > before, 10)
    assert [line["status"] for line in logged(hasty)[before:]] == [499]


def test_places_are_handed_on_and_never_more_than_there_are() -> None:
    """Two hundred come at odd times to three places; some leave while they wait, and are not worked for."""
    busy, most, done = 0, 0, 0

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal busy, most, done
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.002)
        busy -= 1
        done += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def come(gate: AdmissionMiddleware, number: int) -> None:
        await asyncio.sleep(number % 17 * 0.001)
        scope = {"type": "http", "path": "/x", "method": "GET", "headers": [], "server": ("127.0.0.1", 1)}
        await gate({**scope, HEAD: Head(b"", b"localhost", 0), DISCONNECTED: lambda: number % 5 == 0}, receive, send)

    async def all_come() -> None:
        metrics = Metrics(ActiveModels())
        settings = ServiceSettings(max_concurrency=3, max_queue=1000, queue_timeout=30)
        gate = AdmissionMiddleware(work, settings, metrics, BodyIntake(1000, 1000, 1000, None))
        await asyncio.gather(*(come(gate, number) for number in range(200)))
        assert (metrics.in_progress(), metrics.waiting()) == (0, 0)

    statuses: list[int] = []
    asyncio.run(all_come())
    assert (most, done, statuses) == (3, 160, [200] * 160)


def logged(client: Client) -> list[dict[str, Any]]:
    """The lines about requests."""
    lines = [json.loads(line) for line in client.log.read_text().splitlines()]  # type: ignore[attr-defined]
    return [line for line in lines if "status" in line]


METRICS = (
    "prediction_request_duration_seconds_bucket",
    "model_load_duration_seconds_count",
    "model_swap_total",
    "model_info",
    "batch_rows_total",
    "queue_depth",
    "requests_in_progress",
    "last_retrain_timestamp_seconds",
)


def test_metrics_count_by_model_version_and_status(hasty: Client) -> None:
    version = hasty.post("/projects/mixed/predict", BODY, KEY).headers["x-model-version"]
    hasty.post("/projects/mixed/predict", b"{}", KEY)
    hasty.post("/projects/mixed/predict", json.dumps([RECORD] * 3).encode(), KEY)
    text = hasty.request("GET", "/metrics", None, KEY).text
    for status in (200, 422):
        line = f'predictions_total{{model_name="mixed",model_version="{version}",status="{status}"}}'
        assert re.search(re.escape(line) + r" [1-9]", text), text
    for name in METRICS:
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name


def test_logs_are_json_without_values(hasty: Client) -> None:
    strange = {**RECORD, "city": "Zanzibar\n\x1b[31m"}
    identity = hasty.post("/projects/mixed/predict", json.dumps(strange).encode(), KEY).headers["x-prediction-id"]
    hasty.get("/no/such%0aplace")
    hasty.wait_until(lambda: identity in hasty.log.read_text(), 5)  # type: ignore[attr-defined]
    lines: list[dict[str, Any]] = [json.loads(line) for line in hasty.log.read_text().splitlines()]  # type: ignore[attr-defined]
    assert next(line for line in lines if line.get("prediction_id") == identity)["model_name"] == "mixed"
    text = hasty.log.read_text()  # type: ignore[attr-defined]
    assert "Zanzibar" not in text
    assert KEY["x-api-key"] not in text


def test_it_says_not_ready_answers_on_and_then_ends(hasty: Client) -> None:
    """The last test of this service."""
    process: Process = hasty.process  # type: ignore[attr-defined]
    os.kill(process.pid, signal.SIGTERM)
    hasty.wait_until(lambda: hasty.get("/readyz").status == 503, 5)
    assert hasty.get("/livez").status == 200
    assert hasty.post("/projects/mixed/predict", BODY, KEY).status == 200
    ended = threading.Event()

    def gone() -> bool:
        try:
            hasty.get("/livez")
        except OSError:
            ended.set()
        return ended.is_set()

    hasty.wait_until(gone, 20)


def test_an_open_address_needs_a_key_or_a_word(cloud: LocalCloud, tmp_path: Path) -> None:
    from tests.e2e.test_cli import podium

    closed = podium(cloud, "serve", "--host", "0.0.0.0", "--port", "0", PODIUM_CACHE=str(tmp_path))
    assert (closed.returncode, "PODIUM_API_KEYS" in closed.stderr) == (1, True)
    named = podium(
        cloud, "serve", "--host", "0.0.0.0", "--port", "0", PODIUM_CACHE=str(tmp_path), PODIUM_ALLOW_ANONYMOUS="true"
    )
    assert (named.returncode, "PODIUM_ALLOWED_HOSTS" in named.stderr) == (1, True)

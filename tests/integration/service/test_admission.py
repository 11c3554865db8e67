"""Admission: malformed HTTP, large and slow requests, overload, and authentication."""

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
from service.http_limits import DISCONNECTED, HEAD, LINGER_SECONDS
from service.metrics import Metrics
from service.request_head import Head
from service.settings import ServiceSettings
from tests.tables import RECORD

BODY = json.dumps(RECORD).encode()
POST = b"POST /projects/mixed/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
COMPLETE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@contextmanager
def connect(service: Client) -> Iterator[socket.socket]:
    host, port = service.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        yield link


def read_response(link: socket.socket) -> tuple[int, str]:
    """Return the status and the response, up to the end of the connection."""
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
def test_malformed_http_gets_a_problem_and_the_connection_is_closed(
    service: Client, name: str, data: bytes, status: int
) -> None:
    with connect(service) as link:
        try:
            link.sendall(data)
        except OSError:
            pass  # the server closed the connection early
        status_received, text = read_response(link)
    assert status_received == status, text
    assert "application/problem+json" in text
    assert service.get("/livez").status == 200


def test_a_request_may_arrive_in_pieces(service: Client) -> None:
    with connect(service) as link:
        for start in range(0, len(COMPLETE), 7):
            link.sendall(COMPLETE[start : start + 7])
        assert link.recv(65536).startswith(b"HTTP/1.1 200")
        link.sendall(
            COMPLETE + COMPLETE + COMPLETE[:-5]
        )  # two requests at once, and a third that is completed after their responses
        assert read_responses(link, 2).count(b"HTTP/1.1 200") == 2
        time.sleep(2 * LINGER_SECONDS)
        link.sendall(COMPLETE[-5:])
        assert read_responses(link, 1).startswith(b"HTTP/1.1 200")


def read_responses(link: socket.socket, count: int) -> bytes:
    text = b""
    while text.count(b"HTTP/1.1 ") < count or not text.endswith(b"}"):
        text += link.recv(65536)
    return text


def test_a_body_that_is_declared_too_large_is_rejected_unread(service: Client) -> None:
    for expect in (b"", b"Expect: 100-continue\r\n"):
        with connect(service) as link:
            link.sendall(POST.replace(b"application/json", b"text/csv") + expect + b"Content-Length: 5000000000\r\n\r\n")
            assert link.recv(65536).startswith(b"HTTP/1.1 413")


PATCH = """
import sys
if "serve" in sys.orig_argv:
    import asyncio
    import service.http_limits as protocol, service.routes.predict as route
    protocol.HEAD_SECONDS = protocol.BODY_SECONDS = protocol.WRITE_SECONDS = 1.0
    parse_rows = route.parse_rows
    async def slow(body, *args):
        if b"slow" in body.data:
            await asyncio.sleep(1)
        return await parse_rows(body, *args)
    route.parse_rows = slow
"""
"""Short timeouts, and bodies that take a second to parse if they contain `slow`."""


@pytest.fixture(scope="module")
def impatient(cloud: LocalCloud, service: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A service with short timeouts, one slot, one queue position, an API key and a drain period."""
    folder, (port,) = tmp_path_factory.mktemp("impatient"), free_ports(1)
    (folder / "sitecustomize.py").write_text(PATCH)
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


COMPLETE_WITH_KEY = POST + b"X-API-Key: key-of-ann-0123456789\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /li", COMPLETE[:40], COMPLETE_WITH_KEY[:-5]],
    ids=["silence", "half a line", "half a head", "half a body"],
)
def test_a_slow_request_times_out(impatient: Client, sent: bytes) -> None:
    with connect(impatient) as link:
        link.sendall(sent)
        started = time.monotonic()
        status, text = read_response(link)
        assert time.monotonic() - started < 10
    assert status == (408 if sent else 0), text


def test_a_request_that_drips_times_out(impatient: Client) -> None:
    with connect(impatient) as link:
        started = time.monotonic()
        with pytest.raises(OSError):
            for letter in COMPLETE:
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


def test_requests_need_an_api_key(impatient: Client) -> None:
    assert impatient.post_json("/projects/mixed/predict", RECORD).status == 401
    assert impatient.get("/").headers["www-authenticate"].startswith("Basic")
    assert impatient.post("/projects/mixed/predict", BODY, {**KEY, "x-api-key": "key-of-ann-0123456788"}).status == 401
    bearer = {"authorization": f"Bearer {KEY['x-api-key']}", "content-type": "application/json"}
    basic = {"authorization": "Basic YW5uOmtleS1vZi1hbm4tMDEyMzQ1Njc4OQ==", "content-type": "application/json"}
    for headers in (KEY, bearer, basic):
        assert impatient.post("/projects/mixed/predict", BODY, headers).status == 200
    for path in ("/livez", "/readyz", "/v2/health/ready"):
        assert impatient.get(path).status == 200
    for path in ("/metrics", "/status", "/status.json"):
        assert impatient.get(path).status == 401
        assert impatient.request("GET", path, None, KEY).status == 200


def test_overload_is_rejected_and_health_checks_still_work(impatient: Client) -> None:
    slow = json.dumps([{**RECORD, "city": "slow"}] * 11).encode()

    def ask(_: int) -> tuple[int, float, str | None]:
        started = time.monotonic()
        response = impatient.post("/projects/mixed/predict?models=champion", slow, KEY)
        return response.status, time.monotonic() - started, response.headers["retry-after"]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, 0)]
        impatient.wait_until(lambda: "requests_in_progress 1.0" in impatient.request("GET", "/metrics", None, KEY).text, 5)
        futures += [pool.submit(ask, number) for number in range(1, 4)]
        assert impatient.get("/livez").status == 200
        status_received = [future.result() for future in futures]
    assert sorted(status for status, *_ in status_received) == [200, 429, 429, 503]
    assert all(retry == "1" for status, _, retry in status_received if status != 200)
    text = impatient.request("GET", "/metrics", None, KEY).text
    assert 'requests_rejected_total{reason="queue-full"} 2.0' in text
    assert 'requests_rejected_total{reason="queue-timeout"} 1.0' in text


def test_work_stops_when_the_client_disconnects(impatient: Client) -> None:
    """The client disconnects while its body is parsed, so no model runs."""
    body = json.dumps([{**RECORD, "city": "slow"}] * 20).encode()
    time.sleep(0.2)  # until the lines of earlier requests are written
    before = len(logged(impatient))
    with connect(impatient) as link:
        link.sendall(POST + b"X-API-Key: key-of-ann-0123456789\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        impatient.wait_until(lambda: "requests_in_progress 1.0" in impatient.request("GET", "/metrics", None, KEY).text, 5)
    impatient.wait_until(lambda: len(logged(impatient)) > before, 10)
    assert [line["status"] for line in logged(impatient)[before:]] == [499]


def test_concurrency_never_exceeds_the_limit() -> None:
    """200 requests compete for three slots; every fifth client disconnects and its request is not run."""
    busy, max_busy, done = 0, 0, 0

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal busy, max_busy, done
        busy += 1
        max_busy = max(max_busy, busy)
        await asyncio.sleep(0.002)
        busy -= 1
        done += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def send_request(middleware: AdmissionMiddleware, number: int) -> None:
        await asyncio.sleep(number % 17 * 0.001)
        scope = {"type": "http", "path": "/x", "method": "GET", "headers": [], "server": ("127.0.0.1", 1)}
        await middleware({**scope, HEAD: Head(b"", b"localhost", 0), DISCONNECTED: lambda: number % 5 == 0}, receive, send)

    async def send_all() -> None:
        metrics = Metrics(ActiveModels())
        settings = ServiceSettings(max_concurrency=3, max_queue=1000, queue_timeout=30)
        middleware = AdmissionMiddleware(work, settings, metrics, BodyIntake(1000, 1000, 1000, None))
        await asyncio.gather(*(send_request(middleware, number) for number in range(200)))
        assert (metrics.in_progress(), metrics.queue_depth()) == (0, 0)

    statuses: list[int] = []
    asyncio.run(send_all())
    assert (max_busy, done, statuses) == (3, 160, [200] * 160)


def logged(client: Client) -> list[dict[str, Any]]:
    """Return the lines of the access log."""
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


def test_metrics_count_by_model_version_and_status(impatient: Client) -> None:
    version = impatient.post("/projects/mixed/predict", BODY, KEY).headers["x-model-version"]
    impatient.post("/projects/mixed/predict", b"{}", KEY)
    impatient.post("/projects/mixed/predict", json.dumps([RECORD] * 3).encode(), KEY)
    text = impatient.request("GET", "/metrics", None, KEY).text
    for status in (200, 422):
        line = f'predictions_total{{model_name="mixed",model_version="{version}",status="{status}"}}'
        assert re.search(re.escape(line) + r" [1-9]", text), text
    for name in METRICS:
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name


def test_logs_are_json_without_values(impatient: Client) -> None:
    unseen = {**RECORD, "city": "Zanzibar\n\x1b[31m"}
    identity = impatient.post("/projects/mixed/predict", json.dumps(unseen).encode(), KEY).headers["x-prediction-id"]
    impatient.get("/no/such%0aplace")
    impatient.wait_until(lambda: identity in impatient.log.read_text(), 5)  # type: ignore[attr-defined]
    lines: list[dict[str, Any]] = [json.loads(line) for line in impatient.log.read_text().splitlines()]  # type: ignore[attr-defined]
    assert next(line for line in lines if line.get("prediction_id") == identity)["model_name"] == "mixed"
    text = impatient.log.read_text()  # type: ignore[attr-defined]
    assert "Zanzibar" not in text
    assert KEY["x-api-key"] not in text


def test_a_draining_service_is_not_ready_but_serves_until_it_ends(impatient: Client) -> None:
    """Must be the last test of this fixture, which it ends."""
    process: Process = impatient.process  # type: ignore[attr-defined]
    os.kill(process.pid, signal.SIGTERM)
    impatient.wait_until(lambda: impatient.get("/readyz").status == 503, 5)
    assert impatient.get("/livez").status == 200
    assert impatient.post("/projects/mixed/predict", BODY, KEY).status == 200
    ended = threading.Event()

    def is_gone() -> bool:
        try:
            impatient.get("/livez")
        except OSError:
            ended.set()
        return ended.is_set()

    impatient.wait_until(is_gone, 20)


def test_a_public_address_needs_keys_or_explicit_settings(cloud: LocalCloud, tmp_path: Path) -> None:
    from tests.e2e.test_cli import podium

    without_keys = podium(cloud, "serve", "--host", "0.0.0.0", "--port", "0", PODIUM_CACHE=str(tmp_path))
    assert (without_keys.returncode, "PODIUM_API_KEYS" in without_keys.stderr) == (1, True)
    without_hosts = podium(
        cloud, "serve", "--host", "0.0.0.0", "--port", "0", PODIUM_CACHE=str(tmp_path), PODIUM_ALLOW_ANONYMOUS="true"
    )
    assert (without_hosts.returncode, "PODIUM_ALLOWED_HOSTS" in without_hosts.stderr) == (1, True)

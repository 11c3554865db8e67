"""Connections that send nothing, too slowly or too much, and bodies that never end: what others notice of them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service
from service.http_limits import allow_many_files
from tests.tables import RECORD

PATIENCE = """
import sys
if "serve" in sys.orig_argv:
    import service.http_limits as protocol
    protocol.HEAD_SECONDS, protocol.IDLE_SECONDS, protocol.LINGER_SECONDS = 1.5, 2.0, 0.2
    protocol.MAX_CONNECTIONS_PER_PEER = 300
"""
BODY = json.dumps(RECORD).encode()
POST = b"POST /projects/mixed/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
MB = 1_000_000


@pytest.fixture(scope="module")
def strict(cloud: LocalCloud, service: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A service of its own with short deadlines and few connections."""
    folder, (port,) = tmp_path_factory.mktemp("strict"), free_ports(1)
    (folder / "sitecustomize.py").write_text(PATIENCE)
    variables = {"PODIUM_DASK_WORKERS": "0", "PYTHONPATH": str(folder)}
    process = start_service({**cloud.environment, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    client.process = process  # type: ignore[attr-defined]
    try:
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        yield client
    finally:
        process.stop()


@contextmanager
def connected(client: Client) -> Iterator[socket.socket]:
    host, port = client._host.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as link:
        yield link


def memory(client: Client) -> int:
    process = psutil.Process(client.process.pid)  # type: ignore[attr-defined]
    rss: int = process.memory_info().rss
    return rss


def one_answer(link: socket.socket) -> bytes:
    """A JSON answer on a connection that stays open."""
    data = b""
    while not data.endswith(b"}"):
        data += link.recv(65536)
    return data


def answer_of(link: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while piece := link.recv(65536):
            data += piece
    return data


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "after a request"])
@pytest.mark.parametrize("sent", [b"\r\n", b"\r\n\r\n", b"\r", b"\r\nGET /li", b""])
def test_a_connection_without_a_request_is_closed(strict: Client, before: bytes, sent: bytes) -> None:
    with connected(strict) as link:
        if before:
            link.sendall(before)
            assert one_answer(link).startswith(b"HTTP/1.1 200")
        link.sendall(sent)
        started = time.monotonic()
        answer_of(link)
        assert time.monotonic() - started < 8


def test_health_answers_beside_more_connections_than_there_may_be(strict: Client) -> None:
    allow_many_files()
    with ExitStack() as stack:
        for _ in range(700):
            link = stack.enter_context(connected(strict))
            with suppress(OSError):
                link.sendall(b"\r\n")
        assert strict.get("/livez").status == 200
        assert strict.post_json("/projects/mixed/predict", RECORD).status == 200


@pytest.mark.parametrize("path", ["/refresh", "/projects/mixed/promote", "/v2/repository/index", "/no/such"])
def test_control_endpoints_take_small_bodies_only(strict: Client, path: str) -> None:
    assert strict.post(path, b" " * 70_000, {"content-type": "application/json"}).status == 413


@pytest.mark.parametrize(
    "media", ["application/json", "text/csv", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_is_declared_too_large_is_refused_unread(strict: Client, media: str, expect: bytes) -> None:
    for path in (b"/projects/mixed/predict", b"/projects/mixed/batch", b"/invocations", b"/v2/models/mixed/infer"):
        with connected(strict) as link:
            head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\n" % (path, media.encode())
            link.sendall(head + expect + b"Content-Length: 5000000000\r\n\r\n")
            assert link.recv(65536).startswith(b"HTTP/1.1 413")


def test_half_sent_bodies_take_neither_memory_nor_places(strict: Client) -> None:
    before = memory(strict)
    with ExitStack() as stack:
        for _ in range(10):
            link = stack.enter_context(connected(strict))
            link.sendall(POST.replace(b"application/json", b"text/csv") + b"Content-Length: 200000000\r\n\r\n")
            link.sendall(b"x" * 20 * MB)
        assert "requests_in_progress 0.0" in strict.get("/metrics").text
        assert strict.post_json("/projects/mixed/predict", RECORD).status == 200
        assert memory(strict) - before < 100 * MB


def test_trailers_and_chunk_extensions_are_bounded(strict: Client) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    for endless in (b"0\r\nX-Trailer: ", b"0\r\n" + b"X: y\r\n" * 1000, b"5;name="):
        with connected(strict) as link:
            with suppress(OSError):
                link.sendall(chunked + endless)
                for _ in range(5):
                    link.sendall(b"a" * 65536)
            assert answer_of(link).startswith(b"HTTP/1.1 431")
        assert strict.get("/livez").status == 200


def test_trailers_are_no_headers(strict: Client) -> None:
    chunk = b"%x\r\n%b\r\n0\r\nAccept: image/png\r\nContent-Encoding: gzip\r\n\r\n" % (len(BODY), BODY)
    with connected(strict) as link:
        link.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        assert one_answer(link).startswith(b"HTTP/1.1 200")


def test_an_offer_of_http2_is_answered_with_the_body_in_mind(strict: Client) -> None:
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    )
    with connected(strict) as link:
        for _ in range(2):
            link.sendall(POST + offer + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert one_answer(link).startswith(b"HTTP/1.1 200")


def test_limits_hold_for_the_second_request_of_a_connection(strict: Client) -> None:
    for second, status in (
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", b"400"),
        (b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", b"505"),
    ):
        with connected(strict) as link:
            with suppress(OSError):
                link.sendall(WHOLE + second)
            text = answer_of(link)
        assert text.startswith(b"HTTP/1.1 200"), text
        assert b"HTTP/1.1 " + status in text, text


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.2", "", "[::2]:80"])
def test_other_hosts_are_not_answered(strict: Client, host: str) -> None:
    answer = strict.request("GET", "/", None, {"host": host})
    assert answer.status in (400, 421)
    assert strict.request("GET", "/livez", None, {"host": host}).status in (200, 400)


def test_another_server_than_its_own_answers_nothing(cloud: LocalCloud, tmp_path: Path) -> None:
    """Without Podium's protocol there would be no limits, and no check of where the service can be reached."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(port)]
    variables = {"PODIUM_DASK_WORKERS": "0", "PODIUM_CACHE": str(tmp_path)}
    process = subprocess.Popen(command, env={**cloud.environment, **variables}, stderr=subprocess.DEVNULL)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        client.wait_until(lambda: is_up(client), 30)
        assert client.get("/").json()["code"] == "unsafe-server"
        assert client.post_json("/projects/mixed/predict", RECORD).status == 503
    finally:
        process.terminate()
        process.wait(20)


def is_up(client: Client) -> bool:
    try:
        return client.get("/livez").status == 200
    except OSError:
        return False


def test_bodies_that_cost_the_event_loop_are_refused(strict: Client) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert strict.post("/projects/mixed/predict", b"&" * 8 * MB, form).status == 413
    rows = b"[" + b"{}," * 120_000 + b"{}]"
    answer = strict.post("/projects/mixed/predict?on_error=row", rows, {"content-type": "application/json"})
    assert (answer.status, answer.json()["code"]) == (413, "too-many-rows")
    wide = json.dumps({f"e{place}": 1 for place in range(900)}).encode()
    cells = b"[" + wide + b",{}" * 20_000 + b"]"
    kept = strict.post("/projects/mixed/predict.csv?on_error=row&extra=keep", cells, {"content-type": "application/json"})
    assert kept.status == 413

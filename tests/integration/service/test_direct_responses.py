"""Predictions that are answered without ASGI: pieces, pipelines, unusual and invalid heads, closed connections."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from podium.local.http_client import Client
from tests.tables import RECORD

BODY = json.dumps(RECORD).encode()
JSON = b"Content-Type: application/json\r\n"


def head(*lines: bytes, method: bytes = b"POST", path: bytes = b"/projects/mixed/predict", length: int = len(BODY)) -> bytes:
    first = b"%b %b HTTP/1.1\r\nHost: localhost\r\n" % (method, path)
    return first + b"".join(lines) + b"Content-Length: %d\r\n\r\n" % length


@contextmanager
def connect(client: Client) -> Iterator[socket.socket]:
    name, port = client.host.split(":")
    with socket.create_connection((name, int(port)), timeout=10) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield link


def read_response(link: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = link.recv(65536)
        assert piece, data
        data += piece
    first, *lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = data.partition(b"\r\n\r\n")[2]
    while len(body) < int(headers["content-length"]):
        body += link.recv(65536)
    return int(first.split()[1]), headers, body


def without_id(body: bytes) -> bytes:
    return re.sub(rb'"prediction_id":"[^"]*"', b"", body)


@pytest.fixture(scope="module")
def expected(service: Client) -> bytes:
    response = service.post_json("/projects/mixed/predict?on_error=all", RECORD)
    assert response.status == 200
    return without_id(response.text.encode())


def test_a_request_may_arrive_in_any_pieces(service: Client, expected: bytes) -> None:
    request = head(JSON) + BODY
    with connect(service) as link:
        for size in (1, 7, len(head(JSON)) - 1, len(head(JSON)), len(head(JSON)) + 1, len(request)):
            for start in range(0, len(request), size):
                link.sendall(request[start : start + size])
                if size == 7:
                    time.sleep(0.001)
            status, headers, body = read_response(link)
            assert (status, without_id(body)) == (200, expected)
            assert headers["x-prediction-id"] in body.decode()
            assert "date" in headers


def test_pipelined_requests_are_answered_in_order(service: Client) -> None:
    """Also if direct responses and routed ones alternate."""
    direct, routed = head(JSON) + BODY, head(JSON, path=b"/projects/mixed/predict?on_error=all") + BODY
    with connect(service) as link:
        link.sendall((direct + routed + direct + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + direct) * 5)
        data = b""
        while data.count(b"HTTP/1.1 200") < 25 or not data.endswith(b"}"):
            data += link.recv(1 << 20)
    kinds = [b"prediction_id" in part for part in data.split(b"HTTP/1.1 200")[1:]]
    assert kinds == [True, True, True, False, True] * 5
    ids = re.findall(rb'"prediction_id":"[^"]*-([0-9a-f]+)"', data)
    assert [int(number, 16) for number in ids] == sorted(int(number, 16) for number in ids)


def test_the_connection_is_closed_if_the_client_asks_for_it(service: Client, expected: bytes) -> None:
    for line in (b"Connection: close\r\n", b"connection: Keep-Alive, CLOSE\r\n"):
        with connect(service) as link:
            link.sendall(head(JSON, line) + BODY)
            status, headers, body = read_response(link)
            assert (status, headers["connection"], without_id(body)) == (200, "close", expected)
            assert link.recv(100) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(JSON, b"Expect: 100-continue\r\n") + BODY,
        head(JSON, b"Origin: http://elsewhere.example\r\n") + BODY,
        head(JSON, b"X-Long: " + b"y" * 3000 + b"\r\n") + BODY,
        head(JSON, b"Content-Encoding: identity\r\n") + BODY,
        (head(JSON) + BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
        (head(JSON) + BODY).replace(b"/projects/mixed", b"/projects/%6dixed"),
        head(JSON, b"Connection: disclosed\r\n") + BODY,
        head(JSON, length=70_000) + BODY + b" " * (70_000 - len(BODY)),
    ],
)
def test_unusual_requests_get_the_same_prediction(service: Client, expected: bytes, request_bytes: bytes) -> None:
    with connect(service) as link:
        link.sendall(request_bytes)
        data = link.recv(65536)
        if data.startswith(b"HTTP/1.1 100"):
            data = data.partition(b"\r\n\r\n")[2]
        while expected not in without_id(data):
            piece = link.recv(65536)
            assert piece, data
            data += piece
        assert b" 200 OK" in data


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"X-A : 1\r\n", 400),
        (b"X A: 1\r\n", 400),
        (b"no colon\r\n", 400),
        (b": empty\r\n", 400),
        (b"X: a\x01b\r\n", 400),
        (b"X\x00: a\r\n", 400),
        (b"Host: other\r\n", 400),
        (b"Content-Type: text/csv\r\n", 415),
        (b"Accept: image/png\r\n", 406),
        (b"Content-Encoding: gzip\r\n", 415),
    ],
)
def test_invalid_heads_are_rejected_as_by_the_parser(service: Client, line: bytes, status: int) -> None:
    with connect(service) as link:
        link.sendall(head(line, *([] if b"text/csv" in line else [JSON])) + BODY)
        assert read_response(link)[0] == status


@pytest.mark.parametrize("path", [b"x/projects/mixed/predict", b"http:/projects/mixed/predict", b"*/projects/mixed/predict"])
def test_targets_that_are_not_paths_are_rejected(service: Client, path: bytes) -> None:
    with connect(service) as link:
        link.sendall(head(JSON, path=path) + BODY)
        assert read_response(link)[0] in (400, 404)


def test_a_fragment_is_not_part_of_the_query(service: Client) -> None:
    query = b"&".join(b"%b=%b" % (name.encode(), str(cell).encode()) for name, cell in RECORD.items())
    texts = []
    for path in (b"/projects/mixed/predict?" + query, b"/projects/mixed/predict?" + query + b"#fragment"):
        with connect(service) as link:
            link.sendall(head(method=b"GET", path=path, length=0))
            texts.append(without_id(read_response(link)[2]))
    assert texts[0] == texts[1]


def test_an_invalid_head_is_reported_after_a_routed_request(service: Client) -> None:
    with connect(service) as link:
        link.sendall(head(JSON, path=b"/projects/mixed/predict?on_error=all") + BODY)
        assert read_response(link)[0] == 200
        link.sendall(head(JSON, b"X A: 1\r\n") + BODY)
        assert read_response(link)[0] == 400


def test_a_flood_of_pipelined_requests_lets_other_connections_through(service: Client) -> None:
    body = json.dumps([RECORD] * 10).encode()
    request = head(JSON, path=b"/projects/mixed/predict?models=all", length=len(body)) + body
    service.post_json("/projects/mixed/predict", RECORD)
    with connect(service) as flood:
        flood.sendall(request * 200)
        started = time.monotonic()
        assert service.get("/livez").status == 200
        waited = time.monotonic() - started
        data = b""
        while data.count(b"HTTP/1.1 200") < 200 or not data.endswith(b"}"):
            data += flood.recv(1 << 20)
        assert waited < max(0.5, time.monotonic() - started)


def test_a_connection_is_read_again_after_its_buffer_was_full(service: Client) -> None:
    routed = head(JSON, path=b"/projects/mixed/predict?on_error=all") + BODY
    for pause in (0.0, 0.001, 0.002, 0.004, 0.006):
        with connect(service) as link:
            link.sendall(routed + (head(JSON) + BODY) * 200)
            time.sleep(pause)
            link.sendall((head(JSON) + BODY) * 200)
            data = b""
            while data.count(b"HTTP/1.1 200") < 401 or not data.endswith(b"}"):
                data += link.recv(1 << 20)
            link.sendall(head(JSON) + BODY)
            assert read_response(link)[0] == 200


def test_head_requests_have_no_body(service: Client) -> None:
    query = b"/projects/mixed/predict?" + b"&".join(b"%b=%b" % (k.encode(), str(v).encode()) for k, v in RECORD.items())
    with connect(service) as link:
        link.sendall(head(method=b"HEAD", path=query, length=0))
        data = b""
        while b"\r\n\r\n" not in data:
            data += link.recv(65536)
        assert data.endswith(b"\r\n\r\n")


def test_direct_responses_are_counted_like_others(service: Client) -> None:
    def counted() -> float:
        text = service.get("/metrics").text
        return sum(float(count) for count in re.findall(r'predictions_total\{[^}]*mixed[^}]*status="200"\} ([0-9.]+)', text))

    before = counted()
    for _ in range(5):
        service.post_json("/projects/mixed/predict", RECORD)
    assert counted() == before + 5

"""Request heads that llhttp or a proxy could interpret differently from Podium."""

from __future__ import annotations

import pytest

from service.errors import HeadError
from service.request_head import MAX_HEAD, MAX_HEADERS, MAX_URL, check_head, check_incomplete

LINE, HOST = b"POST /predict HTTP/1.1\r\n", b"Host: LocalHost:8000\r\n"

VALID = [
    (b"", None, b""),
    (b"Content-Length: 12\r\n", 12, b"Content-Length: 12\r\n"),
    (b"Transfer-Encoding: chunked\r\n", "chunked", b"Transfer-Encoding: chunked\r\n"),
    (b"transfer-encoding: Chunked\r\n", "chunked", b"transfer-encoding: Chunked\r\n"),
    (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n", None, b"Connection: \r\n"),
    (b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nX: 1\r\n", None, b"Connection: keep-alive\r\nX: 1\r\n"),
]


@pytest.mark.parametrize(("headers", "length", "kept"), VALID)
def test_a_valid_head_is_accepted_without_its_upgrade_headers(headers: bytes, length: int | str | None, kept: bytes) -> None:
    head = check_head(LINE + HOST + headers + b"\r\n")
    assert head.data == LINE + HOST + kept + b"\r\n"
    assert head.length == (None if length == "chunked" else length or 0)
    assert head.host == b"localhost:8000"


INVALID = [
    (b"POST / HTTP/2.0\r\n" + HOST, 505),
    (b"POST / HTTP/3\r\n" + HOST, 505),
    (b"POST / HTTP/1.2\r\n" + HOST, 505),
    (b"POST / HTTP/0.9\r\n" + HOST, 505),
    (b"POST /\r\n" + HOST, 400),
    (b"POST / http/1.1\r\n" + HOST, 400),
    (b"post / HTTP/1.1\r\n" + HOST, 400),
    (b"POST  / HTTP/1.1\r\n" + HOST, 400),
    (b"POST / x HTTP/1.1\r\n" + HOST, 400),
    (b"POST /" + b"a" * MAX_URL + b" HTTP/1.1\r\n" + HOST, 414),
    (LINE, 400),
    (LINE + HOST + HOST, 400),
    (LINE + b"Host: a b\r\n", 400),
    (LINE + b"Host:\r\n", 400),
    (LINE + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
    (LINE + HOST + b"Content-Length: +1\r\n", 400),
    (LINE + HOST + b"Content-Length: 1, 1\r\n", 400),
    (LINE + HOST + b"Content-Length: 99999999999999999999\r\n", 400),
    (LINE + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
    (LINE + HOST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
    (LINE + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
    (LINE + HOST + b"Transfer-Encoding: identity\r\n", 501),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
    (LINE + HOST + b"X: a\n", 400),
    (LINE + HOST + b"X: a\rb\r\n", 400),
    (LINE + HOST + b"X: a\r\n b\r\n", 400),
    (LINE + HOST + b"X: a\r\n" * (MAX_HEADERS + 1), 431),
    (LINE + HOST + b"X: " + b"a" * MAX_HEAD + b"\r\n", 431),
]


@pytest.mark.parametrize(("head", "status"), INVALID, ids=range(len(INVALID)))
def test_an_invalid_head_is_rejected(head: bytes, status: int) -> None:
    with pytest.raises(HeadError) as error:
        check_head(head + b"\r\n")
    assert error.value.status == status


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"GET / HTTP/1.1\nHost", b"hello\r\n", b"GET /" + b"a" * 20_000])
def test_an_incomplete_head_is_rejected_as_soon_as_it_cannot_be_valid(data: bytes) -> None:
    with pytest.raises(HeadError):
        check_incomplete(data)

"""Checks on a complete request head that llhttp leaves to the server (RFC 9112)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from service.errors import (
    HeadTooLarge,
    MalformedRequest,
    TooManyHeaders,
    UnsupportedHttpVersion,
    UnsupportedTransferEncoding,
    UrlTooLong,
)

MAX_HEAD, MAX_URL, MAX_HEADERS = 32 * 1024, 16 * 1024, 200
MAX_CACHED = 2 * 1024
"""Heads of up to this many bytes are cached, because clients repeat them."""
NOT_HTTP = "malformed HTTP request"

REQUEST_LINE = re.compile(rb"[A-Z]{3,20} ([^\s]+) HTTP/([0-9]\.[0-9])\r\n")
HOST = re.compile(rb"[A-Za-z0-9.\-_:\[\]%]{1,255}")
SPECIAL = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|upgrade|connection|http2-settings|expect)[ \t]*:[ \t]*([^\r]*)", re.I
)
UPGRADE = re.compile(rb"\r\n(?:upgrade|http2-settings)[ \t]*:[^\r]*", re.I)
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
CONNECTION = re.compile(rb"(\r\nconnection[ \t]*:)([^\r]*)", re.I)


@dataclass(frozen=True, slots=True)
class Head:
    """A valid head: its bytes for the parser, its host in lower case, and the length of the body (None: chunked)."""

    data: bytes
    host: bytes
    length: int | None
    expects: bool = False
    """Whether the client waits for an interim response before it sends the body."""


def check_head(data: bytes) -> Head:
    """Validate the bytes up to and including the empty line. Raises HeadError.

    `Upgrade` is ignored, as RFC 9110 7.8 allows: a client that offers HTTP/2 gets its response over HTTP/1.1.
    """
    return _check_cached(data) if len(data) <= MAX_CACHED else _check(data)


def _check(data: bytes) -> Head:
    if len(data) > MAX_HEAD:
        check_incomplete(data)
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        raise MalformedRequest("every line must end with a carriage return and a line feed")
    if lines - 2 > MAX_HEADERS:
        raise TooManyHeaders(f"a request may have at most {MAX_HEADERS} headers")
    if b"\r\n " in data or b"\r\n\t" in data:
        raise MalformedRequest("a header may not continue on the next line")
    version = _version(data)
    headers: dict[bytes, list[bytes]] = {}
    for name, value in SPECIAL.findall(data):
        headers.setdefault(name.lower(), []).append(value.strip(b" \t"))
    hosts = headers.get(b"host", [])
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise MalformedRequest("a request needs exactly one Host header")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise MalformedRequest("the Host header is not a valid host")
    length = _body_length(headers, version)
    if b"upgrade" in headers:
        data = _without_upgrade(data)
    return Head(data, hosts[0].lower() if hosts else b"", length, b"expect" in headers)


_check_cached = functools.lru_cache(maxsize=1024)(_check)


def check_incomplete(data: bytes) -> None:
    """Reject an incomplete head as soon as it cannot become a valid one. Raises HeadError."""
    if len(data) > MAX_URL + 100 and b"\r\n" not in data[: MAX_URL + 100]:
        raise UrlTooLong(f"a URL may have at most {MAX_URL} bytes")
    if len(data) > MAX_HEAD:
        raise HeadTooLarge(f"the head of a request may have at most {MAX_HEAD} bytes")
    if not data[:1].isupper() or BARE_LINE_FEED.search(data):
        raise MalformedRequest(NOT_HTTP)


def _version(data: bytes) -> bytes:
    line = REQUEST_LINE.match(data)
    if line is None:
        end = data.find(b"\r\n")
        if re.search(rb" HTTP/([2-9][0-9.]*|1\.[2-9]|0\.[0-9])$", data[:end]):
            raise UnsupportedHttpVersion("send HTTP/1.1 or HTTP/1.0")
        raise MalformedRequest("the first line must be a method, a path and HTTP/1.1")
    if len(line[1]) > MAX_URL:
        raise UrlTooLong(f"a URL may have at most {MAX_URL} bytes")
    if line[2] not in (b"1.1", b"1.0"):
        raise UnsupportedHttpVersion("send HTTP/1.1 or HTTP/1.0")
    return line[2]


def _body_length(headers: dict[bytes, list[bytes]], version: bytes) -> int | None:
    lengths, encodings = headers.get(b"content-length", []), headers.get(b"transfer-encoding", [])
    if encodings:
        if lengths or version == b"1.0":
            raise MalformedRequest("Transfer-Encoding cannot be combined with Content-Length or HTTP/1.0")
        if [encoding.lower() for encoding in encodings] != [b"chunked"]:
            raise UnsupportedTransferEncoding("the only supported transfer encoding is chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise MalformedRequest("Content-Length must be one whole number")
    return int(lengths[0])


def _without_upgrade(data: bytes) -> bytes:
    def without_tokens(header: re.Match[bytes]) -> bytes:
        tokens = [token.strip() for token in header[2].split(b",")]
        return header[1] + b" " + b", ".join(t for t in tokens if t.lower() not in (b"upgrade", b"http2-settings"))

    return CONNECTION.sub(without_tokens, UPGRADE.sub(b"", data))

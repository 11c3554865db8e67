"""Checks of a complete request head that llhttp leaves to its user (RFC 9112)."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD, MAX_URL, MAX_HEADERS = 32 * 1024, 16 * 1024, 200

REQUEST_LINE = re.compile(rb"[A-Z]{3,20} ([^\s]+) HTTP/([0-9]\.[0-9])\r\n")
HOST = re.compile(rb"[A-Za-z0-9.\-_:\[\]%]{1,255}")
SPECIAL = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|upgrade|connection|http2-settings)[ \t]*:[ \t]*([^\r]*)", re.I
)
UPGRADE = re.compile(rb"\r\n(?:upgrade|http2-settings)[ \t]*:[^\r]*", re.I)
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
CONNECTION = re.compile(rb"(\r\nconnection[ \t]*:)([^\r]*)", re.I)


class HeadError(Exception):
    """The request is refused: `status`, problem `code`, and what is wrong."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Head:
    """A head for the parser, the host that it names, and the declared size of the body (None: chunked)."""

    data: bytes
    host: bytes
    length: int | None


def check_head(data: bytes) -> Head:
    """Validate the bytes up to and including the empty line. Raises HeadError.

    `Upgrade` is ignored, as RFC 9110 7.8 allows: a client that offers HTTP/2 is answered in HTTP/1.1, with its body.
    """
    check_incomplete(data)
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        raise _malformed("every line must end with a carriage return and a line feed")
    if lines - 2 > MAX_HEADERS:
        raise HeadError(431, "too-many-headers", f"a request may have {MAX_HEADERS} headers")
    if b"\r\n " in data or b"\r\n\t" in data:
        raise _malformed("a header may not continue on the next line")
    version = _version(data)
    found: dict[bytes, list[bytes]] = {}
    for name, value in SPECIAL.findall(data):
        found.setdefault(name.lower(), []).append(value.strip(b" \t"))
    hosts = found.get(b"host", [])
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise _malformed("a request needs one Host header")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise _malformed("the Host header names no host")
    length = _length(found, version)
    if b"upgrade" in found:
        data = _without_upgrade(data)
    return Head(data, hosts[0].lower() if hosts else b"", length)


def check_incomplete(data: bytes) -> None:
    """Refuse as early as it is certain that no valid head will come of these bytes. Raises HeadError."""
    if len(data) > MAX_URL + 100 and b"\r\n" not in data[: MAX_URL + 100]:
        raise HeadError(414, "url-too-long", f"an address may have {MAX_URL} bytes")
    if len(data) > MAX_HEAD:
        raise HeadError(431, "head-too-large", f"the head of a request may have {MAX_HEAD} bytes")
    if not data[:1].isupper() or BARE_LINE_FEED.search(data):
        raise _malformed("this is not a request in HTTP/1.1")


def _version(data: bytes) -> bytes:
    line = REQUEST_LINE.match(data)
    if line is None:
        end = data.find(b"\r\n")
        if re.search(rb" HTTP/([2-9][0-9.]*|1\.[2-9]|0\.[0-9])$", data[:end]):
            raise HeadError(505, "http-version", "send HTTP/1.1 or HTTP/1.0")
        raise _malformed("the first line is not a method, a path and HTTP/1.1")
    if len(line[1]) > MAX_URL:
        raise HeadError(414, "url-too-long", f"an address may have {MAX_URL} bytes")
    if line[2] not in (b"1.1", b"1.0"):
        raise HeadError(505, "http-version", "send HTTP/1.1 or HTTP/1.0")
    return line[2]


def _length(found: dict[bytes, list[bytes]], version: bytes) -> int | None:
    lengths, encodings = found.get(b"content-length", []), found.get(b"transfer-encoding", [])
    if encodings:
        if lengths or version == b"1.0":
            raise _malformed("Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0")
        if [encoding.lower() for encoding in encodings] != [b"chunked"]:
            raise HeadError(501, "transfer-encoding", "the only transfer encoding is chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise _malformed("Content-Length must be one whole number")
    return int(lengths[0])


def _without_upgrade(data: bytes) -> bytes:
    def kept(header: re.Match[bytes]) -> bytes:
        tokens = [token.strip() for token in header[2].split(b",")]
        return header[1] + b" " + b", ".join(t for t in tokens if t.lower() not in (b"upgrade", b"http2-settings"))

    return CONNECTION.sub(kept, UPGRADE.sub(b"", data))


def _malformed(detail: str) -> HeadError:
    return HeadError(400, "malformed-http", detail)

"""uvicorn's HTTP protocol with limits on what a connection may send, and on how slowly.

A request's head has a size, a number of headers and a time; a body must keep a least rate; an answer that nobody reads is given
up. What httptools lets pass but RFC 9112 does not (bare line feeds, no Host, two) is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS, BODY_SECONDS, WRITE_SECONDS = 10.0, 30.0, 60.0
LINGER_SECONDS = 2.0
"""After a refusal, what still comes is read so long and thrown away: a reset would undo the answer."""
LEAST_RATE = 20_000
"""Bytes a second that a body must come with, after its first BODY_SECONDS."""
MOST_HEAD, MOST_URL, MOST_HEADERS = 64 * 1024, 16 * 1024, 200
MOST_CONNECTIONS = 4000
GONE = "podium.gone"
"""Where a request's scope can be asked whether its connection is closed."""
HOST = re.compile(rb"[A-Za-z0-9.\-_:\[\]%]{1,255}")
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class Refused(Exception):
    """The request is not taken: status, code and what is wrong."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes whoever is too large, too slow or not HTTP."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._state = "idle"
        self._head = self._received = 0
        self._since = time.monotonic()
        self._last = b""
        self._refused: Refused | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            return transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return None
        if self._state != "body":
            if self._state == "idle":
                self._since, self._head = time.monotonic(), 0
            end = data.find(b"\r\n\r\n")
            head = data if end < 0 else data[: end + 4]
            self._head += len(head)
            if BARE_LINE_FEED.search(self._last + head, len(self._last)):
                return self._refuse(400, "malformed-http", "a line ends without a carriage return")
            if self._head > MOST_HEAD and end < 0:
                return self._refuse(431, "head-too-large", f"the head of a request may have {MOST_HEAD} bytes")
            self._last = data[-1:]
        else:
            self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_message_begin(self) -> None:
        self._state = "head"
        super().on_message_begin()
        self.scope[GONE] = self.transport.is_closing  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MOST_URL:
            raise self._wrong(414, "url-too-long", f"an address may have {MOST_URL} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            raise self._wrong(431, "too-many-headers", f"a request may have {MOST_HEADERS} headers")

    def on_headers_complete(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise self._wrong(400, "malformed-http", "a request needs one Host header")
        if hosts and not HOST.fullmatch(hosts[0]):
            raise self._wrong(400, "malformed-http", "the Host header is no host")
        self._state, self._received, self._last = "body", 0, b""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._state = "idle"
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser or a callback above did not take."""
        if not self._refused:
            self._refuse(400, "malformed-http", "this is no HTTP request that is understood here")

    def _wrong(self, status: int, code: str, detail: str) -> Refused:
        self._refuse(status, code, detail)
        return self._refused or Refused(status, code, detail)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer with a problem and close."""
        self._refused = Refused(status, code, detail)
        if self.transport.is_closing() or (self._state == "body" and self.cycle and self.cycle.response_started):
            return self.transport.close()
        title = HTTPStatus(status).phrase
        body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "code": code, "error": detail}
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(text)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + text)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        early = self._state == "body" and self.cycle.response_complete
        if early and not self.transport.is_closing():  # answered before all of it came: no more is taken
            self._refused = Refused()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # --- slow clients ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """One timer while something is awaited from the client; none while it waits for us."""
        if self._state == "idle" and self._head:
            if self._timer:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self._left(), self._late)

    def _left(self) -> float:
        allowed = HEAD_SECONDS if self._state != "body" else BODY_SECONDS + self._received / LEAST_RATE
        return self._since + allowed - time.monotonic()

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        left = self._left()
        if left > 0:
            self._timer = self.loop.call_later(left, self._late)
        elif self._head:
            self._refuse(408, "too-slow", "the request came too slowly")
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()
            self._unread = None

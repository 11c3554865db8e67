"""uvicorn's HTTP protocol with limits on what a connection may send and on how slowly.

A connection always has a deadline, except while the service works on a complete request. Heads are checked whole before they
are parsed; everything that is not body counts towards a limit; one request of a connection is worked on at a time.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http_head import MAX_HEAD, Head, HeadError, check_head, check_incomplete

IDLE_SECONDS = 75.0
"""Longer than a load balancer keeps its idle connections (60 s)."""
HEAD_SECONDS, BODY_SECONDS, WRITE_SECONDS = 10.0, 30.0, 60.0
MAX_BODY_SECONDS = 300.0
LINGER_SECONDS = 2.0
"""After a refusal, what still arrives is read and discarded for this long: a reset would undo the answer."""
MIN_RATE = 20_000
"""Bytes per second of a body after its first BODY_SECONDS."""
MAX_FRAMING = 16 * 1024
"""Bytes of chunk extensions and trailers between two pieces of a body."""
MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER = 4000, 1000
SPARE_FILES = 200
"""Descriptors that connections leave to everything else."""
DISCONNECTED = "podium.gone"
"""The key of a request's scope for a function that says whether its connection is closed."""
HEAD = "podium.head"
"""The key of a request's scope for its checked `Head`."""
CONNECTION = "podium.connection"
"""The key of a request's scope for its `Connection`."""

Receiving = Literal["head", "body", "nothing"]


class Connection:
    """What a request may ask of its connection."""

    __slots__ = ("on_close",)

    def __init__(self) -> None:
        self.on_close: Callable[[], None] | None = None
        """Called when the client disconnects."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections that are too slow, send too much, or do not speak HTTP."""

    open: ClassVar[dict[GuardedProtocol, None]] = {}
    """Every connection of this process, in the order in which it last became idle."""
    peers: ClassVar[Counter[str]] = Counter()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiving: Receiving = "head"
        self._buffer = b""
        self._blank = False
        self._remaining: int | None = 0
        self._body = self._framing = 0
        self._has_head = False
        self._deadline = self._body_deadline = 0.0
        self._head = Head(b"", b"", 0)
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._connection = Connection()

    # --- connections -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self.peers[self._peer] += 1
        self.open[self] = None
        if self.peers[self._peer] > MAX_CONNECTIONS_PER_PEER:
            self._evict(self._peer)
        elif len(self.open) > max_connections():
            self._evict(None)
        self._wait(HEAD_SECONDS)

    def _evict(self, peer: str | None) -> None:
        """Close the connection that has waited longest for a request, so that a new one is always accepted."""
        for other in self.open:
            if other is not self and not other._is_working and peer in (None, other._peer):
                return other.transport.abort()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer:
                timer.cancel()
        self.open.pop(self, None)
        self.peers[self._peer] -= 1
        if not self.peers[self._peer]:
            del self.peers[self._peer]
        super().connection_lost(exc)
        if self._connection.on_close:
            self._connection.on_close()

    # --- what arrives ----------------------------------------------------------------------------------------------------

    @property
    def _is_working(self) -> bool:
        """Whether a complete request waits for its answer."""
        return self._receiving == "nothing"

    def data_received(self, data: bytes) -> None:
        while data and not self._refused and not self.transport.is_closing():
            if self._receiving == "head":
                data = self._head_received(data)
            elif self._receiving == "body":
                data = self._body_received(data)
            else:
                return self._keep_for_later(data)
        if self._receiving == "body" and not self._body_deadline:
            self._wait(BODY_SECONDS)
            self._body_deadline = time.monotonic() + MAX_BODY_SECONDS

    def _keep_for_later(self, data: bytes) -> None:
        """The next request, while this one is not answered."""
        self._buffer += data
        if len(self._buffer) > 64 * MAX_HEAD:
            self.transport.abort()
        elif len(self._buffer) > MAX_HEAD:
            self.flow.pause_reading()

    def _head_received(self, data: bytes) -> bytes:
        """Take a head once it is complete; returns what follows it."""
        if not self._buffer and data[:2] == b"\r\n" and not self._blank:
            self._blank = True  # one empty line before a request is tolerated (RFC 9112 2.2); it extends no deadline
            return data[2:]
        start, is_first = max(0, len(self._buffer) - 3), not self._buffer
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", start) + 4
        try:
            if end < 4:
                check_incomplete(self._buffer)
                if is_first:
                    self._wait(HEAD_SECONDS)
                return b""
            head = check_head(self._buffer[:end])
        except HeadError as error:
            self._refuse(error.status, error.code, str(error))
            return b""
        rest, self._buffer, self._blank = self._buffer[end:], b"", False
        self._receiving, self._remaining, self._head = "body", head.length, head
        self._body, self._framing, self._body_deadline = 0, 0, 0.0
        if head.length is None or len(rest) < head.length:
            super().data_received(head.data)
            return rest
        self._remaining = 0
        super().data_received(head.data + rest[: head.length])  # the whole request at once
        return rest[head.length :]

    def _body_received(self, data: bytes) -> bytes:
        """Feed no more than the body to the parser; returns what follows it."""
        size = len(data) if self._remaining is None else min(self._remaining, len(data))
        piece, rest = data[:size], data[size:]
        if self._remaining is None:
            self._framing += size
        else:
            self._remaining -= size
        super().data_received(piece)
        if self._framing > MAX_FRAMING + size:
            self._refuse(431, "head-too-large", f"chunk extensions and trailers may have {MAX_FRAMING} bytes")
        return rest

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser or a callback did not take."""
        if not self._refused:
            self._refuse(400, "malformed-http", "this is not a request in HTTP/1.1")

    # --- callbacks of the parser -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._receiving == "nothing":
            raise HeadError(400, "malformed-http", "wait for the answer after a chunked body")
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[DISCONNECTED], scope[HEAD], scope[CONNECTION] = self.transport.is_closing, self._head, self._connection

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_head = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving, self._has_head = "nothing", False
        super().on_message_complete()
        self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refused or self.transport.is_closing():
            return
        if self._receiving == "body":  # answered before all of it arrived: the rest is discarded
            self._refused = True
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
            return
        self._receiving = "head"
        self.open[self] = self.open.pop(self, None)
        self._wait(IDLE_SECONDS)
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self.loop.call_soon(self.data_received, data)

    # --- refusals --------------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer with a problem and close."""
        self._refused, self._buffer = True, b""
        self._stop_waiting()
        if self.transport.is_closing():
            return None
        if self._receiving != "head" and self.cycle:
            started, self.cycle.disconnected = self.cycle.response_started, True
            self.cycle.message_event.set()
            if self._connection.on_close:
                self._connection.on_close()
            if started:
                return self.transport.close()
        title = HTTPStatus(status).phrase
        body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "code": code, "error": detail}
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(text)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + text)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # --- deadlines -------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Close the connection unless the next step is done in time; one timer serves all deadlines."""
        self._deadline = time.monotonic() + seconds
        if self._timer is None or self._timer.when() > self.loop.time() + seconds:
            if self._timer:
                self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self._late)

    def _stop_waiting(self) -> None:
        self._deadline = float("inf")

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self._deadline == float("inf"):
            return
        deadline = self._deadline
        if self._receiving == "body":
            deadline = min(deadline + self._body / MIN_RATE, self._body_deadline)
        left = deadline - time.monotonic()
        if left > 0:
            self._timer = self.loop.call_later(left, self._late)
        elif self._buffer or self._receiving == "body":
            self._refuse(408, "too-slow", "the request arrived too slowly")
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


def max_connections() -> int:
    """Within what the process may open."""
    return max(10, min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))


def allow_many_files() -> None:
    """Raise the soft limit on descriptors to the hard one, as far as connections need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))

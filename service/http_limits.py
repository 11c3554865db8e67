"""uvicorn's HTTP protocol with limits on the size, rate and duration of what a connection sends.

A connection always has a deadline, except while the service works on a complete request. Heads are validated before they
are parsed, everything except the body counts towards a limit, and a connection has one request in progress at a time.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadError, HeadTooLarge, MalformedRequest, RequestTimeout, ServiceError
from service.problems import problem_document, problem_headers
from service.request_head import MAX_HEAD, NOT_HTTP, Head, check_head, check_incomplete
from service.response_writer import ResponseWriter

IDLE_SECONDS = 75.0
"""Longer than the 60 s for which load balancers keep idle connections."""
HEAD_SECONDS, BODY_SECONDS, WRITE_SECONDS = 10.0, 30.0, 60.0
MAX_BODY_SECONDS = 300.0
LINGER_SECONDS = 2.0
"""How long input is discarded after an error response: closing at once would reset the connection and lose the response."""
MIN_RATE = 20_000
"""Minimum upload rate in bytes per second, after the first BODY_SECONDS."""
MAX_FRAMING = 16 * 1024
"""Maximum bytes of chunk extensions and trailers between two pieces of a body."""
MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER = 4000, 1000
SPARE_FILES = 200
"""File descriptors reserved for everything except connections."""
DISCONNECTED = "podium.disconnected"
"""Scope key for a function that returns whether the connection is closed."""
HEAD = "podium.head"
"""Scope key for the validated `Head`."""
CONNECTION = "podium.connection"
"""Scope key for the `Connection`."""

MAX_COLLECTED = 64 * 1024
"""Bodies up to this many bytes are passed on as a whole."""

Receiving = Literal["head", "body", "nothing"]


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """A response without ASGI: the status line and headers, except `Date` and `Connection`, and the body."""

    head: bytes
    body: bytes
    keep_alive: bool


Responder = Callable[[Head, bytes, str], DirectResponse | None]
"""Responds to a complete request for an address of this server, or returns None to pass it on to the ASGI application."""


class Connection:
    """The part of a connection that requests use."""

    __slots__ = ("on_close",)

    def __init__(self) -> None:
        self.on_close: Callable[[], None] | None = None
        """Called when the client disconnects."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections that are too slow, send too much or violate HTTP."""

    open: ClassVar[dict[GuardedProtocol, None]] = {}
    """The connections of this process, ordered by when they last became idle."""
    peers: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._respond: Responder | None = getattr(self.app, "respond", None)
        self._receiving: Receiving = "head"
        self._buffer = b""
        self._collected: bytes | None = None
        self._has_responded = self._is_last = False
        self._blank = False
        self._remaining: int | None = 0
        self._body = self._framing = 0
        self._has_head = False
        self._deadline = self._body_deadline = 0.0
        self._head = Head(b"", b"", 0)
        self._rejected = False
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._connection = Connection()

    # --- connections -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._writer = ResponseWriter(transport, self.loop)
        super().connection_made(self._writer)  # type: ignore[arg-type]
        self._peer = self.client[0] if self.client else ""
        self._server_address = self.server[0] if self.server else ""
        self.peers[self._peer] += 1
        self.open[self] = None
        if self.peers[self._peer] > MAX_CONNECTIONS_PER_PEER:
            self._close_idle(self._peer)
        elif len(self.open) > max_connections():
            self._close_idle(None)
        self._set_deadline(HEAD_SECONDS)

    def _close_idle(self, peer: str | None) -> None:
        """Close the connection that has been idle longest to make room; close this one if all others are busy."""
        for other in self.open:
            if other is not self and not other._is_working and peer in (None, other._peer):
                return other.transport.abort()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer:
                timer.cancel()
        self.open.pop(self, None)
        self.peers[self._peer] -= 1
        if not self.peers[self._peer]:
            del self.peers[self._peer]
        super().connection_lost(exc)
        if self._connection.on_close:
            self._connection.on_close()

    # --- input -----------------------------------------------------------------------------------------------------------

    @property
    def _is_working(self) -> bool:
        """Whether a complete request has been received but its response is not yet complete."""
        return self._receiving == "nothing"

    def data_received(self, data: bytes) -> None:
        while data and not self._rejected and not self.transport.is_closing():
            if self._receiving == "nothing":
                self._buffer_next_request(data)
                break
            data = self._head_received(data) if self._receiving == "head" else self._body_received(data)
        if self._has_responded:
            self._has_responded = False
            self._await_request()
        if self._receiving == "body" and not self._body_deadline:
            self._set_deadline(BODY_SECONDS)
            self._body_deadline = time.monotonic() + MAX_BODY_SECONDS

    def _buffer_next_request(self, data: bytes) -> None:
        """Keep pipelined input until the current response is complete."""
        self._buffer += data
        if len(self._buffer) > 64 * MAX_HEAD:
            self.transport.abort()
        elif len(self._buffer) > MAX_HEAD:
            self.flow.pause_reading()

    def _head_received(self, data: bytes) -> bytes:
        """Check a complete head, and return the rest of the data."""
        if not self._buffer and data[:2] == b"\r\n" and not self._blank:
            self._blank = True  # RFC 9112 2.2 allows one empty line before a request; it does not extend the deadline
            return data[2:]
        start, is_first = max(0, len(self._buffer) - 3), not self._buffer
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", start) + 4
        try:
            if end < 4:
                check_incomplete(self._buffer)
                if is_first:
                    self._set_deadline(HEAD_SECONDS)
                return b""
            head = check_head(self._buffer[:end])
        except HeadError as error:
            self._reject(error)
            return b""
        rest, self._buffer, self._blank = self._buffer[end:], b"", False
        self._receiving, self._remaining, self._head = "body", head.length, head
        self._body, self._framing, self._body_deadline, self._collected = 0, 0, 0.0, None
        if head.length is None or head.length > MAX_COLLECTED or head.expects:
            self._feed(head.data)
            return rest
        if not head.length:
            self._request_received(head, b"")
        else:
            self._collected = b""
        return rest

    def _body_received(self, data: bytes) -> bytes:
        """Collect a small body, or feed it to the parser; return the rest of the data."""
        size = len(data) if self._remaining is None else min(self._remaining, len(data))
        piece, rest = data[:size], data[size:]
        if self._remaining is None:
            self._framing += size
        else:
            self._remaining -= size
        if self._collected is not None:
            self._body += size
            self._collected += piece
            if not self._remaining:
                self._request_received(self._head, self._collected)
            return rest
        super().data_received(piece)
        if self._framing > MAX_FRAMING + size:
            self._reject(HeadTooLarge(f"chunk extensions and trailers may have at most {MAX_FRAMING} bytes"))
        return rest

    def _request_received(self, head: Head, body: bytes) -> None:
        """Respond directly, or pass the whole request to the parser at once."""
        self._collected = None
        response = self._respond(head, body, self._server_address) if self._respond and not self.flow.write_paused else None
        if response is None:
            return self._feed(head.data + body)
        keep_alive = response.keep_alive and not self._is_last
        lines = [b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]
        if not keep_alive:
            lines.append(b"connection: close\r\n")
        self._writer.write_response(b"".join([response.head, *lines, b"\r\n", response.body]))
        self.server_state.total_requests += 1
        self._receiving, self._has_responded = "nothing", True
        if not keep_alive:
            self.transport.close()

    def _feed(self, data: bytes) -> None:
        """Feed a head, and the body that follows it, to the parser."""
        super().data_received(data)
        if self._is_last and self.cycle:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close after the response to the request that is arriving or in progress."""
        if self._collected is None and not (self._receiving == "head" and self._buffer):
            return super().shutdown()
        self._is_last = True

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser or a callback fails."""
        if not self._rejected:
            self._reject(MalformedRequest(NOT_HTTP))

    # --- callbacks of the parser -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._receiving == "nothing":
            raise MalformedRequest("wait for the response to a request with a chunked body before sending the next request")
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
        self._clear_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # idle connections have a deadline of their own
        if self._rejected or self.transport.is_closing():
            return
        if self._receiving == "body":  # the response came before the whole body: discard the rest
            self._rejected = True
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
            return
        self._await_request()

    def _await_request(self) -> None:
        """Receive the next request; one that is buffered gets its turn after the other connections."""
        if self._buffer:
            self.loop.call_soon(self._receive_next_request)  # until then, what arrives is added to the buffer
        else:
            self._receive_next_request()

    def _receive_next_request(self) -> None:
        if self.transport.is_closing():
            return
        self._receiving = "head"
        self.open[self] = self.open.pop(self, None)
        self._set_deadline(IDLE_SECONDS)
        self.flow.resume_reading()
        data, self._buffer = self._buffer, b""
        self.data_received(data)

    # --- errors ----------------------------------------------------------------------------------------------------------

    def _reject(self, error: ServiceError) -> None:
        """Send a problem document and close the connection."""
        self._rejected, self._buffer = True, b""
        self._clear_deadline()
        if self.transport.is_closing():
            return None
        if self._receiving != "head" and self._collected is None and self.cycle and not self.cycle.response_complete:
            started, self.cycle.disconnected = self.cycle.response_started, True
            self.cycle.message_event.set()
            if self._connection.on_close:
                self._connection.on_close()
            if started:
                return self.transport.close()
        body = problem_document(error)
        headers = {**problem_headers(error), "Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *map(": ".join, headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # --- deadlines -------------------------------------------------------------------------------------------------------

    def _set_deadline(self, seconds: float) -> None:
        """Close the connection unless the next step completes in time; one timer serves all deadlines."""
        self._deadline = time.monotonic() + seconds
        if self._timer is None or self._timer.when() > self.loop.time() + seconds:
            if self._timer:
                self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self._on_timeout)

    def _clear_deadline(self) -> None:
        self._deadline = float("inf")

    def _on_timeout(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self._deadline == float("inf"):
            return
        deadline = self._deadline
        if self._receiving == "body":
            deadline = min(deadline + self._body / MIN_RATE, self._body_deadline)
        seconds_left = deadline - time.monotonic()
        if seconds_left > 0:
            self._timer = self.loop.call_later(seconds_left, self._on_timeout)
        elif self._buffer or self._receiving == "body":
            self._reject(RequestTimeout("request timed out"))
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self._write_timer or self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None


def max_connections() -> int:
    """Return the maximum number of connections, limited by the file descriptors of the process."""
    return max(10, min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))


def raise_file_limit() -> None:
    """Raise the soft limit on file descriptors to what the connections need, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MAX_CONNECTIONS + SPARE_FILES + 1000
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))

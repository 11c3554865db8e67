"""Admission control: receive complete bodies, limit concurrent requests, and write the access log."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime

import msgspec

from service.access_log import AccessLog
from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.authentication import PUBLIC_PATHS, Authenticator
from service.body_intake import MAX_IN_MEMORY, Body, BodyIntake
from service.errors import Overloaded, QueueFull, ServiceError
from service.http_limits import DISCONNECTED, HEAD
from service.metrics import Metrics
from service.problems import send_problem
from service.settings import ServiceSettings

HEALTH = frozenset(("/livez", "/readyz", "/ping", "/health", "/healthz", "/ready", "/v2/health/live", "/v2/health/ready"))
"""Paths that are served under any load and without authentication."""
MODEL = "podium.model"
"""Scope key for the project and version that served the request."""


class AdmissionMiddleware:
    """ASGI middleware for every request except health checks: host, API key, body, concurrency, metrics, access log."""

    def __init__(
        self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics, bodies: BodyIntake, log: AccessLog | None = None
    ) -> None:
        self._app, self._metrics, self._bodies, self._log = app, metrics, bodies, log
        self.authenticator = Authenticator(settings)
        self._max_concurrency, self._max_queue = settings.max_concurrency, settings.max_queue
        self._queue_timeout = settings.queue_timeout
        self._in_progress, self._clock = 0, RequestClock()
        self._queue: deque[asyncio.Future[None]] = deque()
        metrics.in_progress, metrics.queue_depth = lambda: self._in_progress, lambda: len(self._queue)

    @property
    def has_free_slot(self) -> bool:
        """Whether a request would be admitted at once."""
        return self._in_progress < self._max_concurrency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH:
            return await self._app(scope, receive, send)
        body: Body | None = None
        reserved = 0
        try:
            self.authenticator.check(scope)
            if scope["path"] in PUBLIC_PATHS:
                return await self._app(scope, receive, send)
            if scope["method"] == "POST":
                self._bodies.check_length(scope, scope[HEAD].length or 0)
                first = await receive()
                if first.get("more_body") or len(first.get("body", b"")) > MAX_IN_MEMORY:
                    body = await self._bodies.complete(scope, receive, first)
                    reserved = await self._bodies.reserve(scope, body.size, self._queue_timeout)
                    receive = body.receive
                else:
                    receive = replay(first, receive)
            await self._run_admitted(scope, receive, send)
        except ServiceError as error:
            await send_problem(send, error)
        finally:
            if body:
                body.close()
                self._bodies.memory.give_back(reserved)

    async def _run_admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application as soon as a slot is free. Raises QueueFull, Overloaded."""
        started = time.perf_counter()
        if self._in_progress < self._max_concurrency:
            self._in_progress += 1
        else:
            await self._acquire()
        response = ResponseObserver(send)
        try:
            if not client_disconnected(scope):
                await self._app(scope, receive, response)
        finally:
            self._release()
            seconds, model = time.perf_counter() - started, scope.get(MODEL)
            self.record(scope["method"], scope["path"], response.status, seconds, model, response.prediction_id)

    async def _acquire(self) -> None:
        """Wait for a slot. Raises QueueFull, Overloaded."""
        if len(self._queue) >= self._max_queue:
            self._metrics.rejected["queue-full"] += 1
            raise QueueFull("server busy, try again later")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await asyncio.wait_for(waiter, self._queue_timeout)
        except TimeoutError:
            if not waiter.done() or waiter.cancelled():
                self._metrics.rejected["queue-timeout"] += 1
                raise Overloaded("server busy, try again later") from None
        finally:
            if waiter in self._queue:
                self._queue.remove(waiter)

    def _release(self) -> None:
        """Hand the slot to the longest-waiting request, or free it."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                return waiter.set_result(None)
        self._in_progress -= 1

    def record(
        self, method: str, path: str, status: int, seconds: float, model: tuple[str, str] | None, prediction_id: str
    ) -> None:
        """Count a response and write its line of the access log; `model` is the project and version that predicted."""
        if model:
            self._metrics.record_prediction(*model, status, seconds)
        if self._log:
            line = LogLine(self._clock(), method, path, status, round(seconds * 1000, 3))
            if model:
                line.model_name, line.model_version = model
                line.prediction_id = prediction_id
            self._log.write(_encode(line) + b"\n")


class LogLine(msgspec.Struct):
    """A line of the access log; only predictions set the last three fields."""

    time: str
    method: str
    path: str
    status: int
    milliseconds: float
    level: str = "info"
    model_name: str | msgspec.UnsetType = msgspec.UNSET
    model_version: str | msgspec.UnsetType = msgspec.UNSET
    prediction_id: str | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode


class RequestClock:
    """Returns the current time in ISO 8601 format; everything but the milliseconds is formatted only once per second."""

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def __call__(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((now - second) * 1000):03d}+00:00"


class ResponseObserver:
    """Forwards messages and remembers the status and the prediction id."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.prediction_id = send, 499, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == b"x-prediction-id":
                    self.prediction_id = value.decode()
        await self._send(message)


def client_disconnected(scope: Scope) -> bool:
    """Return whether the client closed the connection."""
    return bool(scope.get(DISCONNECTED, bool)())


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that first returns a message that has already been received."""
    messages = [first]

    async def receive_replayed() -> Message:
        return messages.pop() if messages else await receive()

    return receive_replayed

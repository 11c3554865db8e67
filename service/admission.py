"""Admission: complete bodies, how many requests are worked on at once, and a log line about each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec

from service.access_log import AccessLog
from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.authentication import PUBLIC_PATHS, AuthMiddleware
from service.body_intake import MAX_IN_MEMORY, Body, BodyIntake
from service.http_limits import DISCONNECTED, HEAD
from service.metrics import Metrics
from service.problems import Overloaded, QueueFull, ServiceError
from service.settings import ServiceSettings

HEALTH = frozenset(("/livez", "/readyz", "/health", "/healthz", "/ready", "/v2/health/live", "/v2/health/ready"))
"""Answered whatever the load is, and to anybody."""
MODEL = "podium.models"
"""The key of a request's scope for the project and version that it went to."""


class AdmissionMiddleware:
    """Outermost: hosts, keys, complete bodies, admission, duration and log line of every request but those of health."""

    def __init__(
        self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics, bodies: BodyIntake, log: AccessLog | None = None
    ) -> None:
        self._app, self._metrics, self._bodies, self._log = app, metrics, bodies, log
        self._entry = AuthMiddleware(settings)
        self._most, self._most_waiting, self._seconds = settings.max_concurrency, settings.max_queue, settings.queue_timeout
        self._busy, self._clock = 0, RequestClock()
        self._queue: deque[asyncio.Future[None]] = deque()
        metrics.in_progress, metrics.waiting = lambda: self._busy, lambda: len(self._queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH:
            return await self._app(scope, receive, send)
        body: Body | None = None
        reserved = 0
        try:
            self._entry.check(scope)
            if scope["path"] in PUBLIC_PATHS:
                return await self._app(scope, receive, send)
            if scope["method"] == "POST":
                self._bodies.check_length(scope, scope[HEAD].length or 0)
                first = await receive()
                if first.get("more_body") or len(first.get("body", b"")) > MAX_IN_MEMORY:
                    body = await self._bodies.complete(scope, receive, first)
                    reserved = await self._bodies.reserve(scope, body.size, self._seconds)
                    receive = body.receive
                else:
                    receive = replay(first, receive)
            await self._admitted(scope, receive, send)
        except ServiceError as error:
            await reject(send, error)
        finally:
            if body:
                body.close()
                self._bodies.memory.give_back(reserved)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises QueueFull, Overloaded."""
        started = time.perf_counter()
        if self._busy < self._most:
            self._busy += 1
        else:
            await self._turn()
        answer = ResponseObserver(send)
        try:
            if not client_disconnected(scope):
                await self._app(scope, receive, answer)
        finally:
            self._leave()
            self._note(scope, answer, time.perf_counter() - started)

    async def _turn(self) -> None:
        """Wait to be handed a place. Raises QueueFull, Overloaded."""
        if len(self._queue) >= self._most_waiting:
            self._metrics.rejected["queue-full"] += 1
            raise QueueFull("more requests wait than can be answered in time")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await asyncio.wait_for(place, self._seconds)
        except TimeoutError:
            if not place.done() or place.cancelled():
                self._metrics.rejected["waited-too-long"] += 1
                raise Overloaded("no place became free in time") from None
        finally:
            if place in self._queue:
                self._queue.remove(place)

    def _leave(self) -> None:
        """Hand the place to the request that waits longest, else give it back."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                return place.set_result(None)
        self._busy -= 1

    def _note(self, scope: Scope, answer: ResponseObserver, seconds: float) -> None:
        model: tuple[str, str] | None = scope.get(MODEL)
        if model:
            self._metrics.answered(*model, answer.status, seconds)
        if self._log:
            line: dict[str, Any] = {
                "time": self._clock(),
                "level": "info",
                "method": scope["method"],
                "path": scope["path"],
                "status": answer.status,
                "milliseconds": round(seconds * 1000, 3),
            }
            if model:
                line |= {"model_name": model[0], "model_version": model[1], "prediction_id": answer.identity}
            self._log.write(msgspec.json.encode(line) + b"\n")


class RequestClock:
    """The time as text, its seconds formatted once each."""

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def __call__(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((now - second) * 1000):03d}+00:00"


class ResponseObserver:
    """Sends on, and keeps the status and the prediction id."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.identity = send, 499, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.identity = next((value.decode() for name, value in message["headers"] if name == b"x-prediction-id"), "")
        await self._send(message)


def client_disconnected(scope: Scope) -> bool:
    """Whether nobody waits for the answer any more."""
    return bool(scope.get(DISCONNECTED, bool)())


def replay(first: Message, receive: Receive) -> Receive:
    """A message that was received already, then the others."""
    waiting = [first]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def reject(send: Send, error: ServiceError) -> None:
    """Answer with a problem where no request object exists yet."""
    body = {"type": f"/problems/{error.code}", "title": error.title, "status": error.status, "detail": str(error)}
    text = json.dumps({**body, "code": error.code, "error": str(error)}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(text))]
    if error.retry_after:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="podium"'))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})

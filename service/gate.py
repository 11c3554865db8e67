"""The door of the service: who may come in, how many at once, and a line about each who went out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.metrics import Metrics
from service.protocol import GONE

ALWAYS = frozenset(
    (
        "/livez",
        "/readyz",
        "/health",
        "/healthz",
        "/ready",
        "/status",
        "/status.json",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    )
)
"""Answered whatever the load is, and to anybody."""
OWN_KEYS = ("/refresh",)
"""Paths that check a signature of their own."""
MODEL = "podium.model"
"""Where a request's scope says which project and version it went to."""
CALLER = "podium.caller"
"""Where a request's scope says whose key it came with."""


class Gate:
    """Outermost: keys, admission, duration and log line of every request but those of health."""

    def __init__(
        self, app: ASGIApp, keys: Mapping[str, str], most: int, waiting: int, seconds: float, metrics: Metrics, log: bool
    ) -> None:
        self._app, self._metrics, self._log = app, metrics, log
        self._keys = {name: key.encode() for name, key in keys.items()}
        self._most, self._most_waiting, self._seconds = most, waiting, seconds
        self._busy, self._clock = 0, Clock()
        self._queue: deque[asyncio.Future[None]] = deque()
        metrics.in_progress, metrics.waiting = lambda: self._busy, lambda: len(self._queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            return await self._app(scope, receive, send)
        if self._keys and scope["path"] not in OWN_KEYS:
            scope[CALLER] = self._caller(scope)
            if not scope[CALLER]:
                return await _turn_away(
                    send, 401, "key-missing", "send an API key as `Authorization: Bearer …` or as X-API-Key"
                )
        started = time.perf_counter()
        if self._busy < self._most:
            self._busy += 1
        elif not await self._turn(send):
            return None
        answer = Answered(send)
        try:
            if not has_gone(scope):
                await self._app(scope, receive, answer)
        finally:
            self._leave()
            self._note(scope, answer, time.perf_counter() - started)

    async def _turn(self, send: Send) -> bool:
        """Wait to be handed a place; False when the request was turned away instead."""
        if len(self._queue) >= self._most_waiting:
            self._metrics.rejected["queue-full"] += 1
            await _turn_away(send, 429, "overloaded", "more requests wait than can be answered in time", retry=1)
            return False
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await asyncio.wait_for(place, self._seconds)
        except TimeoutError:
            if place.done() and not place.cancelled():  # it was handed over in the last moment
                return True
            self._metrics.rejected["waited-too-long"] += 1
            await _turn_away(send, 503, "overloaded", "no place became free in time", retry=1)
            return False
        finally:
            if place in self._queue:
                self._queue.remove(place)
        return True

    def _leave(self) -> None:
        """Hand the place to who waits longest, else give it back."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                return place.set_result(None)
        self._busy -= 1

    def _caller(self, scope: Scope) -> str:
        """The name of the key that came; empty when it is nobody's."""
        given = _key(dict(scope["headers"]))
        return next((name for name, key in self._keys.items() if hmac.compare_digest(given, key)), "")

    def _note(self, scope: Scope, answer: Answered, seconds: float) -> None:
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
            os.write(2, msgspec.json.encode(line) + b"\n")


class Clock:
    """The time as text, its seconds formatted once each."""

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def __call__(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((now - second) * 1000):03d}+00:00"


class Answered:
    """Sends on, and keeps the status and the prediction id."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.identity = send, 499, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.identity = next((value.decode() for name, value in message["headers"] if name == b"x-prediction-id"), "")
        await self._send(message)


def caller(scope: Scope) -> str:
    """Whose key a request came with; empty where none is asked for."""
    name: str = scope.get(CALLER, "")
    return name


def has_gone(scope: Scope) -> bool:
    """Whether nobody waits for the answer any more."""
    return bool(scope.get(GONE, bool)())


def _key(headers: Mapping[bytes, bytes]) -> bytes:
    """From X-API-Key, a bearer token, or the password that a browser asked for."""
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value if scheme.lower() == b"bearer" else b""


async def _turn_away(send: Send, status: int, code: str, detail: str, retry: int | None = None) -> None:
    title = {401: "A key is needed", 429: "Too many requests", 503: "Too many requests"}[status]
    body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "code": code, "error": detail}
    text = json.dumps(body).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(text))]
    if retry:
        headers.append((b"retry-after", b"%d" % retry))
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="podium"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})

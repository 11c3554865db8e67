"""ASGI's types, and small middleware."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from podium.storage.object_store import StoreError
from service.active_models import ActiveModels

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    ),
]


class Awake:
    """Waits for a project that made room in memory for others, before anything looks for it."""

    def __init__(self, app: ASGIApp, live: ActiveModels) -> None:
        self._app, self._live = app, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._live.evicted and scope["type"] == "http":
            project = _named(scope)
            if project in self._live.evicted:
                with suppress(StoreError):  # then it is told as a model that is not ready
                    await scope["app"].state.podium.reconcile.wake(project)
        await self._app(scope, receive, send)


def _named(scope: Scope) -> str:
    """The project of a request: its place in the path, or the parameter of /invocations."""
    if found := re.match(r"/(?:projects|v2/models)/([^/]+)", scope["path"]):
        return found[1]
    query = scope["query_string"].decode("latin-1") if scope["path"] == "/invocations" else ""
    asked = re.search(r"(?:^|&)project=([^&]+)", query)
    return asked[1] if asked else ""


class HeadAsGet:
    """HEAD is answered as GET is; the protocol keeps the body back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the protocol must still see HEAD
        await self._app(scope, receive, send)


class SecurityHeaders:
    """The headers that keep browsers from doing what pages did not ask for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in SECURITY if pair[0] not in present)]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)

"""ASGI types and small middleware classes."""

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

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    ),
]


class LoadEvictedModel:
    """Before a request is routed, reloads its model if the model was evicted from memory."""

    def __init__(self, app: ASGIApp, live: ActiveModels) -> None:
        self._app, self._live = app, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._live.evicted and scope["type"] == "http":
            project = _project_of(scope)
            if project in self._live.evicted:
                with suppress(StoreError):  # the endpoint then responds that the model is not ready
                    await scope["app"].state.services.reconciler.reload(project)
        await self._app(scope, receive, send)


def _project_of(scope: Scope) -> str:
    """Return the project from the path, or from the query of /invocations."""
    if match := re.match(r"/(?:projects|v2/models)/([^/]+)", scope["path"]):
        return match[1]
    query = scope["query_string"].decode("latin-1") if scope["path"] == "/invocations" else ""
    match = re.search(r"(?:^|&)project=([^&]+)", query)
    return match[1] if match else ""


class HeadAsGet:
    """Routes HEAD requests as GET; uvicorn's HTTP protocol class drops the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the protocol must still see HEAD
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Adds headers that restrict what browsers do with a response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in SECURITY_HEADERS if pair[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)

"""ASGI middleware that ends the work on a request when its time is over or its client has disconnected."""

from __future__ import annotations

import anyio

from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.http_limits import CONNECTION, DISCONNECTED, Connection
from service.problems import DeadlineExceeded


class Deadline:
    """Cancels the application. Work in a thread goes on until it ends, but nothing waits for it."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get(CONNECTION)
        if scope["type"] != "http" or connection is None:
            return await self._app(scope, receive, send)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        with anyio.move_on_after(self._seconds) as work:
            connection.on_close = work.cancel
            try:
                await self._app(scope, receive, watched)
            finally:
                connection.on_close = None
        if work.cancelled_caught and not scope[DISCONNECTED]() and not started:
            raise DeadlineExceeded(f"the answer took longer than {self._seconds:g} s")

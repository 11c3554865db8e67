"""ASGI middleware that stops the work on a request after a timeout or when the client disconnects."""

from __future__ import annotations

import anyio

from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.errors import DeadlineExceeded
from service.http_limits import CONNECTION, DISCONNECTED, Connection


class Deadline:
    """Cancels the application; work in a thread continues to its end, but nothing waits for it."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection | None = scope.get(CONNECTION)
        if scope["type"] != "http" or connection is None:
            return await self._app(scope, receive, send)
        started = False

        async def send_and_mark(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        with anyio.move_on_after(self._seconds) as work:
            connection.on_close = work.cancel
            try:
                await self._app(scope, receive, send_and_mark)
            finally:
                connection.on_close = None
        if work.cancelled_caught and not scope[DISCONNECTED]() and not started:
            raise DeadlineExceeded(f"the request took longer than {self._seconds:g} s")

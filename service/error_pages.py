"""HTML error pages for browsers."""

from __future__ import annotations

import json

from starlette.requests import Request

from service.asgi import ASGIApp, Message, Receive, Scope, Send
from service.negotiation import wants_page
from service.problems import MEDIA_TYPE

PROBLEM = (b"content-type", MEDIA_TYPE.encode())


class ErrorPages:
    """ASGI middleware that renders problem documents as HTML when a browser sent the request; the status is unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not wants_page(Request(scope)):
            return await self._app(scope, receive, send)
        await self._app(scope, receive, PageSender(scope, send))


class PageSender:
    """Forwards messages, except that a problem document is collected and sent as a page."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and PROBLEM in message["headers"]:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_page(self._start)

    async def _send_page(self, start: Message) -> None:
        pages = self._scope["app"].state.services.pages
        page = pages.page("error.html", problem=json.loads(self._body)).encode()
        page_headers = {b"content-type": b"text/html; charset=utf-8", b"content-length": b"%d" % len(page)}
        headers = [(name, page_headers.get(name, value)) for name, value in start["headers"]]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": page})

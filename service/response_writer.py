"""A transport that sends the head of a response together with its body: one system call instead of two."""

from __future__ import annotations

import asyncio
from typing import Any

HEAD = b"HTTP/1.1 "


class ResponseWriter:
    """Holds back the head of a response until the body follows, or until the end of this turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._head = transport, loop, b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write the data, after a head that was held back."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(HEAD):
            self._head = data
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def write_response(self, data: bytes) -> None:
        """Write a complete response, after a head that was held back."""
        self.flush()
        self._transport.write(data)

    def abort(self) -> None:
        """Close at once, without what was held back."""
        self._head = b""
        self._transport.abort()

    def flush(self) -> None:
        """Write a head that was held back."""
        if self._head and not self._transport.is_closing():
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Write what was held back, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Return any other method of the transport, after writing what was held back."""
        self.flush()
        return getattr(self._transport, name)

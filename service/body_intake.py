"""Request bodies, received completely before a request is admitted: in memory while small, on disk beyond that."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from pathlib import Path
from typing import IO

from service.asgi import Message, Receive, Scope
from service.problems import BodyTooLarge, ClientDisconnected, Overloaded, StorageFull

PREDICTION = re.compile(r"/(predict|batch|infer|invocations)(\.[a-z]+)?$")
"""Paths that take large bodies."""
MAX_OTHER_BYTES = 64 * 1024
FORM = b"application/x-www-form-urlencoded"
MAX_FORM_BYTES = 1024 * 1024
PARSED_IN_MEMORY = (b"application/json", FORM)
JSON_GROWTH = 8
"""Decoded JSON takes about this many times its size."""
MAX_IN_MEMORY, MAX_ALL_IN_MEMORY = 64 * 1024, 32 * 1024 * 1024
"""Bytes of one incomplete body, and of all, that stay in memory."""
PIECE = 256 * 1024


class ByteBudget:
    """Bytes that all requests together may take."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0

    def take(self, size: int) -> bool:
        """Whether there was room; a single request always finds some."""
        if self.used and self.used + size > self.total:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


class Body:
    """A complete body: `receive` replays it; `close` frees what it takes."""

    def __init__(self, bodies: BodyIntake, receive: Receive) -> None:
        self._bodies, self._receive = bodies, receive
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = self._in_memory = self._taken = 0

    def add(self, data: bytes) -> None:
        """Raises StorageFull."""
        self.size += len(data)
        bodies = self._bodies
        if not self._file and self.size <= MAX_IN_MEMORY and bodies.in_memory < MAX_ALL_IN_MEMORY:
            self._pieces.append(data)
            self._in_memory += len(data)
            bodies.in_memory += len(data)
            return
        if not bodies.disk.take(len(data)):
            raise StorageFull("other uploads take the room that there is")
        self._taken += len(data)
        try:
            self._file = self._file or tempfile.TemporaryFile(dir=bodies.folder, buffering=0)  # noqa: SIM115 - closed below
            self._file.write(data)
        except OSError:
            raise StorageFull("the body cannot be kept now") from None

    def rewind(self) -> None:
        """After the last piece."""
        if self._file:
            self._file.seek(0)

    async def receive(self) -> Message:
        """The body's pieces as ASGI messages, then what the connection says."""
        if self._pieces:
            data, self._pieces = b"".join(self._pieces), []
            return {"type": "http.request", "body": data, "more_body": self._file is not None}
        if self._file:
            await asyncio.sleep(0)  # what parses the body must not keep the event loop
            data = self._file.read(PIECE)
            if len(data) < PIECE:
                self._close_file()
            return {"type": "http.request", "body": data, "more_body": self._file is not None}
        return await self._receive()

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        self._bodies.disk.give_back(self._taken)
        self._taken = 0

    def close(self) -> None:
        self._close_file()
        self._bodies.in_memory -= self._in_memory
        self._in_memory = 0


class BodyIntake:
    """Receives bodies within limits for each and for all."""

    def __init__(self, max_bytes: int, max_json_bytes: int, max_disk_bytes: int, folder: Path | None) -> None:
        self._max, self._max_json, self.folder = max_bytes, max_json_bytes, folder
        self.disk, self.memory, self.in_memory = ByteBudget(max_disk_bytes), ByteBudget(max_bytes), 0

    def limit(self, scope: Scope) -> int:
        """How many bytes this request's body may have."""
        if not PREDICTION.search(scope["path"]):
            return min(MAX_OTHER_BYTES, self._max)
        if media_of(scope).startswith(FORM):
            return min(MAX_FORM_BYTES, self._max)
        return min(self._max_json, self._max) if is_parsed_in_memory(scope) else self._max

    def check_length(self, scope: Scope, length: int) -> None:
        """Of a body that has not arrived. Raises BodyTooLarge."""
        if length > MAX_OTHER_BYTES and length > self.limit(scope):
            raise BodyTooLarge(f"this body may have {self.limit(scope)} bytes")

    async def complete(self, scope: Scope, receive: Receive, first: Message) -> Body:
        """The rest of a body. Raises BodyTooLarge, StorageFull, ClientGone."""
        body, limit, message = Body(self, receive), self.limit(scope), first
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected("the connection was closed")
                data = message.get("body", b"")
                if body.size + len(data) > limit:
                    raise BodyTooLarge(f"this body may have {limit} bytes")
                body.add(data)
                if not message.get("more_body"):
                    body.rewind()
                    return body
                message = await receive()
        except BaseException:
            body.close()
            raise

    async def reserve(self, scope: Scope, size: int, seconds: float) -> int:
        """Wait for memory to work on a body of this size; returns what to give back. Raises Overloaded."""
        if size <= MAX_IN_MEMORY:
            return 0
        needed = min(self.memory.total, size * (JSON_GROWTH if is_parsed_in_memory(scope) else 1))
        end = time.monotonic() + seconds
        while not self.memory.take(needed):
            if time.monotonic() > end:
                raise Overloaded("other large requests take the memory that there is")
            await asyncio.sleep(0.02)
        return needed


def media_of(scope: Scope) -> bytes:
    media: bytes = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return media.lower()


def is_parsed_in_memory(scope: Scope) -> bool:
    return media_of(scope).startswith(PARSED_IN_MEMORY)

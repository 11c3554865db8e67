"""Receive complete request bodies before admission: small ones in memory, larger ones on disk."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from pathlib import Path
from typing import IO

from service.asgi import Message, Receive, Scope
from service.errors import BodyTooLarge, ClientDisconnected, Overloaded, StorageFull

PREDICTION_PATH = re.compile(r"/(predict|batch|infer|invocations)(\.[a-z]+)?$")
"""Paths that accept large bodies."""
MAX_OTHER_BYTES = 64 * 1024
FORM = b"application/x-www-form-urlencoded"
MAX_FORM_BYTES = 1024 * 1024
PARSED_IN_MEMORY = (b"application/json", FORM)
JSON_GROWTH = 8
"""Approximate ratio of the memory that decoded JSON needs to the size of the text."""
MAX_IN_MEMORY, MAX_ALL_IN_MEMORY = 64 * 1024, 32 * 1024 * 1024
"""Maximum bytes in memory for one body being received, and for all such bodies together."""
CHUNK = 256 * 1024
RETRY_SECONDS = 0.02


class ByteBudget:
    """A budget of bytes that all requests share."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0

    def take(self, size: int) -> bool:
        """Reserve bytes if the budget allows it; a request is always allowed if it is the only one."""
        if self.used and self.used + size > self.total:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


class Body:
    """A body: `receive` replays it as ASGI messages; `close` frees its memory and disk space."""

    def __init__(self, bodies: BodyIntake, receive: Receive) -> None:
        self._bodies, self._receive = bodies, receive
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = self._in_memory = self._on_disk = 0

    def add(self, data: bytes) -> None:
        """Append a chunk. Raises StorageFull."""
        self.size += len(data)
        bodies = self._bodies
        if not self._file and self.size <= MAX_IN_MEMORY and bodies.in_memory < MAX_ALL_IN_MEMORY:
            self._chunks.append(data)
            self._in_memory += len(data)
            bodies.in_memory += len(data)
            return
        if not bodies.disk.take(len(data)):
            raise StorageFull("other uploads are using all the disk space reserved for uploads")
        self._on_disk += len(data)
        try:
            self._file = self._file or tempfile.TemporaryFile(dir=bodies.folder, buffering=0)  # noqa: SIM115 - closed below
            self._file.write(data)
        except OSError:
            raise StorageFull("the request body cannot be stored") from None

    def rewind(self) -> None:
        """Call this after adding the last chunk, before `receive`."""
        if self._file:
            self._file.seek(0)

    async def receive(self) -> Message:
        """Return the next chunk of the body or, after the last one, the next message from the connection."""
        if self._chunks:
            data, self._chunks = b"".join(self._chunks), []
            return {"type": "http.request", "body": data, "more_body": self._file is not None}
        if self._file:
            await asyncio.sleep(0)  # let the event loop run while a large body is parsed
            data = self._file.read(CHUNK)
            if len(data) < CHUNK:
                self._close_file()
            return {"type": "http.request", "body": data, "more_body": self._file is not None}
        return await self._receive()

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        self._bodies.disk.give_back(self._on_disk)
        self._on_disk = 0

    def close(self) -> None:
        self._close_file()
        self._bodies.in_memory -= self._in_memory
        self._in_memory = 0


class BodyIntake:
    """Receives bodies within limits per body and in total."""

    def __init__(self, max_bytes: int, max_json_bytes: int, max_disk_bytes: int, folder: Path | None) -> None:
        self._max_bytes, self._max_json_bytes, self.folder = max_bytes, max_json_bytes, folder
        self.disk, self.memory, self.in_memory = ByteBudget(max_disk_bytes), ByteBudget(max_bytes), 0

    def limit(self, scope: Scope) -> int:
        """Return the maximum size of this request's body in bytes."""
        if not PREDICTION_PATH.search(scope["path"]):
            return min(MAX_OTHER_BYTES, self._max_bytes)
        if media_type(scope).startswith(FORM):
            return min(MAX_FORM_BYTES, self._max_bytes)
        return min(self._max_json_bytes, self._max_bytes) if is_parsed_in_memory(scope) else self._max_bytes

    def check_length(self, scope: Scope, length: int) -> None:
        """Check the declared length of a body. Raises BodyTooLarge."""
        if length > MAX_OTHER_BYTES and length > self.limit(scope):
            raise _too_large(self.limit(scope))

    async def complete(self, scope: Scope, receive: Receive, first: Message) -> Body:
        """Receive the rest of a body. Raises BodyTooLarge, StorageFull, ClientDisconnected."""
        body, limit, message = Body(self, receive), self.limit(scope), first
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected("the client closed the connection")
                data = message.get("body", b"")
                if body.size + len(data) > limit:
                    raise _too_large(limit)
                body.add(data)
                if not message.get("more_body"):
                    body.rewind()
                    return body
                message = await receive()
        except BaseException:
            body.close()
            raise

    async def reserve(self, scope: Scope, size: int, timeout: float) -> int:
        """Reserve memory to process a body of this size; return the number of bytes to give back. Raises Overloaded."""
        if size <= MAX_IN_MEMORY:
            return 0
        needed = min(self.memory.total, size * (JSON_GROWTH if is_parsed_in_memory(scope) else 1))
        end = time.monotonic() + timeout
        while not self.memory.take(needed):
            if time.monotonic() > end:
                raise Overloaded("other large requests are using all the memory reserved for request bodies")
            await asyncio.sleep(RETRY_SECONDS)
        return needed


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"this request body may have at most {limit} bytes")


def media_type(scope: Scope) -> bytes:
    media: bytes = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return media.lower()


def is_parsed_in_memory(scope: Scope) -> bool:
    return media_type(scope).startswith(PARSED_IN_MEMORY)

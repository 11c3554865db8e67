"""The head of a response is sent together with its body, and nothing is lost or delayed if no body follows."""

from __future__ import annotations

import asyncio
from typing import Any

from service.response_writer import ResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire(asyncio.Transport):
    """Records what is written and done, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.events.append(bytes(data))

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.events.append("eof")

    def is_closing(self) -> bool:
        return "close" in self.events

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


def events(*steps: Any) -> list[Any]:
    """Return what reaches the wire: bytes are written, strings name methods, and None waits for the event loop."""

    async def run() -> list[Any]:
        wire = Wire()
        writer = ResponseWriter(wire, asyncio.get_running_loop())
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            elif isinstance(step, bytes):
                writer.write(step)
            else:
                getattr(writer, step)()
        return wire.events

    return asyncio.run(run())


def test_a_head_and_its_body_are_one_write() -> None:
    assert events(HEAD, b"{}", HEAD, b"[]") == [HEAD + b"{}", HEAD + b"[]"]


def test_later_pieces_of_a_body_are_written_at_once() -> None:
    assert events(HEAD, b"a", b"b") == [HEAD + b"a", b"b"]


def test_a_head_without_a_body_is_written_in_the_same_turn_of_the_event_loop() -> None:
    assert events(HEAD, None) == [HEAD]
    assert events(HEAD, None, b"later") == [HEAD, b"later"]


def test_a_head_is_written_before_the_connection_ends() -> None:
    assert events(HEAD, "close") == [HEAD, "close"]
    assert events(HEAD, "write_eof") == [HEAD, "eof"]


def test_a_body_that_looks_like_a_head_is_not_lost() -> None:
    assert events(HEAD, HEAD, None, HEAD, None) == [HEAD + HEAD, HEAD]

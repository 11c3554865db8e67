"""The order of pipelined input."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.http_limits import GuardedProtocol

FIRST = b"GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_input_that_arrives_as_a_response_ends_follows_the_buffered_input() -> None:
    paths: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        if scope["path"] == "/first":
            protocols[0].data_received(SECOND[:20])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        if scope["path"] == "/first":
            protocols[0].data_received(SECOND[20:])

    def new_protocol() -> GuardedProtocol:
        protocols.append(GuardedProtocol(config, ServerState(), {}))
        return protocols[-1]

    async def exchange() -> bytes:
        server = await asyncio.get_running_loop().create_server(new_protocol, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(FIRST)
            data = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return data

    protocols: list[GuardedProtocol] = []
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)  # type: ignore[arg-type]
    config.load()
    data = asyncio.run(exchange())
    assert paths == ["/first", "/second"]
    assert data.count(b"HTTP/1.1 204") == 2, data


async def _respond_slowly(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_a_request_whose_body_is_arriving_is_answered_before_a_shutdown() -> None:
    async def exchange() -> bytes:
        server = await asyncio.get_running_loop().create_server(new_protocol, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"POST /first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.05)
            protocols[0].shutdown()
            await asyncio.sleep(0.05)
            writer.write(b"cd")
            data = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return data

    def new_protocol() -> GuardedProtocol:
        protocols.append(GuardedProtocol(config, ServerState(), {}))
        return protocols[-1]

    protocols: list[GuardedProtocol] = []
    config = uvicorn.Config(_respond_slowly, lifespan="off", ws="none", log_config=None)  # type: ignore[arg-type]
    config.load()
    data = asyncio.run(exchange())
    assert data.startswith(b"HTTP/1.1 204")
    assert b"connection: close" in data

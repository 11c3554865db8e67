"""Load a service at three times its peak rate, then open five hundred idle connections; measure goodput and latency.

Requests of 200 records each (over Dask) are sent at a fixed rate, independent of the responses. The peak is measured first, in
the same run. `python -m benchmarks.overload`
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import put_champion, running_service
from podium.local import LocalCloud
from podium.local.processes import free_ports

SECONDS = 6.0
RECORDS = json.dumps([{"area": 20.5 + row % 100, "rooms": row % 6 + 1} for row in range(200)]).encode()
RECORD = json.dumps({"area": 50.5, "rooms": 3}).encode()
IDLE_CONNECTIONS = 500
REQUEST_HEAD = "POST /projects/prices/predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Response:
    """The status of a response (0: the connection broke) and its milliseconds."""

    status: int
    milliseconds: float


async def send(port: int, body: bytes) -> Response:
    started = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{REQUEST_HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        line = await reader.readline()
        status = int(line.split(b" ")[1]) if line else 0
        await reader.read()
        writer.close()
    except OSError:
        status = 0
    return Response(status, (time.perf_counter() - started) * 1000)


async def at_rate(port: int, body: bytes, rate: float, seconds: float = SECONDS) -> list[Response]:
    """Send requests at fixed times, whether or not earlier ones were answered."""
    tasks = []
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(send(port, body)))
    return list(await asyncio.gather(*tasks))


async def closed_loop(port: int, body: bytes, clients: int, seconds: float = SECONDS) -> float:
    """Return responses per second with `clients` that each wait for a response before the next request."""
    end, counts = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal counts
        while time.perf_counter() < end:
            response = await send(port, body)
            counts += response.status == 200

    await asyncio.gather(*(client() for _ in range(clients)))
    return counts / seconds


def percentile(responses: Sequence[Response], share: float) -> float:
    """Return a quantile of the milliseconds."""
    milliseconds = [response.milliseconds for response in responses] or [0.0, 0.0]
    return statistics.quantiles(milliseconds, n=1000)[int(share * 1000) - 1]


async def overload(port: int) -> None:
    peak = max([await closed_loop(port, RECORDS, clients) for clients in (2, 8, 32)])
    responses = await at_rate(port, RECORDS, 3 * peak)
    answered = [response for response in responses if response.status == 200]
    rejected = [response for response in responses if response.status in (429, 503)]
    broken = len(responses) - len(answered) - len(rejected)
    goodput = len(answered) / SECONDS
    print(f"peak {peak:.0f}/s of 200 records each; at {3 * peak:.0f}/s requested: {goodput:.0f}/s answered,")
    print(f"  goodput {goodput / peak:.0%} of the peak, {len(rejected)} rejected, {broken} broken")
    at_once = [response for response in rejected if response.status == 429]
    print(f"  rejected at once (429): median {percentile(at_once, 0.5):.1f} ms, p99 {percentile(at_once, 0.99):.1f} ms")


async def idle_connections(port: int) -> None:
    before = await at_rate(port, RECORD, 250)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE_CONNECTIONS)]
    for number, (_, writer) in enumerate(connections):
        if number % 2:
            writer.write(b"POST /projects/prices/predict HTTP/1.1\r\nHo")
    during = await at_rate(port, RECORD, 250)
    failed = sum(response.status != 200 for response in during)
    print(
        f"{IDLE_CONNECTIONS} idle connections: p99 of one record {percentile(before, 0.99):.2f} ms before, "
        f"{percentile(during, 0.99):.2f} ms during, {failed} failed"
    )
    reads = (asyncio.wait_for(reader.read(), 20) for reader, _ in connections)
    results = await asyncio.gather(*reads, return_exceptions=True)
    print(f"  closed by the timeout: {sum(isinstance(result, bytes) for result in results)}")
    for _, writer in connections:
        writer.close()


def main() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="podium-overload-") as name, LocalCloud(Path(name) / "cloud", port) as cloud:
        put_champion(cloud)
        with running_service(cloud, Path(name), port, {"PODIUM_ACCESS_LOG": "false"}, dask=True) as service:
            asyncio.run(overload(port))
            started = time.perf_counter()
            assert service.client.get("/livez").status == 200
            print(f"  /livez right after it: {(time.perf_counter() - started) * 1000:.1f} ms")
            asyncio.run(idle_connections(port))


if __name__ == "__main__":
    main()

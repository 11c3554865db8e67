"""Three times as many requests as the service can answer, and five hundred silent sockets: what is answered, and how soon.

Requests of 200 records each (over Dask) are sent at a fixed rate whatever the answers are; its peak is found first, then three
times that rate is sent in the same run. `python -m benchmarks.overload`
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

from benchmarks.large_table import put_champion
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service

SECONDS = 6.0
MANY = json.dumps([{"area": 20.5 + place % 100, "rooms": place % 6 + 1} for place in range(200)]).encode()
ONE = json.dumps({"area": 50.5, "rooms": 3}).encode()
SLOW_SOCKETS = 500
HEAD = "POST /projects/prices/predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Sent:
    """A request's status (0: the connection broke) and its milliseconds."""

    status: int
    milliseconds: float


async def ask(port: int, body: bytes) -> Sent:
    started = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        line = await reader.readline()
        status = int(line.split(b" ")[1]) if line else 0
        await reader.read()
        writer.close()
    except OSError:
        status = 0
    return Sent(status, (time.perf_counter() - started) * 1000)


async def at_rate(port: int, body: bytes, rate: float, seconds: float = SECONDS) -> list[Sent]:
    """Requests at fixed times, whether or not the ones before were answered."""
    tasks = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(port, body)))
    return list(await asyncio.gather(*tasks))


async def closed_loop(port: int, body: bytes, clients: int, seconds: float = SECONDS) -> float:
    """Answers a second when so many clients wait for each answer before they ask again."""
    end, counts = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal counts
        while time.perf_counter() < end:
            sent = await ask(port, body)
            counts += sent.status == 200

    await asyncio.gather(*(client() for _ in range(clients)))
    return counts / seconds


def percentile(sent: Sequence[Sent], share: float) -> float:
    return statistics.quantiles([each.milliseconds for each in sent] or [0.0, 0.0], n=1000)[int(share * 1000) - 1]


async def overload(port: int) -> None:
    peak = max([await closed_loop(port, MANY, clients) for clients in (2, 8, 32)])
    sent = await at_rate(port, MANY, 3 * peak)
    good = [each for each in sent if each.status == 200]
    away = [each for each in sent if each.status in (429, 503)]
    broken = len(sent) - len(good) - len(away)
    print(f"peak {peak:.0f}/s of 200 records each; then {3 * peak:.0f}/s asked for: {len(good) / SECONDS:.0f}/s answered,")
    print(f"  goodput {len(good) / SECONDS / peak:.0%} of the peak, {len(away)} turned away, {broken} broken")
    early = [each for each in away if each.status == 429]
    print(f"  turned away at once (429): median {percentile(early, 0.5):.1f} ms, p99 {percentile(early, 0.99):.1f} ms")


async def silent_sockets(port: int) -> None:
    before = await at_rate(port, ONE, 250)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SLOW_SOCKETS)]
    for place, (_, writer) in enumerate(silent):
        if place % 2:
            writer.write(b"POST /projects/prices/predict HTTP/1.1\r\nHo")
    during = await at_rate(port, ONE, 250)
    one, other = percentile(before, 0.99), percentile(during, 0.99)
    wrong = sum(each.status != 200 for each in during)
    print(f"{SLOW_SOCKETS} silent sockets: p99 of one record {one:.2f} ms before, {other:.2f} ms during, {wrong} failed")
    ends = await asyncio.gather(*(asyncio.wait_for(reader.read(), 20) for reader, _ in silent), return_exceptions=True)
    print(f"  closed when their time was over: {sum(isinstance(end, bytes) for end in ends)}")
    for _, writer in silent:
        writer.close()


def main() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="podium-overload-") as name, LocalCloud(Path(name) / "cloud", port) as cloud:
        put_champion(cloud)
        process = start_service({**cloud.environment, "PODIUM_ACCESS_LOG": "false"}, port, Path(name))
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 60)
            client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
            asyncio.run(overload(port))
            started = time.perf_counter()
            assert client.get("/livez").status == 200
            print(f"  /livez right after it: {(time.perf_counter() - started) * 1000:.1f} ms")
            asyncio.run(silent_sockets(port))
        finally:
            process.stop()


if __name__ == "__main__":
    main()

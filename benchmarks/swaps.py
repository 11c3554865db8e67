"""What a swap costs who asks: the p99 of one record without and during a thousand swaps, and kills of one of two workers.

`python -m benchmarks.swaps`
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.large_table import put_champion
from benchmarks.overload import ONE, at_rate, percentile
from cli.client import Client
from cli.running import desk_of, start_service
from local_cloud import LocalCloud
from local_cloud.process import free_ports
from podium.promotion import Desk
from podium.store.history import append, read_champion
from podium.store.versions import digest

SWAPS, RATE, SECONDS = 1000, 250, 30.0
KILL_EVERY, KILL_SECONDS = 2.0, 60.0
PATH = "/projects/prices/predict"


def swap_on(desk: Desk, versions: list[str], over: threading.Event) -> list[int]:
    """Move the alias between two versions as fast as the store takes it; the count is at the end of the list."""
    digests = {each: digest(desk.store.read(f"versions/prices/{each}/manifest.json").data) for each in versions}
    done = [0]
    while not over.is_set() and done[0] < SWAPS:
        wanted = versions[done[0] % 2]
        act = {"version": wanted, "champion": wanted, "manifest": digests[wanted], "previous": None}
        fields = {"action": "promote", **act, "by": "benchmark", "reason": "swap", "at": "now"}
        append(desk.store, "prices", desk.signer, desk.trust.promoters, lambda _, fields=fields: fields)  # type: ignore[misc]
        done[0] += 1
    return done


def swaps(cloud: LocalCloud, folder: Path, port: int, versions: list[str]) -> None:
    own = {**cloud.environment, "PODIUM_POLL_SECONDS": "0.05", "PODIUM_DASK_WORKERS": "0", "PODIUM_ACCESS_LOG": "false"}
    process = start_service(own, port, folder)
    try:
        client, over = Client(f"http://127.0.0.1:{port}"), threading.Event()
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        before = asyncio.run(at_rate(port, ONE, RATE, 10))
        thread = threading.Thread(target=swap_on, args=(desk_of(cloud), versions, over))
        thread.start()
        during = asyncio.run(at_rate(port, ONE, RATE, SECONDS))
        over.set()
        thread.join()
        made = len(client.get("/status").json()["swaps"])
        text = client.get("/metrics").text
        count = next(
            line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("model_swap_total{") and "done" in line
        )
        one, other = percentile(before, 0.99), percentile(during, 0.99)
        wrong = sum(each.status != 200 for each in during)
        print(f"{float(count):.0f} swaps ({made} receipts kept) in {SECONDS:.0f} s, {RATE} requests/s, a connection each:")
        print(
            f"  p99 of one record {one:.2f} ms before, {other:.2f} ms during ({other / one:.2f} ×), {wrong} of {len(during)} failed"
        )
    finally:
        process.stop()


def kills(cloud: LocalCloud, folder: Path, port: int) -> None:
    process = start_service({**cloud.environment, "PODIUM_DASK_WORKERS": "0"}, port, folder, workers=2)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: len(client.get("/status").json()["workers"]) == 2, 60)
        over, count = threading.Event(), [0]

        def kill() -> None:
            while not over.wait(KILL_EVERY):
                try:
                    os.kill(client.get("/status").json()["workers"][0]["pid"], signal.SIGKILL)
                    count[0] += 1
                except OSError:
                    pass

        thread = threading.Thread(target=kill)
        thread.start()
        sent = asyncio.run(at_rate(port, ONE, RATE, KILL_SECONDS))
        over.set()
        thread.join()
        wrong = sum(each.status != 200 for each in sent)
        share = wrong / len(sent) * 10_000
        print(f"{count[0]} kills of one of two workers in {KILL_SECONDS:.0f} s: {wrong} of {len(sent)} new connections failed")
        print(f"  ({share:.2f} in 10,000)")
    finally:
        process.stop(30)


def main() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="podium-swaps-") as name, LocalCloud(Path(name) / "cloud", port) as cloud:
        versions = []
        for _ in range(2):
            put_champion(cloud)
            entry = read_champion(desk_of(cloud).store, "prices", desk_of(cloud).trust.promoters)
            assert entry and entry.champion
            versions.append(entry.champion)
            time.sleep(1.1)
        swaps(cloud, Path(name) / "one", port, versions)
        kills(cloud, Path(name) / "two", port)


if __name__ == "__main__":
    main()

"""What a swap costs who asks: the p99 of one record without and during a thousand swaps, and kills of one of two workers.

`python -m benchmarks.swaps`
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.large_table import put_champion
from benchmarks.overload import ONE, Sent, at_rate, percentile
from podium.cli.common import context_from_settings
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, start_service
from podium.registry.audit_log import append, read_champion
from podium.storage.object_store import digest

SWAPS, PAUSE, RATE, SECONDS = 1000, 0.05, 250, 105.0
KILL_EVERY, KILL_SECONDS = 2.0, 60.0
ELSEWHERE = "elsewhere"


def swap_on(versions: list[str]) -> None:
    """Move the alias between two versions, some ten times a second; in a process of its own, not to disturb the clients."""
    context = context_from_settings(signing=True)
    digests = [digest(context.store.read(f"versions/prices/{each}/manifest.json").data) for each in versions]
    for number in range(SWAPS):
        wanted = versions[number % 2]
        act = {"version": wanted, "champion": wanted, "manifest": digests[number % 2], "previous": None}
        fields = {"action": "promote", **act, "by": "benchmark", "reason": "swap", "at": "now"}
        append(context.store, "prices", context.signer, context.trust.promoters, lambda _, fields=fields: fields)  # type: ignore[misc]
        time.sleep(PAUSE)


def asked_meanwhile(port: int, environment: dict[str, str], versions: list[str]) -> list[Sent]:
    """Requests while an alias moves: in the service's bucket, or with the same work for the machine in another one."""
    mover = subprocess.Popen([sys.executable, "-m", "benchmarks.swaps", *versions], env=environment)
    try:
        return asyncio.run(at_rate(port, ONE, RATE, SECONDS))
    finally:
        mover.kill()
        mover.wait()


def copy_elsewhere(cloud: LocalCloud) -> None:
    """The same objects in a bucket at which the service does not look."""
    client = cloud.client()
    client.create_bucket(Bucket=ELSEWHERE)
    bucket = cloud.environment["PODIUM_BUCKET"]
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page["Contents"]:
            client.copy_object(Bucket=ELSEWHERE, Key=entry["Key"], CopySource={"Bucket": bucket, "Key": entry["Key"]})


def swaps(cloud: LocalCloud, folder: Path, port: int, versions: list[str]) -> None:
    own = {**cloud.environment, "PODIUM_POLL_SECONDS": "0.05", "PODIUM_DASK_WORKERS": "0", "PODIUM_ACCESS_LOG": "false"}
    process = start_service(own, port, folder)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        before = asked_meanwhile(port, {**cloud.environment, "PODIUM_BUCKET": ELSEWHERE}, versions)
        during = asked_meanwhile(port, cloud.environment, versions)
        text = client.get("/metrics").text
        count = next(
            line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("model_swap_total{") and "done" in line
        )
        one, other = percentile(before, 0.99), percentile(during, 0.99)
        wrong = sum(each.status != 200 for each in during)
        print(f"{float(count):.0f} swaps in {SECONDS:.0f} s, {RATE} requests/s; before it, the same moves in another bucket:")
        print(f"  p99 of one record {one:.2f} ms before, {other:.2f} ms during ({other / one:.2f} ×)")
        print(f"  {wrong} of {len(during)} failed")
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


def two_versions(cloud: LocalCloud) -> list[str]:
    """Published and promoted one after the other."""
    versions = []
    for _ in range(2):
        put_champion(cloud)
        entry = read_champion(promotion_context(cloud).store, "prices", promotion_context(cloud).trust.promoters)
        assert entry and entry.champion
        versions.append(entry.champion)
        time.sleep(1.1)
    return versions


def main() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="podium-swaps-") as name, LocalCloud(Path(name) / "cloud", port) as cloud:
        versions = two_versions(cloud)
        copy_elsewhere(cloud)
        swaps(cloud, Path(name) / "one", port, versions)
        kills(cloud, Path(name) / "two", port)


if __name__ == "__main__":
    swap_on(sys.argv[1:]) if sys.argv[1:] else main()

"""Measure the latency of one record during a thousand model swaps, and failures while workers are killed.

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

from benchmarks.environment import put_champion, running_service
from benchmarks.overload import RECORD, Response, at_rate, percentile
from podium.cli.models import context_from_settings
from podium.local import LocalCloud
from podium.local.processes import free_ports
from podium.registry.audit_log import append
from podium.storage.object_store import digest

SWAPS, PAUSE, RATE, SECONDS = 1000, 0.05, 250, 105.0
KILL_EVERY, KILL_SECONDS = 2.0, 60.0
OTHER_BUCKET = "elsewhere"


def move_alias(versions: list[str]) -> None:
    """Alternate the alias between two versions; runs in a process of its own so that it does not slow the clients."""
    context = context_from_settings(signing=True)
    manifests = [context.store.read(f"versions/prices/{version}/manifest.json").data for version in versions]
    for number in range(SWAPS):
        version, manifest = versions[number % 2], digest(manifests[number % 2])
        event = {"version": version, "champion": version, "manifest": manifest, "previous": None}
        fields = {"action": "promote", **event, "by": "benchmark", "reason": "swap", "at": "now"}
        append(context.store, "prices", context.signer, context.trust.promoters, lambda _, fields=fields: fields)  # type: ignore[misc]
        time.sleep(PAUSE)


def measure_during_swaps(port: int, environment: dict[str, str], versions: list[str]) -> list[Response]:
    """Send requests while an alias moves: in the service's bucket, or with the same work for the machine in another one."""
    mover = subprocess.Popen([sys.executable, "-m", "benchmarks.swaps", *versions], env=environment)
    try:
        return asyncio.run(at_rate(port, RECORD, RATE, SECONDS))
    finally:
        mover.kill()
        mover.wait()


def copy_to_other_bucket(cloud: LocalCloud) -> None:
    """Copy all objects to a bucket that the service does not read."""
    client = cloud.client()
    client.create_bucket(Bucket=OTHER_BUCKET)
    bucket = cloud.environment["PODIUM_BUCKET"]
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page["Contents"]:
            client.copy_object(Bucket=OTHER_BUCKET, Key=entry["Key"], CopySource={"Bucket": bucket, "Key": entry["Key"]})


def swaps(cloud: LocalCloud, folder: Path, port: int, versions: list[str]) -> None:
    variables = {"PODIUM_POLL_SECONDS": "0.05", "PODIUM_DASK_WORKERS": "0", "PODIUM_ACCESS_LOG": "false"}
    with running_service(cloud, folder, port, variables) as service:
        control = measure_during_swaps(port, {**cloud.environment, "PODIUM_BUCKET": OTHER_BUCKET}, versions)
        during = measure_during_swaps(port, cloud.environment, versions)
        metrics = service.client.get("/metrics").text.splitlines()
    done = next(line for line in metrics if line.startswith("model_swap_total{") and "done" in line)
    count = float(done.rsplit(" ", 1)[1])
    control_ms, during_ms = percentile(control, 0.99), percentile(during, 0.99)
    failed = sum(response.status != 200 for response in during)
    print(f"{count:.0f} swaps in {SECONDS:.0f} s, {RATE} requests/s; control: the same swaps in another bucket")
    print(f"  p99 of one record {control_ms:.2f} ms in the control, {during_ms:.2f} ms during ({during_ms / control_ms:.2f} ×)")
    print(f"  {failed} of {len(during)} failed")


def kills(cloud: LocalCloud, folder: Path, port: int) -> None:
    with running_service(cloud, folder, port, {"PODIUM_DASK_WORKERS": "0"}, workers=2) as service:
        client = service.client
        client.wait_until(lambda: len(client.get("/status").json()["workers"]) == 2, 60)
        stopped, killed = threading.Event(), list[int]()

        def kill_workers() -> None:
            while not stopped.wait(KILL_EVERY):
                try:
                    pid = client.get("/status").json()["workers"][0]["pid"]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                except OSError:
                    pass

        thread = threading.Thread(target=kill_workers)
        thread.start()
        responses = asyncio.run(at_rate(port, RECORD, RATE, KILL_SECONDS))
        stopped.set()
        thread.join()
    failed = sum(response.status != 200 for response in responses)
    print(f"{len(killed)} kills of one of two workers in {KILL_SECONDS:.0f} s: {failed} of {len(responses)} requests failed")
    print(f"  ({failed / len(responses) * 10_000:.2f} in 10,000)")


def put_two_versions(cloud: LocalCloud) -> list[str]:
    """Publish and promote two versions."""
    first = put_champion(cloud)
    time.sleep(1.1)  # the name of a version has a resolution of one second
    return [first, put_champion(cloud)]


def main() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="podium-swaps-") as name, LocalCloud(Path(name) / "cloud", port) as cloud:
        versions = put_two_versions(cloud)
        copy_to_other_bucket(cloud)
        swaps(cloud, Path(name) / "swaps", port, versions)
        kills(cloud, Path(name) / "kills", port)


if __name__ == "__main__":
    move_alias(sys.argv[1:]) if sys.argv[1:] else main()

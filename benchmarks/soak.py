"""Run ten minutes of mixed load: records, tables, errors, uploads, jobs and swaps.

`python -m benchmarks.soak [SECONDS]` prints memory, descriptors, threads and temporary files of the service every 30 s.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.environment import running_service
from benchmarks.swaps import put_two_versions
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports

SECONDS, SAMPLE_SECONDS, PAUSE = 600.0, 30.0, 0.02
CSV, JSON = {"content-type": "text/csv"}, {"content-type": "application/json"}
PREDICT, BATCH = "/projects/prices/predict", "/projects/prices/batch"
SendRequest = Callable[[Client, random.Random], int]


def record(rng: random.Random) -> dict[str, float]:
    return {"area": round(rng.uniform(10, 300), 1), "rooms": rng.randint(0, 9)}


def table(rng: random.Random, rows: int) -> bytes:
    lines = (f"{rng.uniform(10, 300):.1f},{rng.randint(0, 9)}" for _ in range(rows))
    return ("area,rooms\n" + "\n".join(lines) + "\n").encode()


def page_then_result(client: Client, rng: random.Random) -> int:
    text = client.post_file(f"{PREDICT}.html", table(rng, 20)).text
    return client.get(f"/jobs/{text.split('/jobs/')[1].split(chr(34))[0]}").status


def job_then_delete(client: Client, rng: random.Random) -> int:
    response = client.post(f"{BATCH}.json", gzip.compress(table(rng, 30_000)), {"content-type": "application/gzip"})
    if response.status == 202 and rng.random() < 0.5:
        return client.request("DELETE", response.headers["location"]).status
    return response.status


MIX: list[tuple[int, SendRequest]] = [
    (40, lambda c, r: c.post_json(PREDICT, record(r)).status),
    (10, lambda c, r: c.post_json(PREDICT, [record(r) for _ in range(r.randint(2, 200))]).status),
    (5, lambda c, r: c.post(PREDICT, table(r, 2000), CSV).status),
    (5, lambda c, r: c.post(f"{PREDICT}.csv?on_error=row", table(r, 30) + b"x,y\n", CSV).status),
    (5, lambda c, r: c.post(PREDICT, b'{"area": ', JSON).status),
    (5, lambda c, r: c.post(PREDICT, json.dumps({"area": "x", f"f{r.random()}": 1}).encode(), JSON).status),
    (5, lambda c, r: c.get(f"/no/such/{r.random()}").status),
    (
        5,
        lambda c, r: (
            c.get(r.choice(["/", "/projects/prices", "/projects/prices/versions", "/metrics", "/openapi.json"])).status
        ),
    ),
    (2, page_then_result),
    (1, job_then_delete),
]


def send_requests(client: Client, end: float, seed: int, statuses: Counter[int]) -> None:
    """Send requests of the mix until `end`, counting their statuses."""
    rng = random.Random(seed)
    weights = [weight for weight, _ in MIX]
    while time.monotonic() < end:
        with suppress(OSError):
            statuses[rng.choices(MIX, weights)[0][1](client, rng)] += 1
        time.sleep(PAUSE)


def sample(process: psutil.Process, folder: Path) -> tuple[int, int, int, int]:
    """Return memory in MB, descriptors, threads, and the number of temporary files."""
    files = sum(len(names) for _, _, names in os.walk(folder))
    return process.memory_info().rss // 1_000_000, process.num_fds(), process.num_threads(), files


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(prefix="podium-soak-") as name:
        folder, (events, port) = Path(name), free_ports(2)
        with LocalCloud(folder, events) as cloud:
            versions = put_two_versions(cloud)
            temporary = folder / "tmp"
            temporary.mkdir()
            variables = {
                "TMPDIR": str(temporary),
                "PODIUM_ASYNC_THRESHOLD_BYTES": "100000",
                "PODIUM_POLL_SECONDS": "1",
            }
            with running_service(cloud, folder, port, variables) as service:
                swapper = subprocess.Popen([sys.executable, "-m", "benchmarks.swaps", *versions], env=cloud.environment)
                try:
                    soak(service.client, psutil.Process(service.process.pid), temporary, seconds)
                finally:
                    swapper.kill()
                    swapper.wait()


def soak(client: Client, process: psutil.Process, temporary: Path, seconds: float) -> None:
    started, statuses = time.monotonic(), Counter[int]()
    threads = [threading.Thread(target=send_requests, args=(client, started + seconds, seed, statuses)) for seed in range(8)]
    for thread in threads:
        thread.start()
    print(f"{'seconds':>8} {'MB':>6} {'files open':>11} {'threads':>8} {'temporary files':>16} {'requests':>9}")
    while time.monotonic() < started + seconds:
        time.sleep(min(SAMPLE_SECONDS, max(0.1, started + seconds - time.monotonic())))
        memory, descriptors, running, files = sample(process, temporary)
        elapsed = time.monotonic() - started
        print(f"{elapsed:>8.0f} {memory:>6} {descriptors:>11} {running:>8} {files:>16} {sum(statuses.values()):>9}", flush=True)
    for thread in threads:
        thread.join()
    print("responses by status:", dict(sorted(statuses.items())))


if __name__ == "__main__":
    main()

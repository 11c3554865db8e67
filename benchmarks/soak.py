"""Ten minutes of mixed load: records, tables, errors, uploads, jobs and swaps, and what the service holds meanwhile.

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

from benchmarks.swaps import two_versions
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service

SECONDS, SAMPLE_SECONDS, PAUSE = 600.0, 30.0, 0.02
CSV, JSON = {"content-type": "text/csv"}, {"content-type": "application/json"}
PREDICT, BATCH = "/projects/prices/predict", "/projects/prices/batch"
Ask = Callable[[Client, random.Random], int]


def record(chance: random.Random) -> dict[str, float]:
    return {"area": round(chance.uniform(10, 300), 1), "rooms": chance.randint(0, 9)}


def table(chance: random.Random, rows: int) -> bytes:
    lines = (f"{chance.uniform(10, 300):.1f},{chance.randint(0, 9)}" for _ in range(rows))
    return ("area,rooms\n" + "\n".join(lines) + "\n").encode()


def page_then_result(client: Client, chance: random.Random) -> int:
    text = client.post_file(f"{PREDICT}.html", table(chance, 20)).text
    return client.get(f"/jobs/{text.split('/jobs/')[1].split(chr(34))[0]}").status


def job_then_delete(client: Client, chance: random.Random) -> int:
    answer = client.post(f"{BATCH}.json", gzip.compress(table(chance, 30_000)), {"content-type": "application/gzip"})
    if answer.status == 202 and chance.random() < 0.5:
        return client.request("DELETE", answer.headers["location"]).status
    return answer.status


MIX: list[tuple[int, Ask]] = [
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


def ask_on(client: Client, end: float, seed: int, seen: Counter[int]) -> None:
    chance = random.Random(seed)
    weights = [weight for weight, _ in MIX]
    while time.monotonic() < end:
        with suppress(OSError):
            seen[chance.choices(MIX, weights)[0][1](client, chance)] += 1
        time.sleep(PAUSE)


def sample(process: psutil.Process, folder: Path) -> tuple[int, int, int, int]:
    """Memory of the service in MB, its descriptors and threads, and the files in its temporary folder."""
    files = sum(len(names) for _, _, names in os.walk(folder))
    return process.memory_info().rss // 1_000_000, process.num_fds(), process.num_threads(), files


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(prefix="podium-soak-") as name:
        folder, (events, port) = Path(name), free_ports(2)
        with LocalCloud(folder, events) as cloud:
            versions = two_versions(cloud)
            temporary = folder / "tmp"
            temporary.mkdir()
            own = {
                **cloud.environment,
                "TMPDIR": str(temporary),
                "PODIUM_ASYNC_THRESHOLD_BYTES": "100000",
                "PODIUM_POLL_SECONDS": "1",
            }
            service = start_service(own, port, folder)
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 60)
            mover = subprocess.Popen([sys.executable, "-m", "benchmarks.swaps", *versions], env=cloud.environment)
            try:
                soak(client, psutil.Process(service.pid), temporary, seconds)
            finally:
                mover.kill()
                mover.wait()
                service.stop()


def soak(client: Client, process: psutil.Process, temporary: Path, seconds: float) -> None:
    began, seen = time.monotonic(), Counter[int]()
    threads = [threading.Thread(target=ask_on, args=(client, began + seconds, seed, seen)) for seed in range(8)]
    for thread in threads:
        thread.start()
    print(f"{'seconds':>8} {'MB':>6} {'files open':>11} {'threads':>8} {'temporary files':>16} {'requests':>9}")
    while time.monotonic() < began + seconds:
        time.sleep(min(SAMPLE_SECONDS, max(0.1, began + seconds - time.monotonic())))
        memory, descriptors, running, files = sample(process, temporary)
        elapsed = time.monotonic() - began
        print(f"{elapsed:>8.0f} {memory:>6} {descriptors:>11} {running:>8} {files:>16} {sum(seen.values()):>9}", flush=True)
    for thread in threads:
        thread.join()
    print("answers by status:", dict(sorted(seen.items())))


if __name__ == "__main__":
    main()

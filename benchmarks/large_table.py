"""Ten million lines through /batch: seconds, and the memory of the service and its children above what they had before.

`python -m benchmarks.large_table [--lines 10000000]`
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pandas as pd

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, start_service
from podium.project import Project
from podium.registry.promotion import promote, utc_now
from podium.registry.versions import publish
from podium.tables.readers import read_csv
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="podium-large-") as name:
        measure(Path(name), min(options.lines, 20_000_000))


def measure(folder: Path, lines: int) -> None:
    (port,) = free_ports(1)
    with LocalCloud(folder / "cloud", port) as cloud:
        put_champion(cloud)
        process = start_service({**cloud.environment, "PODIUM_POLL_SECONDS": "1"}, port, folder)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 60)
            client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
            path = table(folder / "large.csv", lines)
            watch = Memory(process.pid)
            started = time.perf_counter()
            job = posted(port, path)
            client.wait_until(lambda: client.get(job).json()["state"] in ("done", "failed"), 1800)
            found = client.get(job).json()
            seconds = time.perf_counter() - started
            above = watch.stop()
            print(f"{found['rows']:,} rows of {path.stat().st_size / 1e6:.0f} MB: {found['state']} in {seconds:.0f} s")
            print(
                f"memory of the service and its children: {watch.idle / 1e6:.0f} MB before, {above / 1e6:.0f} MB more at most"
            )
        finally:
            process.stop()


def put_champion(cloud: LocalCloud) -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"area": random.uniform(20, 200, 500).round(1), "rooms": random.integers(1, 7, 500)})
    frame = frame.assign(price=frame["area"] * 3000 + frame["rooms"] * 5000)
    project = Project(name="prices", data="s3://podium/none", target="price", families=("linear",), n_trials=1)
    context = promotion_context(cloud)
    claim = VersionReservation.now(datetime.now(UTC), "0" * 24, "0" * 64, None)
    manifest, files = train_locally(read_csv(frame.to_csv(index=False).encode()), project, claim, "bench")
    publish(context.store, manifest, files, context.signer)
    promote(context, "prices", manifest.version, "a benchmark", utc_now)
    context.validator.close()


def table(path: Path, lines: int) -> Path:
    block = "".join(f"{20 + place % 180}.{place % 1000:03d}000000000,{place % 6 + 1}\n" for place in range(100_000))
    with path.open("w") as file:
        file.write("area,rooms\n")
        for _ in range(lines // 100_000):
            file.write(block)
    return path


def posted(port: int, path: Path) -> str:
    """The job's address; the file is sent from disk."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    with path.open("rb") as file:
        headers = {"content-type": "text/csv", "content-length": str(path.stat().st_size)}
        connection.request("POST", "/projects/prices/batch", file, headers)
        answer = connection.getresponse()
        place = answer.headers["location"]
        print(answer.status, place)
        answer.read()
    return str(place)


class Memory:
    """The largest sum of resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stopped = pid, threading.Event()
        self.idle = self.most = resident(pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self.most = max(self.most, resident(self._pid))

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self.most - self.idle


def resident(pid: int) -> int:
    """Bytes of a process and its descendants; shared pages count for each."""
    total = 0
    for each in family(pid):
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total


def family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += family(int(child))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()

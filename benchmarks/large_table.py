"""Predict a CSV of ten million rows through /batch; measure seconds and the additional memory of the service.

`python -m benchmarks.large_table [--lines 10000000]`
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.environment import put_champion, running_service
from podium.local import LocalCloud
from podium.local.processes import free_ports


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
        with running_service(cloud, folder, port, {"PODIUM_POLL_SECONDS": "1"}, dask=True) as service:
            client = service.client
            path = write_table(folder / "large.csv", lines)
            monitor = MemoryMonitor(service.process.pid)
            started = time.perf_counter()
            job_url = post_table(port, path)
            client.wait_until(lambda: client.get(job_url).json()["state"] in ("done", "failed"), 1800)
            job = client.get(job_url).json()
            seconds = time.perf_counter() - started
            growth = monitor.stop()
    print(f"{job['rows']:,} rows, {path.stat().st_size / 1e6:.0f} MB: {job['state']} in {seconds:.0f} s")
    print(f"memory of the service and its children: {monitor.idle / 1e6:.0f} MB idle, {growth / 1e6:.0f} MB more at the peak")


def write_table(path: Path, lines: int) -> Path:
    block = "".join(f"{20 + row % 180}.{row % 1000:03d}000000000,{row % 6 + 1}\n" for row in range(100_000))
    with path.open("w") as file:
        file.write("area,rooms\n")
        for _ in range(lines // 100_000):
            file.write(block)
    return path


def post_table(port: int, path: Path) -> str:
    """Upload the file from disk; return the URL of the job."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    with path.open("rb") as file:
        headers = {"content-type": "text/csv", "content-length": str(path.stat().st_size)}
        connection.request("POST", "/projects/prices/batch", file, headers)
        response = connection.getresponse()
        job_url = response.headers["location"]
        print(response.status, job_url)
        response.read()
    return str(job_url)


class MemoryMonitor:
    """Measures the peak resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stopped = pid, threading.Event()
        self.idle = self.peak = resident_bytes(pid)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            self.peak = max(self.peak, resident_bytes(self._pid))

    def stop(self) -> int:
        """Return the growth since the start, in bytes."""
        self._stopped.set()
        self._thread.join()
        return self.peak - self.idle


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants; shared pages count in each of them."""
    total = 0
    for process in descendants(pid):
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total


def descendants(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    processes = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                processes += descendants(int(child))
        except OSError:
            continue
    return processes


if __name__ == "__main__":
    main()

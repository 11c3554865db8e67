"""Predict CSV files of a thousand to ten million rows through /batch: seconds, and the memory of the service.

Also the seconds from start to ready, and the idle memory with and without Dask workers. `python -m benchmarks.large_table`
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.environment import RunningService, put_champion, running_service
from podium.local import LocalCloud
from podium.local.processes import free_ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-lines", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="podium-large-") as name:
        growth = measure(Path(name), min(options.max_lines, 20_000_000))
    if options.json:
        options.json.write_text(json.dumps(growth, indent=1))


def measure(folder: Path, max_lines: int) -> list[dict[str, float]]:
    """Return the rows, seconds and additional megabytes of each job."""
    (port,) = free_ports(1)
    variables = {"PODIUM_POLL_SECONDS": "1", "PODIUM_ASYNC_THRESHOLD_BYTES": "1"}
    with LocalCloud(folder / "cloud", port) as cloud:
        put_champion(cloud)
        for workers in (0, 2):
            started = time.perf_counter()
            dask = {"PODIUM_DASK_WORKERS": str(workers)}
            with running_service(cloud, folder, port, variables | dask, dask=False) as service:
                ready = time.perf_counter() - started
                time.sleep(10)
                idle = resident_bytes(service.process.pid) / 1e6
                print(f"{workers} Dask workers: ready in {ready:.1f} s; {idle:.0f} MB idle, with child processes", flush=True)
        with running_service(cloud, folder, port, variables, dask=True) as service:
            sizes = [10**power for power in range(3, 9) if 10**power <= max_lines]
            return [measure_job(service, write_table(folder / "large.csv", lines)) for lines in sizes]


def measure_job(service: RunningService, path: Path) -> dict[str, float]:
    client, monitor = service.client, MemoryMonitor(service.process.pid)
    started = time.perf_counter()
    job_url = post_table(service.port, path)
    client.wait_until(lambda: client.get(job_url).json()["state"] in ("done", "failed"), 1800)
    seconds, job, growth = time.perf_counter() - started, client.get(job_url).json(), monitor.stop()
    rate = job["rows"] / seconds
    print(
        f"{job['rows']:>12,} rows, {path.stat().st_size / 1e6:.1f} MB: {job['state']} in {seconds:.2f} s, {rate:,.0f} rows/s; "
        f"{monitor.idle / 1e6:.0f} MB before, {growth / 1e6:.0f} MB more at the peak",
        flush=True,
    )
    return {"rows": job["rows"], "seconds": seconds, "megabytes": growth / 1e6}


def write_table(path: Path, lines: int) -> Path:
    rows = min(lines, 100_000)
    block = "".join(f"{20 + row % 180}.{row % 1000:03d}000000000,{row % 6 + 1}\n" for row in range(rows))
    with path.open("w") as file:
        file.write("area,rooms\n")
        for _ in range(lines // rows):
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
    """Return the memory of a process and its descendants; a page that several of them share counts once."""
    total = 0
    for process in descendants(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
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

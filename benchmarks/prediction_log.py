"""Measure what the prediction log costs: requests per second with and without it in one run, bytes, and its verification.

wrk sends distinct records of 25 columns to two services with one worker each, in turn. Then every prediction is computed again
from the bucket. The costs of a year follow from the measured bytes and objects. `python -m benchmarks.prediction_log`
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environment import RunningService, publish_champion, running_service
from benchmarks.serving import PLAIN, records, script_of, table, wrk
from podium.local import LocalCloud
from podium.local.processes import free_ports
from podium.local.services import promotion_context
from podium.project import Project

RATE, SECONDS_PER_YEAR, SHIP_SECONDS = 1000, 365 * 86_400, 5
PUT_DOLLARS, GB_MONTH_DOLLARS = 0.005 / 1000, 0.023
"""S3 Standard in us-east-1, September 2026."""
DISTINCT = 20_000
WRITES_PER_OBJECT = 6
"""An object and, in the log, the pending entries, the bundle, two tiles and the checkpoint."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="podium-log-") as name, ExitStack() as stack:
        folder, ports = Path(name), free_ports(2)
        cloud = stack.enter_context(LocalCloud(folder, ports[0]))
        project = Project(name="bench", data="s3://podium/none", target="target", families=("lightgbm",), budget="20s")
        publish_champion(cloud, table(), project)
        common = {"PODIUM_DASK_WORKERS": "0"}
        logged = stack.enter_context(running_service(cloud, folder / "logged", ports[0], common))
        plain = stack.enter_context(running_service(cloud, folder / "plain", ports[1], {**common, "PODIUM_LOG_KEY": ""}))
        ratios = list[float]()
        for number in range(options.rounds):
            order = (logged, plain) if number % 2 else (plain, logged)
            rates = {
                each.port: wrk(each.port, script_of(folder, PLAIN), options.connections, options.seconds) for each in order
            }
            with_log, without = (rates[each.port]["per_second"] for each in (logged, plain))
            ratios.append(with_log / without)
            p99 = [rates[each.port]["p99_ms"] for each in (logged, plain)]
            print(
                f"{with_log:.0f} a second with the log, {without:.0f} without; p99 {p99[0]:.2f} and {p99[1]:.2f} ms", flush=True
            )
        print(f"with the log: {statistics.median(ratios):.3f} of the requests per second (median of {options.rounds} rounds)")
        _report_storage(cloud, logged)
        _verify(cloud)


def _report_storage(cloud: LocalCloud, service: RunningService) -> None:
    """Print the bytes per prediction, and what a year costs."""
    service.client.wait_until(lambda: service.client.get("/status.json").json()["prediction_log"]["waiting_bytes"] == 0, 120)
    time.sleep(2)  # the count of rows follows
    store = promotion_context(cloud).store
    sizes = [info.size for info in store.list_objects("predictions/")]
    rows = service.client.get("/status.json").json()["prediction_log"]["rows"]
    print(f"{rows:,} predictions in {len(sizes)} objects")
    known = sum(sizes)
    distinct = records(DISTINCT, seed=9)
    for start in range(0, DISTINCT, 10):
        service.client.post_json(PLAIN.path, distinct[start : start + 10])
    service.client.wait_until(
        lambda: service.client.get("/status.json").json()["prediction_log"]["rows"] == rows + DISTINCT, 60
    )
    size = (sum(info.size for info in store.list_objects("predictions/")) - known) / DISTINCT
    terabytes, objects = RATE * SECONDS_PER_YEAR * size / 1e12, SECONDS_PER_YEAR / SHIP_SECONDS
    writes = objects * WRITES_PER_OBJECT * PUT_DOLLARS
    storage = terabytes * 1000 * GB_MONTH_DOLLARS * 12 / 2  # half of the year's bytes are there on average
    print(f"{size:.0f} bytes for a prediction of distinct inputs")
    costs = f"${writes:,.0f} for writes, ${storage:,.0f} to store"
    print(f"a year at {RATE:,} a second: {objects:,.0f} objects, {terabytes:.1f} TB, {costs}")


def _verify(cloud: LocalCloud) -> None:
    """Compute every prediction again with the command line."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "podium.cli.main", "verify", "--project", "bench", "--json"]
    command += ["--day", f"{datetime.now(UTC):%Y-%m-%d}"]
    result = json.loads(subprocess.run(command, env=cloud.environment, capture_output=True, check=True).stdout)
    seconds = time.perf_counter() - started
    print(f"{result['matches']:,} of {result['rows']:,} predictions computed again to the bit in {seconds:.1f} s")


if __name__ == "__main__":
    main()

"""Measure batches and panels of many rows, and a Dask cluster on addresses of its own with TLS.

    python -m benchmarks.scaling parts                      # PredictParts: rows, seconds, and how straight the line is
    python -m benchmarks.scaling table                      # training on a table of many files
    python -m benchmarks.scaling symbols                    # 10,000 symbols for a year: training, and predictions at close
    sudo python -m benchmarks.scaling cluster               # needs root, iproute2 and openssl

The cluster is a scheduler and three workers in network namespaces; a worker is killed every few seconds. Its CSV must be the
same bytes as that of a service without Dask.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.environment import publish_champion, running_service
from benchmarks.serving import PARAMS, table
from podium.local import LocalCloud
from podium.local.processes import Process, free_ports
from podium.local.services import put_table, run_pipeline
from podium.project import Project
from podium.settings import ROOT
from podium.storage.object_store import Store
from podium.training.families import FAMILIES

PROJECT = Project(name="bench", data="s3://podium/none", target="target", families=("lightgbm",), n_trials=1)
SCRIPTS = Path(sysconfig.get_path("scripts"))
PART_ROWS, LAGS = 250_000, 5
BRIDGE, NETWORK, SCHEDULER_PORT = "podium0", "10.91.0", 8786
WORKERS = 3


def part(seed: int, rows: int = PART_ROWS) -> bytes:
    file = io.BytesIO()
    table(rows, seed).drop(columns="target").to_csv(file, index=False)
    return file.getvalue()


def publish(cloud: LocalCloud) -> None:
    """Publish LightGBM with the trees of `make bench`."""
    FAMILIES["lightgbm"] = replace(FAMILIES["lightgbm"], settings=(PARAMS,), combine=None, at_rounds=None)
    publish_champion(cloud, table(), PROJECT)


def measure_parts(counts: list[int], workers: int) -> None:
    """Predict growing tables, and fit a line to the seconds."""
    with tempfile.TemporaryDirectory(prefix="podium-parts-") as name, LocalCloud(Path(name), free_ports(1)[0]) as cloud:
        publish(cloud)
        store = Store(cloud.client(), "podium")
        size = 0
        for number in range(max(counts)):
            data = part(number)
            size = len(data)
            for count in counts:
                if number < count:
                    store.create(f"big/{count}/part-{number:04}.csv", data)
        seconds = [_predict_parts(cloud, count, workers) for count in counts]
        rows = np.array(counts) * PART_ROWS
        slope, start = np.polyfit(rows, seconds, 1)
        for count, each in zip(counts, seconds, strict=True):
            line = slope * count * PART_ROWS + start
            facts = {"rows": count * PART_ROWS, "bytes": count * size, "seconds": round(each, 1), "line": round(line, 1)}
            print(json.dumps(facts), flush=True)
        rate = {
            "workers": workers,
            "rows_per_second": round(1 / slope),
            "mb_per_second": round(size / PART_ROWS / slope / 1e6, 1),
        }
        print(json.dumps({**rate, "start_seconds": round(start, 1), "rows_in_30_minutes": round((1800 - start) / slope)}))


def _predict_parts(cloud: LocalCloud, count: int, workers: int) -> float:
    command = [str(SCRIPTS / "luigi"), "--module", "luigi_tasks", "PredictParts", "--project", "bench", "--local-scheduler"]
    options = ["--source", f"s3://podium/big/{count}/", "--processes", str(workers), "--workers", str(workers)]
    environment = {**cloud.environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg"), "PODIUM_LOG_KEY": ""}
    started = time.monotonic()
    subprocess.run([*command, *options], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def namespaces(names: list[str]) -> Iterator[dict[str, str]]:
    """Create network namespaces on one bridge, and yield their addresses."""
    addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 10)}
    try:
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        for number, (name, address) in enumerate(addresses.items()):
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", f"pd{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", f"pd{number}", "master", BRIDGE, "up")
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _run("ip", "-n", name, "link", "set", device, "up")
        yield addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def certificates(folder: Path) -> dict[str, str]:
    """Make an authority and one certificate, and return Dask's settings for them as environment variables."""
    key, authority, own = folder / "key.pem", folder / "ca.pem", folder / "cert.pem"
    _run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(folder / "ca.key"),
        "-out",
        str(authority),
        "-subj",
        "/CN=ca",
    )
    _run(
        "openssl",
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(folder / "own.csr"),
        "-subj",
        "/CN=dask",
    )
    sign = ("-CA", str(authority), "-CAkey", str(folder / "ca.key"), "-CAcreateserial", "-days", "2")
    _run("openssl", "x509", "-req", "-in", str(folder / "own.csr"), *sign, "-out", str(own))
    prefix = "DASK_DISTRIBUTED__COMM__"
    files = {
        f"{prefix}TLS__{role}__{kind}": str(path)
        for role in ("SCHEDULER", "WORKER", "CLIENT")
        for kind, path in (("KEY", key), ("CERT", own))
    }
    return {f"{prefix}REQUIRE_ENCRYPTION": "True", f"{prefix}TLS__CA_FILE": str(authority), **files}


@contextmanager
def forwarded(port: int) -> Iterator[str]:
    """Make a port of loopback reachable from the namespaces; yield its address."""
    server = socket.create_server((f"{NETWORK}.1", 0))

    def relay(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", port))
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=relay, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://{NETWORK}.1:{server.getsockname()[1]}"
    finally:
        server.close()


def measure_cluster(rows: int, requests: int) -> None:
    """Compare the bytes of a cluster whose workers are killed with those of one process."""
    if os.geteuid():
        sys.exit("network namespaces need root")
    names = ["pd-scheduler", *(f"pd-worker-{number}" for number in range(1, WORKERS + 1))]
    with tempfile.TemporaryDirectory(prefix="podium-cluster-") as folder_name, ExitStack() as stack:
        folder = Path(folder_name)
        cloud = stack.enter_context(LocalCloud(folder, free_ports(1)[0]))
        publish(cloud)
        addresses = stack.enter_context(namespaces(names))
        s3 = stack.enter_context(forwarded(int(cloud.environment["AWS_ENDPOINT_URL_S3"].rsplit(":", 1)[1])))
        tls = certificates(folder)
        environment = {**cloud.environment, **tls, "AWS_ENDPOINT_URL_S3": s3, "PYTHONPATH": str(ROOT)}
        scheduler = f"tls://{addresses[names[0]]}:{SCHEDULER_PORT}"
        nodes = {}
        for name in names:
            command = ["ip", "netns", "exec", name, str(SCRIPTS / "dask")]
            if name == names[0]:
                command += [
                    "scheduler",
                    "--protocol",
                    "tls",
                    "--host",
                    addresses[name],
                    "--port",
                    str(SCHEDULER_PORT),
                    "--no-dashboard",
                ]
            else:
                command += [
                    "worker",
                    scheduler,
                    "--host",
                    addresses[name],
                    "--nthreads",
                    "1",
                    "--no-dashboard",
                    "--local-directory",
                    str(folder / name),
                ]
            nodes[name] = Process(command, folder / f"{name}.log", environment)
            stack.callback(nodes[name].stop, 5)
        bodies = [part(1000 + number, rows) for number in range(requests)]
        alone = {**tls, "PODIUM_DASK_WORKERS": "0", "PODIUM_LOG_KEY": ""}
        clustered = {**tls, "PODIUM_DASK_ADDRESS": scheduler, "PODIUM_LOG_KEY": "", "AWS_ENDPOINT_URL_S3": s3}
        with running_service(cloud, folder / "alone", free_ports(1)[0], alone) as service:
            expected = [_digest(service.client, body) for body in bodies]
        with running_service(cloud, folder / "clustered", free_ports(1)[0], clustered, dask=True) as service:
            service.client.wait_until(lambda: service.client.get("/status").json()["dask"]["workers"] == WORKERS, 60)
            started, quiet = time.monotonic(), [_digest(service.client, body) for body in bodies]
            seconds, stop = time.monotonic() - started, threading.Event()
            killed = list[int]()
            killer = threading.Thread(target=_kill_workers, args=(list(nodes.values())[1:], stop, killed))
            killer.start()
            disturbed = [_digest(service.client, body) for body in bodies]
            stop.set()
            killer.join()
            state = service.client.get("/status").json()["dask"]
        facts = {
            "requests": requests,
            "rows_each": rows,
            "same_bytes": quiet == expected,
            "rows_per_second": round(requests * rows / seconds),
        }
        print(json.dumps({**facts, "killed_workers": len(killed), "same_bytes_with_kills": disturbed == expected, **state}))


def _digest(client: object, body: bytes) -> str:
    response = client.post("/projects/bench/predict.csv", body, {"content-type": "text/csv"})  # type: ignore[attr-defined]
    assert response.status == 200, response.body[:500]
    return hashlib.sha256(response.body).hexdigest()


def _kill_workers(nodes: list[Process], stop: threading.Event, killed: list[int]) -> None:
    """Kill the process of one worker after another; its nanny starts it again."""
    turn = 0
    while not stop.wait(1.5):
        children = [
            child
            for child in psutil.Process(nodes[turn % len(nodes)].pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        for child in children[:1]:
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child.pid)
        turn += 1


@contextmanager
def project_of(name: str, text: str) -> Iterator[tuple[LocalCloud, dict[str, str]]]:
    """Yield a cloud and the variables for a project with this file."""
    with tempfile.TemporaryDirectory(prefix="podium-scaling-") as folder, LocalCloud(Path(folder), free_ports(1)[0]) as cloud:
        projects = Path(folder) / "projects"
        (projects / name).mkdir(parents=True)
        (projects / name / "project.toml").write_text(textwrap.dedent(text))
        yield cloud, {**cloud.environment, "PODIUM_PROJECTS": str(projects)}


def largest_process() -> float:
    """Return the gigabytes of the largest process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def measure_table(parts: int) -> None:
    """Train on a table of this many Parquet files of PART_ROWS rows."""
    with project_of("parts", 'data = "s3://podium/raw/parts/"\ntarget = "target"\n') as (cloud, variables):
        size = 0
        for number in range(parts):
            file = io.BytesIO()
            table(PART_ROWS, number).to_parquet(file, index=False)
            size += len(file.getvalue())
            cloud.client().put_object(Bucket="podium", Key=f"raw/parts/{number:04d}.parquet", Body=file.getvalue())
        reading = run_pipeline(variables, "parts", "Clean")
        training = run_pipeline(variables, "parts", "Pipeline")
    rows = f"{parts * PART_ROWS:,} rows in {parts} files, {size / 1e6:,.0f} MB"
    print(f"{rows}: reading {reading:.0f} s, training {training:.0f} s; largest process {largest_process():.1f} GB")


def prices(symbols: int, days: int) -> pd.DataFrame:
    """Return made-up daily prices; each day opens near the close before."""
    random, shape = np.random.default_rng(0), (symbols, days)
    close = np.exp(random.normal(3, 1, (symbols, 1)) + np.cumsum(random.normal(0, 0.02, shape), axis=1))
    opened = np.hstack([close[:, :1], close[:, :-1]]) * random.normal(1, 0.002, shape)
    high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": random.integers(1_000, 1_000_000, shape)}
    names, dates = [f"S{number:05d}" for number in range(symbols)], pd.date_range("2025-01-01", periods=days)
    keys = {"symbol": np.repeat(names, days), "date": np.tile(dates.strftime("%Y-%m-%d"), symbols)}
    return pd.DataFrame({**keys, **{name: values.ravel().round(4) for name, values in columns.items()}})


def measure_symbols(symbols: int, days: int) -> None:
    """Train on all symbols, and predict the next opening price of each from its last days."""
    text = f"""
        data = "s3://podium/raw/symbols.csv"
        target = "open"
        panel = {{ entity = "symbol", time = "date", lags = {LAGS} }}
        inbox = {{ input_url = "s3://podium/drop/in.csv", output_url = "s3://podium/drop/out.csv" }}
    """
    frame = prices(symbols, days)
    with project_of("symbols", text) as (cloud, variables):
        put_table(cloud, "raw/symbols.csv", frame)
        put_table(cloud, "drop/in.csv", frame.groupby("symbol").tail(LAGS + 1))
        training, batch = (run_pipeline(variables, "symbols", task) for task in ("Pipeline", "PredictBatch"))
        rows = len(pd.read_csv(io.BytesIO(Store(cloud.client(), "podium").read("drop/out.csv").data)))
    largest = largest_process()
    print(
        f"{len(frame):,} rows: training {training:.0f} s, {rows:,} predictions {batch:.1f} s, largest process {largest:.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    parts = commands.add_parser("parts")
    parts.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8, 16, 32], help="parts of 250,000 rows")
    parts.add_argument("--workers", type=int, default=2)
    many = commands.add_parser("table")
    many.add_argument("--count", type=int, default=20, help="files of 250,000 rows")
    symbols = commands.add_parser("symbols")
    symbols.add_argument("--symbols", type=int, default=10_000)
    symbols.add_argument("--days", type=int, default=365)
    cluster = commands.add_parser("cluster")
    cluster.add_argument("--rows", type=int, default=40_000)
    cluster.add_argument("--requests", type=int, default=30)
    options = parser.parse_args()
    print(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count()}))
    if options.command == "parts":
        measure_parts(options.counts, options.workers)
    elif options.command == "table":
        measure_table(options.count)
    elif options.command == "symbols":
        measure_symbols(options.symbols, options.days)
    else:
        measure_cluster(options.rows, options.requests)


if __name__ == "__main__":
    main()

"""Compare Podium with a naive FastAPI app on single records of the same model, in interleaved rounds of one run.

20 numeric and 5 text columns, LightGBM with 200 trees of 31 leaves, one uvicorn worker each with uvloop and httptools, wrk on
loopback. `python -m benchmarks.serving --help`
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastapi
import lightgbm
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.environment import publish_champion
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.project import Project
from podium.settings import ROOT
from podium.training.families import FAMILIES

PARAMS: dict[str, Any] = {"n_estimators": 200, "num_leaves": 31}
CATEGORIES = ["red", "green", "blue", "black", "white", "grey"]


def table(rows: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Return synthetic rows with a learnable target."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"number_{number}": random.normal(size=rows).round(4) for number in range(20)})
    for number in range(5):
        frame[f"text_{number}"] = random.choice(CATEGORIES, rows)
    weight = frame["number_0"] * 2 - frame["number_1"] * frame["number_2"] + (frame["text_0"] == "red") * 2
    return frame.assign(target=np.where(weight + random.normal(size=rows) > 0, "yes", "no"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="podium-bench-") as folder:
        report = measure(Path(folder), options.rounds, min(options.seconds, 60), options.connections)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(f"naive: FastAPI {fastapi.__version__}, pandas {pd.__version__}, LightGBM {lightgbm.__version__}")
    print(
        f"{'clients':>11} {'naive/s':>9} {'podium/s':>9} {'ratio':>7} {'naive p50':>10} {'podium p50':>11} {'podium p99':>11}"
    )
    for row in report:
        print(
            f"{row['connections']:>11} {row['naive_per_second']:>9.0f} {row['podium_per_second']:>9.0f} {row['ratio']:>6.1f}×"
            f" {row['naive_p50_ms']:>8.2f}ms {row['podium_p50_ms']:>9.2f}ms {row['podium_p99_ms']:>9.2f}ms"
        )


def measure(folder: Path, rounds: int, seconds: int, connections: list[int]) -> list[dict[str, float]]:
    """Return the medians over the rounds, per number of connections."""
    frame = table()
    record = (
        {"number_0": 0.5}
        | {f"number_{p}": round(0.1 * p - 1, 2) for p in range(1, 20)}
        | {f"text_{p}": CATEGORIES[p] for p in range(5)}
    )
    ports = free_ports(2)
    with LocalCloud(folder, ports[0]) as cloud:
        _publish(cloud, frame)
        _write_naive_model(folder, frame)
        variables = {"PODIUM_CACHE": str(folder / "cache"), "PODIUM_DASK_WORKERS": "0"}
        command = [sys.executable, "-m", "service", "--port", str(ports[0])]
        service = Process(command, folder / "logs" / "service.log", {**cloud.environment, **variables, "PYTHONPATH": str(ROOT)})
        naive = _serve("benchmarks.naive:create_app", ports[1], folder, {**os.environ, "NAIVE_FOLDER": str(folder)})
        try:
            service.wait_for(f"http://127.0.0.1:{ports[0]}/livez")
            client = Client(f"http://127.0.0.1:{ports[0]}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 30)
            naive.wait_for(f"http://127.0.0.1:{ports[1]}/docs", 30)
            script = _script(folder, record)
            return [_compare(ports, script, count, rounds, seconds) for count in connections]
        finally:
            service.stop()
            naive.stop()


def _compare(ports: list[int], script: Path, connections: int, rounds: int, seconds: int) -> dict[str, float]:
    results: dict[str, list[dict[str, float]]] = {"podium": [], "naive": []}
    for _ in range(rounds):
        for name, port in zip(("podium", "naive"), ports, strict=True):
            results[name].append(_wrk(port, script, connections, seconds))
    medians = {
        f"{name}_{key}": statistics.median(result[key] for result in measured)
        for name, measured in results.items()
        for key in ("per_second", "p50_ms", "p99_ms")
    }
    return {"connections": connections, "ratio": medians["podium_per_second"] / medians["naive_per_second"], **medians}


def _wrk(port: int, script: Path, connections: int, seconds: int) -> dict[str, float]:
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}/predict",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text:
        sys.exit(f"the service at port {port} returned errors:\n{text}")
    return {
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        "p50_ms": _milliseconds(text, "50%"),
        "p99_ms": _milliseconds(text, "99%"),
    }


def _milliseconds(text: str, quantile: str) -> float:
    number, unit = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _script(folder: Path, record: Mapping[str, object]) -> Path:
    path = folder / "post.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [[{json.dumps(record)}]]\n"
    )
    return path


def _serve(app: str, port: int, folder: Path, environment: dict[str, str]) -> Process:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        app,
        "--port",
        str(port),
        "--no-access-log",
        "--loop",
        "uvloop",
        "--http",
        "httptools",
    ]
    return Process(command, folder / "logs" / f"{port}.log", {**environment, "PYTHONPATH": str(ROOT)})


def _publish(cloud: LocalCloud, frame: pd.DataFrame) -> None:
    """Publish LightGBM with the params of the benchmark."""
    FAMILIES["lightgbm"] = replace(FAMILIES["lightgbm"], param_grid=(PARAMS,))
    project = Project(name="bench", data="s3://podium/bench.csv", target="target", families=("lightgbm",), n_trials=1)
    publish_champion(cloud, frame, project)


def _write_naive_model(folder: Path, frame: pd.DataFrame) -> None:
    features = frame.drop(columns="target")
    texts = [name for name in features if name.startswith("text")]
    numbers = [name for name in features if name not in texts]
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), numbers), ("texts", OneHotEncoder(handle_unknown="ignore"), texts)]
    )
    pipeline = make_pipeline(encode, lightgbm.LGBMClassifier(n_jobs=1, verbosity=-1, **PARAMS))
    pipeline.fit(features, frame["target"])
    (folder / "pipeline.pkl").write_bytes(pickle.dumps(pipeline))
    (folder / "columns.pkl").write_bytes(pickle.dumps({name: "text" if name in texts else "number" for name in features}))


if __name__ == "__main__":
    main()

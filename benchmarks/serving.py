"""Compare Podium with a naive FastAPI app, MLServer, BentoML and a bare ASGI app, in interleaved rounds of one run.

20 numeric and 5 text columns, LightGBM with 200 trees of 31 leaves, one uvicorn worker each with uvloop and httptools. wrk
sends a stream of distinct records on loopback. `python -m benchmarks.serving --help`
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fastapi
import lightgbm
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.environment import publish_champion
from benchmarks.peers import start_bentoml, start_mlserver
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.project import Project
from podium.settings import ROOT
from podium.training.families import FAMILIES

PARAMS: dict[str, Any] = {"n_estimators": 200, "num_leaves": 31}
CATEGORIES = ["red", "green", "blue", "black", "white", "grey"]
RECORDS = 1000
Record = dict[str, Any]


def table(rows: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Return synthetic rows with a learnable target; one number in fifty of the last column is missing."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"number_{number}": random.normal(size=rows).round(4) for number in range(20)})
    frame["number_18"] = random.integers(0, 50, rows)
    frame.loc[random.random(rows) < 0.02, "number_19"] = np.nan
    for number in range(5):
        frame[f"text_{number}"] = random.choice(CATEGORIES, rows)
    weight = frame["number_0"] * 2 - frame["number_1"] * frame["number_2"] + (frame["text_0"] == "red") * 2
    return frame.assign(target=np.where(weight + random.normal(size=rows) > 0, "yes", "no"))


def records(count: int = RECORDS, seed: int = 1) -> list[Record]:
    """Return distinct records of the table's kind, within the ranges of the training data."""
    random = np.random.default_rng(seed)
    numbers = random.uniform(-2.5, 2.5, (count, 20)).round(4)
    return [
        {f"number_{index}": float(number) for index, number in enumerate(row)}
        | {"number_18": int(random.integers(0, 50))}
        | {f"text_{index}": str(random.choice(CATEGORIES)) for index in range(5)}
        for row in numbers
    ]


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of single-record request."""

    name: str
    path: str
    body: Callable[[Record], Any]


def _tensors(record: Record) -> dict[str, Any]:
    types = {str: "BYTES", int: "INT64", float: "FP64"}
    inputs = [{"name": n, "shape": [1, 1], "datatype": types[type(v)], "data": [v]} for n, v in record.items()]
    return {"inputs": inputs}


def _mlserver_request(record: Record) -> dict[str, Any]:
    """Return the tensors with the hints by which MLServer makes a DataFrame of them."""
    tensors = _tensors(record)["inputs"]
    for tensor in tensors:
        if tensor["datatype"] == "BYTES":
            tensor["parameters"] = {"content_type": "str"}
    return {"parameters": {"content_type": "pd"}, "inputs": tensors, "outputs": [{"name": "predict_proba"}]}


BENCH = "/projects/bench"
PLAIN = Stream("one record", f"{BENCH}/predict", lambda record: record)
PEER = Stream("one record of a peer", "/predict", lambda record: record)
STREAMS = [
    PLAIN,
    Stream(
        "24.0 in an integer column",
        f"{BENCH}/predict",
        lambda record: record | {"number_18": float(record["number_18"])},
    ),
    Stream("a value out of range", f"{BENCH}/predict", lambda record: record | {"number_3": 99.5}),
    Stream("null", f"{BENCH}/predict", lambda record: record | {"number_19": None}),
    Stream("an unknown category", f"{BENCH}/predict", lambda record: record | {"text_1": "mauve"}),
    Stream("other field order", f"{BENCH}/predict", lambda record: dict(reversed(record.items()))),
    Stream("array", f"{BENCH}/predict", lambda record: list(record.values())),
    Stream("list of one", f"{BENCH}/predict", lambda record: [record]),
    Stream("GET", f"{BENCH}/predict", urlencode),
    Stream("Open Inference Protocol", "/v2/models/bench/infer", _tensors),
    Stream(
        "/invocations",
        "/invocations?project=bench",
        lambda record: {"dataframe_split": {"columns": [*record], "data": [[*record.values()]]}},
    ),
    Stream("a champion as trained in 60 s", "/projects/trained/predict", lambda record: record),
    Stream("models=all", f"{BENCH}/predict?models=all", lambda record: record),
    Stream("explain=5", f"{BENCH}/predict?explain=5", lambda record: record),
    Stream("inputs=true", f"{BENCH}/predict?inputs=true", lambda record: record),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--csv-rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="podium-bench-") as folder, running(Path(folder)) as servers:
        singles = measure_streams(servers, options.rounds, min(options.seconds, 60), options.connections)
        lists = measure_lists(servers, options.rounds)
        csv = measure_csv(servers, options.csv_rows) if options.csv_rows else {}
    if options.json:
        options.json.write_text(json.dumps({"streams": singles, "lists": lists, "csv": csv}, indent=1))
    print(", ".join(f"{name} {version}" for name, version in servers.versions.items()))
    title = f"one record, {options.connections} connections"
    print(f"{title:>34} {'per second':>11} {'p50':>9} {'p99':>9} {'× plain':>8}")
    plain = singles[PLAIN.name]["per_second"]
    for name, row in singles.items():
        ratio = row["per_second"] / plain
        print(f"{name:>34} {row['per_second']:>11.0f} {row['p50_ms']:>7.2f}ms {row['p99_ms']:>7.2f}ms {ratio:>8.3f}")
    for name, value in {**lists, **csv}.items():
        print(f"{name:>50} {value:>12.1f}")


@dataclass(frozen=True, slots=True)
class Servers:
    """The ports of the servers, and the folder with the pickled pipeline."""

    podium: int
    naive: int
    bare: int
    mlserver: int
    bentoml: int
    folder: Path
    versions: dict[str, str]


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Train, publish and serve the same kind of model on all servers."""
    frame, ports = table(), free_ports(5)
    servers = Servers(*ports, folder, {"FastAPI": fastapi.__version__, "LightGBM": lightgbm.__version__})
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(folder, servers.podium))
        _publish(cloud, frame)
        _write_naive_model(folder, frame)
        variables = {**cloud.environment, "PODIUM_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "service", "--port", str(servers.podium)]
        service = Process(command, folder / "logs" / "service.log", variables)
        stack.callback(service.stop)
        for app, port in (("benchmarks.naive:create_app", servers.naive), ("benchmarks.bare:create_app", servers.bare)):
            process = serve(app, port, folder)
            stack.callback(process.stop)
            process.wait_for(f"http://127.0.0.1:{port}/", 30)
        for name, start, port in (
            ("MLServer", start_mlserver, servers.mlserver),
            ("BentoML", start_bentoml, servers.bentoml),
        ):
            peer, servers.versions[name] = start(folder, port)
            stack.callback(peer.stop)
        service.wait_for(f"http://127.0.0.1:{servers.podium}/livez", 60)
        client = Client(f"http://127.0.0.1:{servers.podium}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 30)
        client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
        yield servers


def measure_streams(servers: Servers, rounds: int, seconds: int, connections: int) -> dict[str, dict[str, float]]:
    """Return the medians over the rounds of every stream, of the naive and of the bare server."""
    targets = [(stream.name, servers.podium, stream) for stream in STREAMS]
    targets += [
        ("naive FastAPI", servers.naive, PEER),
        ("MLServer", servers.mlserver, Stream("MLServer", "/v2/models/bench/infer", _mlserver_request)),
        ("BentoML", servers.bentoml, Stream("BentoML", "/predict", lambda record: {"record": record})),
        ("bare ASGI and a call of C", servers.bare, PEER),
    ]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in targets}
    for _, (name, port, stream) in itertools.product(range(rounds), targets):
        measured[name].append(wrk(port, script_of(servers.folder, stream), connections, seconds))
    return {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in measured.items()
    }


def wrk(port: int, script: Path, connections: int, seconds: int) -> dict[str, float]:
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    command = ["wrk", *options, f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "error" in text:
        sys.exit(f"the service at port {port} returned errors for {script}:\n{text}")
    return {
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        "p50_ms": _milliseconds(text, "50%"),
        "p99_ms": _milliseconds(text, "99%"),
    }


def _milliseconds(text: str, quantile: str) -> float:
    number, unit = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def script_of(folder: Path, stream: Stream) -> Path:
    """Write a wrk script that sends all records in turn."""
    bodies = [stream.body(record) for record in records()]
    path = folder / f"{re.sub(r'[^a-z0-9]', '-', stream.name.lower())}.lua"
    if stream.name == "GET":
        lines, request = bodies, f"wrk.format('GET', '{stream.path}?' .. bodies[turn])"
    else:
        lines, request = map(json.dumps, bodies), f"wrk.format('POST', '{stream.path}', nil, bodies[turn])"
    listed = ",\n".join(f"[==[{line}]==]" for line in lines)
    path.write_text(
        f"bodies = {{\n{listed}\n}}\nturn = 0\nwrk.headers['Content-Type'] = 'application/json'\n"
        f"request = function()\n  turn = turn % #bodies + 1\n  return {request}\nend\n"
    )
    return path


def measure_lists(servers: Servers, rounds: int) -> dict[str, float]:
    """Return the rows per second of lists of 10,000 records, and the median milliseconds of 11 records."""
    results: dict[str, float] = {}
    for name, port, path in (("podium", servers.podium, PLAIN.path), ("naive", servers.naive, "/predict-list")):
        for count, repeats in ((11, 20 * rounds), (10_000, 3 * rounds)):
            bodies = [json.dumps(records(count, seed)).encode() for seed in range(min(5, repeats))]
            seconds = statistics.median(post_all(port, path, itertools.islice(itertools.cycle(bodies), repeats)))
            if count == 11:
                results[f"{name}: 11 records, milliseconds"] = seconds * 1000
            else:
                results[f"{name}: list of 10,000, rows per second"] = count / seconds
    return results


def post_all(port: int, path: str, bodies: Iterator[bytes]) -> Sequence[float]:
    connection, times = http.client.HTTPConnection("127.0.0.1", port), []
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        times.append(time.perf_counter() - started)
        if response.status != 200:
            sys.exit(f"{path} returned {response.status}: {text[:300]!r}")
    connection.close()
    return times


def measure_csv(servers: Servers, rows: int) -> dict[str, float]:
    """Return the seconds for a CSV file over HTTP, and for pandas and the naive pipeline in this process."""
    path = servers.folder / "rows.csv"
    table(rows, seed=2).drop(columns="target").to_csv(path, index=False)
    pipeline = pickle.loads((servers.folder / "pipeline.pkl").read_bytes())
    started = time.perf_counter()
    frame = pd.read_csv(path)
    frame[["no", "yes"]] = pipeline.predict_proba(frame)
    frame.to_csv(servers.folder / "pandas.csv", index=False)
    in_process = time.perf_counter() - started
    started = time.perf_counter()
    url, output = f"http://127.0.0.1:{servers.podium}", str(servers.folder / "podium.csv")
    upload = ["curl", "-sS", "-H", "Content-Type: text/csv", "--data-binary", f"@{path}"]
    job = json.loads(subprocess.run([*upload, f"{url}/projects/bench/batch"], capture_output=True, check=True).stdout)
    client = Client(url)
    client.wait_until(lambda: client.get(f"/jobs/{job['job']}").json()["state"] not in ("waiting", "running"), 600)
    subprocess.run(["curl", "-sS", "-o", output, f"{url}/jobs/{job['job']}/result.csv"], check=True)
    over_http = time.perf_counter() - started
    if len(pd.read_csv(output, usecols=["prediction"])) != rows:
        sys.exit("the result does not have all rows")
    return {f"podium: CSV of {rows:,} rows, seconds": over_http, f"pandas: CSV of {rows:,} rows, seconds": in_process}


def serve(app: str, port: int, folder: Path) -> Process:
    options = ["--factory", app, "--port", str(port), "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    environment = {**os.environ, "NAIVE_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
    return Process([sys.executable, "-m", "uvicorn", *options], folder / "logs" / f"{port}.log", environment)


def _publish(cloud: LocalCloud, frame: pd.DataFrame) -> None:
    """Publish LightGBM with the params of the benchmark and four other models, and a champion as projects have it."""
    publish_champion(cloud, frame, Project(name="trained", data="s3://podium/bench.csv", target="target"))
    FAMILIES["lightgbm"] = replace(FAMILIES["lightgbm"], settings=(PARAMS,), combine=None, at_rounds=None)
    families = ("lightgbm", "linear", "random-forest", "extra-trees", "glm")
    project = Project(name="bench", data="s3://podium/bench.csv", target="target", families=families, n_trials=1)
    publish_champion(cloud, frame, project, "lightgbm")


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
    kinds = {name: "text" if name in texts else "number" for name in features}
    (folder / "columns.pkl").write_bytes(pickle.dumps(kinds))
    trees = lightgbm.LGBMClassifier(n_jobs=1, verbosity=-1, **PARAMS).fit(
        features[numbers].to_numpy(), frame["target"] == "yes"
    )
    (folder / "bare.pkl").write_bytes(pickle.dumps((trees.booster_.model_to_string(), list(kinds.items()))))


if __name__ == "__main__":
    main()

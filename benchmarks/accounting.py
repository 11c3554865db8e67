"""Kill workers and the object store under load, and account for every prediction. `python -m benchmarks.accounting`

Five projects (two classes, several classes, numbers, a panel, an imported scikit-learn pipeline) get three versions each, while
clients send distinct records. Then every id that a client saw must be in the log exactly once, and every logged prediction must
be computed again to the bit by `podium verify`, which knows the bucket and the public keys only.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.environment import RunningService, publish_champion, running_service
from podium.local import LocalCloud
from podium.local.processes import free_ports
from podium.local.services import promotion_context
from podium.project import Project
from podium.registry.signing import Signer

VERSIONS, THREADS = 3, 6
KILL_SECONDS, OUTAGE_SECONDS = 10.0, 5.0
PUBLIC = ("AWS_", "PODIUM_BUCKET", "PODIUM_TRAINER_KEYS", "PODIUM_PROMOTER_KEYS", "PATH", "HOME")
"""What `podium verify` is given."""
Publish = Callable[[LocalCloud, int, Path], object]


def rows_of(seed: int, rows: int = 600) -> pd.DataFrame:
    """Return inputs with missing cells."""
    dice = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": dice.integers(18, 90, rows),
            "income": np.where(dice.random(rows) < 0.1, np.nan, dice.normal(4e4, 9e3, rows).round(2)),
            "city": dice.choice(["Köln", "Bonn", "Aachen", "Trier"], rows),
        }
    )
    signal_ = frame["age"] / 20 + frame["income"].fillna(3e4) / 2e4 + (frame["city"] == "Bonn") + dice.normal(0, 0.5, rows)
    return frame.assign(
        bought=np.where(signal_ > signal_.median(), "yes", "no"),
        rank=pd.qcut(signal_, 3, labels=["low", "middle", "high"]).astype(str),
        price=(signal_ * 1000).round(2),
    )


INPUTS, CITIES = ["age", "income", "city"], ["Köln", "Bonn", "Ulm"]


def tabular(name: str, target: str) -> Publish:
    """Return a function that trains and promotes a version of a table."""

    def publish(cloud: LocalCloud, version: int, _: Path) -> object:
        project = Project(name=name, data="s3://podium/none", target=target, families=("linear", "lightgbm"), budget="5s")
        return publish_champion(cloud, rows_of(version)[[*INPUTS, target]], project)

    return publish


def shops(seed: int) -> pd.DataFrame:
    """Return daily sales that are high and low in turn."""
    dice, rows = np.random.default_rng(seed), []
    for shop in range(4):
        for number, day in enumerate(pd.date_range("2026-01-01", periods=50)):
            sold = round(100 + 20 * (number % 2) + float(dice.normal(0, 3)), 2)
            rows.append({"shop": f"s{shop}", "day": f"{day:%Y-%m-%d}", "sold": sold})
    return pd.DataFrame(rows)


def panel(cloud: LocalCloud, version: int, _: Path) -> object:
    panel_options = {"entity": "shop", "time": "day", "lags": 3}
    fields = {"name": "shops", "data": "s3://podium/none", "target": "sold", "panel": panel_options}
    return publish_champion(cloud, shops(version), Project.model_validate({**fields, "families": ["linear"], "budget": "5s"}))


def imported(cloud: LocalCloud, version: int, folder: Path) -> object:
    frame = rows_of(version).dropna()
    columns = make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(handle_unknown="ignore"), ["city"]))
    model, path = make_pipeline(columns, LogisticRegression()).fit(frame[INPUTS], frame["bought"]), folder / f"{version}.pkl"
    path.write_bytes(pickle.dumps(model))
    sample = folder / "sample.csv"
    frame[[*INPUTS, "bought"]].to_csv(sample, index=False)
    told = podium(cloud, "models", "import", "shoppers", str(path), "--sample", str(sample), "--target", "bought", "--json")
    return podium(cloud, "models", "promote", "shoppers", json.loads(told)["version"], "--reason", "benchmark", "--force")


def podium(cloud: LocalCloud, *command: str) -> str:
    call = [sys.executable, "-m", "podium.cli.main", *command]
    result = subprocess.run(call, env={**os.environ, **cloud.environment}, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"podium {' '.join(command)}: {result.stdout}{result.stderr}")
    return result.stdout


PROJECTS: dict[str, Publish] = {
    "buyers": tabular("buyers", "bought"),
    "ranks": tabular("ranks", "rank"),
    "prices": tabular("prices", "price"),
    "shops": panel,
    "shoppers": imported,
}


class Clients:
    """Threads that send distinct requests until so many were answered, and remember the ids."""

    def __init__(self, service: RunningService) -> None:
        self._client, self._lock = service.client, threading.Lock()
        self.seen: list[str] = []
        self.broken: Counter[str] = Counter()

    def send(self, total: int) -> None:
        threads = [threading.Thread(target=self._run, args=(total, number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, total: int, number: int) -> None:
        dice = random.Random(f"{total} {number}")
        days = shops(7).query("shop == 's1'").head(6).to_csv(index=False).encode()
        while len(self.seen) < total:
            project = dice.choice(list(PROJECTS))
            record = {
                "age": dice.randrange(18, 90),
                "income": round(dice.gauss(4e4, 9e3), 2),
                "city": dice.choice(["Köln", "Ulm"]),
            }
            try:
                if project == "shops":
                    answer = self._client.post("/projects/shops/predict", days, {"content-type": "text/csv"})
                else:
                    answer = self._client.post_json(f"/projects/{project}/predict", record)
            except OSError:
                self.broken["connection"] += 1
                continue
            if answer.status == 200:
                with self._lock:
                    self.seen.append(answer.headers["x-prediction-id"])
            else:
                self.broken[str(answer.status)] += 1


def kill(service: RunningService, stopped: threading.Event, killed: list[int]) -> None:
    """Kill a worker again and again."""
    while not stopped.wait(KILL_SECONDS):
        try:
            pid = random.choice(service.client.get("/status.json").json()["workers"])["pid"]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        except (OSError, ValueError, KeyError):
            pass


def logged_ids(cloud: LocalCloud) -> Counter[str]:
    """Count the objects that have each id; the rows of one request have the same."""
    store, counts = promotion_context(cloud).store, Counter[str]()
    for info in store.list_objects("predictions/"):
        counts.update(pc.unique(pq.read_table(io.BytesIO(store.read(info.key).data))["prediction_id"]).to_pylist())
    return counts


def verify(cloud: LocalCloud, day: str) -> bool:
    """Compute every prediction again, and print what was found."""
    environment = {name: text for name, text in {**os.environ, **cloud.environment}.items() if name.startswith(PUBLIC)}
    environment["PODIUM_LOG_KEYS"] = json.dumps([Signer.parse(cloud.environment["PODIUM_LOG_KEY"]).public])
    matched = True
    for project in PROJECTS:
        started = time.perf_counter()
        command = [sys.executable, "-m", "podium.cli.main", "verify", "--project", project, "--day", day, "--json"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        told = json.loads(result.stdout or '{"rows": 0, "matches": -1, "problems": ["no answer"]}')
        seconds = time.perf_counter() - started
        print(
            f"{project}: {told['matches']:,} of {told['rows']:,} rows match, {seconds:.0f} s",
            *told["problems"][:2],
            result.stderr,
        )
        matched &= told["matches"] == told["rows"] and not told["problems"]
    return matched


def report(clients: Clients, counts: Counter[str], killed: Sequence[int]) -> bool:
    """Print whether each id that was seen is logged once, and how many others there are."""
    seen = set(clients.seen)
    missing, repeated = seen - counts.keys(), [each for each, count in counts.items() if count > 1]
    others = counts.keys() - seen
    print(f"{len(killed)} workers and the object store were killed; failed requests: {dict(clients.broken)}")
    print(f"{len(seen):,} ids were seen: {len(missing)} are not logged, {len(repeated)} are logged twice")
    print(f"{len(others)} logged ids were not seen")
    return not missing and not repeated and len(others) <= clients.broken["connection"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="podium-accounting-") as name:
        folder, (port,) = Path(name), free_ports(1)
        with LocalCloud(folder / "cloud", port) as cloud:
            for publish in PROJECTS.values():
                publish(cloud, 0, folder)
            variables = {"PODIUM_DASK_WORKERS": "0", "PODIUM_POLL_SECONDS": "1"}
            day = f"{datetime.now(UTC):%Y-%m-%d}"
            with running_service(cloud, folder / "service", port, variables, workers=2) as service:
                status = functools.partial(service.client.get, "/status.json")
                service.client.wait_until(lambda: len(status().json()["serving"]) == len(PROJECTS), 60)
                clients, stopped, killed = Clients(service), threading.Event(), list[int]()
                killer = threading.Thread(target=kill, args=(service, stopped, killed))
                killer.start()
                for version in range(VERSIONS):
                    sending = threading.Thread(target=clients.send, args=(options.predictions * (version + 1) // VERSIONS,))
                    sending.start()
                    if version:
                        cloud.stop()
                        time.sleep(OUTAGE_SECONDS)
                        cloud.start()
                    if version < VERSIONS - 1:
                        for publish in PROJECTS.values():
                            publish(cloud, version + 1, folder)
                    sending.join()
                    print(f"{len(clients.seen):,} predictions", flush=True)
                stopped.set()
                killer.join()
                service.client.wait_until(lambda: status().json()["prediction_log"]["waiting_bytes"] == 0, 180)
            accounted = report(clients, logged_ids(cloud), killed)
            raise SystemExit(0 if verify(cloud, day) and accounted else 1)


if __name__ == "__main__":
    main()

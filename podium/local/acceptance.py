"""`podium accept`: a project from its data to served answers on the embedded S3, saying what was seen."""

from __future__ import annotations

import csv
import http.client
import importlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from podium.local import LocalCloud
from podium.local.check_report import CheckReport
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, run_pipeline, start_service
from podium.registry.promotion import PromotionContext
from podium.settings import ROOT

SECONDS = 60
ASKED = 300
Rows = Sequence[Mapping[str, str]]


class AcceptanceEnvironment:
    """The embedded cloud, a service on it, and what is done and seen there by one project."""

    def __init__(self, project: str, cloud: LocalCloud, folder: Path, seen: CheckReport) -> None:
        self.project, self.cloud, self.folder, self.seen = project, cloud, folder, seen
        self.check, self.figure = seen.check, seen.figure
        self.client = Client(f"http://127.0.0.1:{cloud.service_port}", 600)
        self.stop: Callable[[], None] = lambda: None

    @cached_property
    def context(self) -> PromotionContext:
        return promotion_context(self.cloud)

    def put(self, key: str, data: bytes) -> None:
        self.cloud.client().put_object(Bucket=self.context.store.bucket, Key=key, Body=data)

    def train(self, task: str = "Pipeline", *more: str) -> float:
        """The luigi command; seconds."""
        return run_pipeline(self.cloud.environment, self.project, task, *more, quiet=True)

    def luigi(self, task: str, *more: str) -> float:
        """A task that names no project; seconds."""
        return run_pipeline(self.cloud.environment, "", task, *more, quiet=True)

    def podium(self, *arguments: str) -> str:
        """A `podium` command; what it printed. Raises CalledProcessError."""
        command = [sys.executable, "-m", "podium.cli.main", *arguments]
        done = subprocess.run(command, env=self.cloud.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def imported(self, file: Path, reason: str, *options: str) -> dict[str, Any]:
        """A model file imported and promoted; its manifest."""
        manifest: dict[str, Any] = json.loads(self.podium("models", "import", self.project, str(file), *options, "--json"))
        self.podium("models", "promote", self.project, manifest["version"], "--reason", reason)
        return manifest

    def serve(self) -> None:
        """Start the service, and wait until it serves the champion with its Dask cluster."""
        process = start_service({**self.cloud.environment, "PODIUM_POLL_SECONDS": "2"}, self.cloud.service_port, self.folder)
        self.stop = process.stop
        self.wait_until_served()
        self.client.wait_until(lambda: self.client.get("/status.json").json()["dask"]["mode"] == "cluster", SECONDS)

    def wait_until_served(self) -> None:
        self.client.wait_until(lambda: self.client.get(f"/projects/{self.project}/schema").status == 200, SECONDS)

    @property
    def path(self) -> str:
        return f"/projects/{quote(self.project)}/predict"

    def manifest(self) -> dict[str, Any]:
        """The champion's."""
        found: dict[str, Any] = json.loads(self.podium("models", "show", self.project))
        return found

    def ask(self, record: object) -> dict[str, Any]:
        """The one prediction of a record as JSON."""
        answer = self.client.post_json(self.path, record)
        if answer.status != 200:
            raise AssertionError(f"{answer.status}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json()["predictions"][0]
        return found

    def latency(self, record: object) -> float:
        """Median milliseconds of a record as JSON on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.cloud.service_port)
        body, times = json.dumps(record).encode(), []
        for _ in range(ASKED):
            started = time.perf_counter()
            connection.request("POST", self.path, body, {"content-type": "application/json"})
            connection.getresponse().read()
            times.append((time.perf_counter() - started) * 1000)
        connection.close()
        return statistics.median(times)

    def same_everywhere(self, rows: Rows) -> None:
        """The same rows, more than ten, by CSV, JSON, form and Dask: what the model took and what it said are identical."""
        schema = self.client.get(f"/projects/{self.project}/schema").json()
        records = [as_json(row, schema) for row in rows]
        together = [self._answers("application/json", json.dumps(records).encode())]  # over Dask
        together.append(self._answers("text/csv", to_csv(rows)))
        alone = [
            [one for record in records for one in self._answers("application/json", json.dumps(record).encode())],
            [one for row in rows for one in self._answers("text/csv", to_csv([row]))],
            [one for row in rows for one in self._form(row)],
        ]
        same = all(found == together[0] for found in (*together, *alone))
        self.check(same, f"{len(rows)} rows as JSON, CSV, form, one by one and over Dask: the same inputs and bits")

    def _answers(self, media: str, body: bytes) -> list[Any]:
        headers = {"content-type": media, "accept": "application/json"}
        answer = self.client.post(f"{self.path}?inputs=true", body, headers)
        found: list[Any] = answer.json().get("predictions") or [answer.text]
        return found

    def _form(self, row: Mapping[str, str]) -> list[Any]:
        body = "&".join(f"{quote(name)}={quote(value)}" for name, value in row.items())
        return self._answers("application/x-www-form-urlencoded", body.encode())

    def told(self, data: str, record: object) -> None:
        """A line for the table of projects."""
        manifest = self.manifest()
        best = next(row for row in manifest["leaderboard"] if row["model"] == manifest["champion"])
        score = f"{best['eval_metric']} {best['score_test']:.4g} ({best['ci_low']:.4g} … {best['ci_high']:.4g})"
        self.figure("data", data)
        self.figure("champion", manifest["champion"])
        self.figure("score", score)
        self.figure("milliseconds_of_one_record", self.latency(record))


def as_json(row: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A row of texts as a client writes it in JSON: plain numbers as numbers, blanks as null, the rest as it is."""
    made: dict[str, Any] = {}
    for name, text in row.items():
        kinds = schema["properties"][name]["type"]
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not text.strip():
            made[name] = None
        elif "string" not in kinds:
            made[name] = text.lower() == "true" if "boolean" in kinds else json.loads(text)
        else:
            made[name] = text
    return made


def to_csv(rows: Rows) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


@contextmanager
def acceptance_environment(project: str, folder: Path | None, seen: CheckReport) -> Iterator[AcceptanceEnvironment]:
    """An embedded cloud for one project; everything in it is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="podium-accept-") as temporary:
        place = folder / project if folder else Path(temporary)
        with LocalCloud(place, free_ports(1)[0]) as cloud:
            made = AcceptanceEnvironment(project, cloud, place, seen)
            try:
                yield made
            finally:
                made.stop()


def project_names(folder: Path) -> list[str]:
    """Return the projects that have an acceptance run."""
    return sorted(path.parent.name for path in folder.glob("*/accept.py"))


def run_acceptance(names: Sequence[str], folder: Path | None, as_json: bool) -> int:
    """Returns 0 if everything was right, in all of them."""
    sys.path.insert(0, str(ROOT))
    found = {}
    for name in names:
        seen = found[name] = CheckReport()
        click.echo(f"— {name}", err=True)
        started = time.perf_counter()
        with acceptance_environment(name, folder, seen) as made:
            importlib.import_module(f"projects.{name}.accept").accept(made)
        seen.figure("seconds", time.perf_counter() - started)
        if not as_json:
            seen.say(False)
    if as_json:
        click.echo(json.dumps({name: seen.as_dict() for name, seen in found.items()}, indent=1))
    elif len(names) > 1:
        click.echo(f"{len(names)} projects, {sum(seen.wrong for seen in found.values())} wrong")
    return 1 if any(seen.wrong for seen in found.values()) else 0

"""`podium accept`: run example projects from their data to their predictions on a local cloud."""

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

from podium.formatting import count
from podium.local import LocalCloud
from podium.local.check_report import CheckReport
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, run_pipeline, start_service
from podium.registry.promotion import PromotionContext
from podium.settings import ROOT

WAIT_SECONDS = 60
TIMED_REQUESTS = 300
Rows = Sequence[Mapping[str, str]]


class AcceptanceEnvironment:
    """A local cloud with a service, and the steps and checks of one project's acceptance run."""

    def __init__(self, project: str, cloud: LocalCloud, folder: Path, report: CheckReport) -> None:
        self.project, self.cloud, self.folder, self.report = project, cloud, folder, report
        self.check, self.figure = report.check, report.figure
        self.client = Client(f"http://127.0.0.1:{cloud.service_port}", 600)
        self.stop: Callable[[], None] = lambda: None

    @cached_property
    def context(self) -> PromotionContext:
        return promotion_context(self.cloud)

    def put(self, key: str, data: bytes) -> None:
        self.cloud.client().put_object(Bucket=self.context.store.bucket, Key=key, Body=data)

    def train(self, task: str = "Pipeline", *options: str) -> float:
        """Run a Luigi task for the project and return the seconds it took."""
        return run_pipeline(self.cloud.environment, self.project, task, *options, quiet=True)

    def luigi(self, task: str, *options: str) -> float:
        """Run a Luigi task without a project and return the seconds it took."""
        return run_pipeline(self.cloud.environment, "", task, *options, quiet=True)

    def podium(self, *arguments: str) -> str:
        """Run a `podium` command and return its standard output. Raises CalledProcessError."""
        command = [sys.executable, "-P", "-m", "podium.cli.main", *arguments]
        result = subprocess.run(command, env=self.cloud.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return result.stdout

    def import_and_promote(self, file: Path, reason: str, *options: str) -> dict[str, Any]:
        """Import a model file, promote it and return its manifest."""
        manifest: dict[str, Any] = json.loads(self.podium("models", "import", self.project, str(file), *options, "--json"))
        self.podium("models", "promote", self.project, manifest["version"], "--reason", reason)
        return manifest

    def serve(self) -> None:
        """Start the service, and wait until the champion is deployed and the Dask cluster runs."""
        process = start_service({**self.cloud.environment, "PODIUM_POLL_SECONDS": "2"}, self.cloud.service_port, self.folder)
        self.stop = process.stop
        self.wait_until_deployed()
        self.client.wait_until(lambda: self.client.get("/status.json").json()["dask"]["mode"] == "cluster", WAIT_SECONDS)

    def wait_until_deployed(self) -> None:
        self.client.wait_until(lambda: self.client.get(f"/projects/{self.project}/schema").status == 200, WAIT_SECONDS)

    @property
    def path(self) -> str:
        return f"/projects/{quote(self.project)}/predict"

    def manifest(self) -> dict[str, Any]:
        """Return the champion's manifest."""
        manifest: dict[str, Any] = json.loads(self.podium("models", "show", self.project))
        return manifest

    def predict(self, record: object) -> dict[str, Any]:
        """Post a record as JSON and return its prediction."""
        response = self.client.post_json(self.path, record)
        if response.status != 200:
            raise AssertionError(f"{response.status}: {response.text[:500]}")
        prediction: dict[str, Any] = response.json()["predictions"][0]
        return prediction

    def latency(self, record: object) -> float:
        """Return the median latency in milliseconds of sending the JSON record repeatedly over one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.cloud.service_port)
        body, times = json.dumps(record).encode(), []
        for _ in range(TIMED_REQUESTS):
            started = time.perf_counter()
            connection.request("POST", self.path, body, {"content-type": "application/json"})
            connection.getresponse().read()
            times.append((time.perf_counter() - started) * 1000)
        connection.close()
        return statistics.median(times)

    def check_formats_agree(self, rows: Rows) -> None:
        """Check that CSV, JSON, forms, single rows and Dask give identical inputs and predictions; needs more than ten rows."""
        schema = self.client.get(f"/projects/{self.project}/schema").json()
        records = [as_json(row, schema) for row in rows]
        results = [
            self._predictions("application/json", json.dumps(records).encode()),  # with Dask
            self._predictions("text/csv", to_csv(rows)),
            [
                prediction
                for record in records
                for prediction in self._predictions("application/json", json.dumps(record).encode())
            ],
            [prediction for row in rows for prediction in self._predictions("text/csv", to_csv([row]))],
            [prediction for row in rows for prediction in self._form_predictions(row)],
        ]
        agree = all(result == results[0] for result in results)
        self.check(agree, f"{len(rows)} rows as JSON, CSV and forms, singly and with Dask: identical inputs and predictions")

    def _predictions(self, media_type: str, body: bytes) -> list[Any]:
        headers = {"content-type": media_type, "accept": "application/json"}
        response = self.client.post(f"{self.path}?inputs=true", body, headers)
        predictions: list[Any] = response.json().get("predictions") or [response.text]
        return predictions

    def _form_predictions(self, row: Mapping[str, str]) -> list[Any]:
        body = "&".join(f"{quote(name)}={quote(value)}" for name, value in row.items())
        return self._predictions("application/x-www-form-urlencoded", body.encode())

    def record_summary(self, data: str, record: object) -> None:
        """Record the data, champion, score and latency of the project."""
        manifest = self.manifest()
        best = next(row for row in manifest["leaderboard"] if row["model"] == manifest["champion"])
        score = f"{best['eval_metric']} {best['score_test']:.4g} ({best['ci_low']:.4g} … {best['ci_high']:.4g})"
        self.figure("data", data)
        self.figure("champion", manifest["champion"])
        self.figure("score", score)
        self.figure("milliseconds_of_one_record", self.latency(record))


def as_json(row: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row of strings to a JSON record: numbers as numbers, blanks as null, other strings unchanged."""
    record: dict[str, Any] = {}
    for name, text in row.items():
        types = schema["properties"][name]["type"]
        types = [types] if isinstance(types, str) else types
        if not text.strip():
            record[name] = None
        elif "string" not in types:
            record[name] = text.lower() == "true" if "boolean" in types else json.loads(text)
        else:
            record[name] = text
    return record


def to_csv(rows: Rows) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


@contextmanager
def acceptance_environment(project: str, folder: Path | None, report: CheckReport) -> Iterator[AcceptanceEnvironment]:
    """Start a local cloud for one project, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="podium-accept-") as temporary:
        output = folder / project if folder else Path(temporary)
        with LocalCloud(output, free_ports(1)[0]) as cloud:
            environment = AcceptanceEnvironment(project, cloud, output, report)
            try:
                yield environment
            finally:
                environment.stop()


def project_names(folder: Path) -> list[str]:
    """Return the projects that have an acceptance run."""
    return sorted(path.parent.name for path in folder.glob("*/accept.py"))


def run_acceptance(names: Sequence[str], folder: Path | None, as_json: bool) -> int:
    """Run the acceptance checks of the projects and print the results; return 0 if all checks passed."""
    sys.path.insert(0, str(ROOT))
    reports = {}
    for name in names:
        report = reports[name] = CheckReport()
        click.echo(f"— {name}", err=True)
        started = time.perf_counter()
        with acceptance_environment(name, folder, report) as environment:
            importlib.import_module(f"projects.{name}.accept").accept(environment)
        report.figure("seconds", time.perf_counter() - started)
        if not as_json:
            report.print_summary(False)
    failed = sum(report.failed for report in reports.values())
    if as_json:
        click.echo(json.dumps({name: report.as_dict() for name, report in reports.items()}, indent=1))
    elif len(names) > 1:
        click.echo(f"{count(len(names), 'project')}, {count(failed, 'failed check')}")
    return 1 if failed else 0

"""`podium smoke`: run the whole system headless and check what its clients see."""

from __future__ import annotations

import csv
import io
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path

import pandas as pd

from podium.local import LocalCloud
from podium.local.check_report import CheckReport
from podium.local.demo import KEY, PROJECT
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.request_load import RequestLoad
from podium.local.services import breast_cancer, promotion_context, put_table, run_pipeline, start_service
from podium.registry.audit_entry import AuditEntry
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext, promote, rollback, utc_now
from podium.registry.versions import publish, read_manifest, version_prefix
from podium.storage.datasets import split_url
from podium.storage.object_store import NotFound

PREDICT = f"/projects/{PROJECT}/predict"
PAGES = ("/", f"/projects/{PROJECT}", "/docs", "/livez", "/readyz", "/status")
RESOURCES = ("leaderboard.csv", "schema", "versions", "report")
MAX_SWAP_SECONDS = 30
POLL_SECONDS = 3
REPEATS = 10
BUDGET = ("--budget", "15s")
INPUT_URL, OUTPUT_URL = (f"s3://podium/drop/{PROJECT}{suffix}.csv" for suffix in ("", "-predictions"))


def run_smoke(folder: Path | None, as_json: bool) -> int:
    """Run all checks and print the results; return 0 if all passed."""
    report = CheckReport()
    with ExitStack() as stack:
        output = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podium-smoke-")))
        port = free_ports(1)[0]
        started = time.perf_counter()
        cloud = stack.enter_context(LocalCloud(output, port))
        report.figure("s3_and_lambda_up_seconds", time.perf_counter() - started)
        frame = breast_cancer()
        put_table(cloud, KEY, frame)
        report.figure("pipeline_seconds", run_pipeline(cloud.environment, PROJECT, "Pipeline", *BUDGET, quiet=True))
        report.figure("pipeline_again_seconds", run_pipeline(cloud.environment, PROJECT, "Pipeline", *BUDGET, quiet=True))
        started = time.perf_counter()
        service = start_service({**cloud.environment, "PODIUM_POLL_SECONDS": str(POLL_SECONDS)}, port, output)
        stack.callback(service.stop)
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, MAX_SWAP_SECONDS)
        report.figure("service_ready_seconds", time.perf_counter() - started)
        SmokeRun(report, client, cloud, promotion_context(cloud), frame).check_all()
    report.print_summary(as_json)
    return 1 if report.failed else 0


@dataclass(frozen=True, slots=True)
class SmokeRun:
    """The checks of a running service with one champion, trained on `frame`."""

    report: CheckReport
    client: Client
    cloud: LocalCloud
    context: PromotionContext
    frame: pd.DataFrame

    def check_all(self) -> None:
        self._check_predictions()
        self._check_tables()
        self._check_paths()
        self._check_invalid_requests()
        self._check_event_swap()
        self._check_repeated_swaps()
        self._check_inbox()
        self._check_poll_swap()

    def _record(self, number: int = 0) -> dict[str, float]:
        """Return a synthetic record with a quantile of each column of the table."""
        quantiles = self.frame.drop(columns="diagnosis").quantile(0.3 + 0.02 * (number % 20))
        return {name: float(value) for name, value in quantiles.items()}

    def _check_predictions(self) -> None:
        client, check, record = self.client, self.report.check, self._record()
        response = client.post_json(PREDICT, record)
        version, expected = response.json()["version"], response.json()["predictions"][0]
        label = expected["prediction"]
        check(response.status == 200 and label in ("benign", "malignant"), f"one record as JSON: {label}")
        header = response.headers["x-model-version"]
        check(header == version, f"the response names its version: {header}")
        check(client.post_json("/predict", record).json()["predictions"][0] == expected, "the default project at /predict")
        array = client.post_json(PREDICT, list(record.values())).json()["predictions"][0]
        check(array == expected, "an array of values in training order")
        self._check_dask()
        models = client.post_json(PREDICT + "?models=all", record).json()["predictions"][0]["models"]
        check(len(models) >= 3, f"predictions of all models: {', '.join(models)}")
        form = client.post_form(PREDICT, {name: str(value) for name, value in record.items()})
        check(form.status == 200 and b"Download as CSV" in form.body, "a form returns a page")

    def _check_dask(self) -> None:
        client, check = self.client, self.report.check
        records = [self._record(number) for number in range(25)]
        small = [client.post_json(PREDICT, records[low : low + 10]).json()["predictions"] for low in (0, 10, 20)]
        client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
        large = client.post_json(PREDICT, records).json()["predictions"]
        check(list(chain.from_iterable(small)) == large, "25 records with Dask: same predictions as 10 at a time without Dask")
        dask = client.get("/status").json()["dask"]
        check(dask["batches"] >= 1 and dask["fallbacks"] == 0, f"Dask was used: {dask['workers']} workers")

    def _check_tables(self) -> None:
        client, check = self.client, self.report.check
        table = self.frame.drop(columns="diagnosis").iloc[:200].to_csv(index=False).encode()
        page = client.post_file(f"/projects/{PROJECT}/batch", table)
        link = page.text.split('href="/jobs/')[1].split('"')[0]
        download = list(csv.DictReader(io.StringIO(client.get("/jobs/" + link).text)))
        complete = len(download) == 200 and "lightgbm.prediction" in download[0]
        check(complete, "an uploaded CSV: a page, and a CSV with all models' predictions to download")
        direct = client.post(PREDICT + ".csv", table, {"content-type": "text/csv"})
        labels = [row["prediction"] for row in csv.DictReader(io.StringIO(direct.text))]
        same = labels == [row["prediction"] for row in download]
        check(direct.status == 200 and same, "a posted CSV: the same predictions as CSV")

    def _check_paths(self) -> None:
        client, check = self.client, self.report.check
        for path in (*(f"/projects/{PROJECT}/{name}" for name in RESOURCES), *PAGES):
            check(client.get(path).status == 200, path)
        schema = client.get("/openapi.json").json()["components"]["schemas"][f"record-{PROJECT}"]
        check(list(schema["properties"]) == list(self._record()), "OpenAPI describes the fields of the deployed model")

    def _check_invalid_requests(self) -> None:
        client, check, json_type = self.client, self.report.check, {"content-type": "application/json"}
        response = client.post_json(PREDICT, self._record() | {"mean radius": "secret-text"})
        is_problem = response.headers["content-type"].startswith("application/problem+json")
        check(response.status == 422 and is_problem and b"secret-text" not in response.body, "an invalid cell: 422, not echoed")
        check(client.post(PREDICT, b"{", json_type).status == 400, "malformed JSON: 400")
        check(client.post("/refresh", b"{}", json_type).status == 401, "an unsigned webhook: 401")

    def _load(self) -> RequestLoad:
        return RequestLoad(self.client, PREDICT, self._record())

    def _champion(self) -> AuditEntry:
        entry = read_champion(self.context.store, PROJECT, self.context.trust.promoters)
        assert entry is not None and entry.champion
        return entry

    def _check_event_swap(self) -> None:
        """Check that changed data leads to a new version and that the service swaps to it under load."""
        previous = self._champion().version
        put_table(self.cloud, KEY, self.frame.sample(frac=0.9, random_state=1))
        with self._load() as load:
            run_pipeline(self.cloud.environment, PROJECT, "Pipeline", *BUDGET, quiet=True)
            entry = self._champion()
            load.wait_for_version(entry.version, MAX_SWAP_SECONDS)
        self._check_swap(load, entry, previous, "swap by alias write → event → Lambda", "event_to_swap")

    def _check_poll_swap(self) -> None:
        """Check that polling finds a rollback when there are no events."""
        self.cloud.stop_events()
        previous = self._champion().version
        with self._load() as load:
            entry = rollback(self.context, PROJECT, "smoke: poll without events", utc_now)
            load.wait_for_version(entry.version, MAX_SWAP_SECONDS)
        self._check_swap(load, entry, previous, f"swap by polling every {POLL_SECONDS} s", "poll_to_swap")

    def _check_swap(self, load: RequestLoad, entry: AuditEntry, previous: str, title: str, name: str) -> None:
        delay = _swap_seconds(load, entry)
        swapped = delay < MAX_SWAP_SECONDS and entry.version != previous
        self.report.check(swapped, f"{title}: {delay:.3f} s, {previous} → {entry.version}")
        self.report.figure(f"{name}_seconds", delay)
        versions = load.versions()
        changes = sum(before != after for before, after in pairwise(versions))
        self._check_no_failures(load)
        self.report.figure(f"{name}_failed_requests", len(load.failures))
        expected = set(versions) == {previous, entry.version}
        self.report.check(expected, f"only these two versions responded; clients saw {changes} change(s)")

    def _check_no_failures(self, load: RequestLoad) -> None:
        examples = f": {'; '.join(load.failures[:2])}" if load.failures else ""
        text = f"{len(load.responses)} requests during the swap, {len(load.failures)} failed{examples}"
        self.report.check(not load.failures, text)

    def _check_repeated_swaps(self) -> None:
        """Promote copies of the champion one after another; measure the time from alias write to first response."""
        store = self.context.store
        champion = read_manifest(store, PROJECT, self._champion().version, self.context.trust.trainers)[0]
        prefix = version_prefix(PROJECT, champion.version)
        files = {name: store.read(prefix + name).data for name in champion.files}
        delays = []
        with self._load() as load:
            for number in range(REPEATS):
                names = {"version": f"{champion.version[:-8]}{number:08x}", "run": f"{number:032x}"}
                manifest = champion.model_copy(update=names)
                publish(store, manifest, files, self.context.signer)
                entry = promote(self.context, PROJECT, manifest.version, "smoke: repeated swap", utc_now, force=True)
                load.wait_for_version(entry.version, MAX_SWAP_SECONDS)
                delays.append(_swap_seconds(load, entry))
        median = statistics.median(delays)
        self.report.figure("alias_to_answer_median_seconds", median)
        text = f"{REPEATS} new champions: alias write → first response, median {median:.3f} s"
        self.report.check(max(delays) < MAX_SWAP_SECONDS, text)
        self._check_no_failures(load)

    def _check_inbox(self) -> None:
        """Write tables of 1,000 rows to the project's input_url; measure the time from write to receipt."""
        store, s3 = self.context.store, self.cloud.client()
        input_key, output_key = (split_url(url)[1] for url in (INPUT_URL, OUTPUT_URL))
        delays, line_counts = [], set()
        for number in range(REPEATS):
            table = self.frame.drop(columns="diagnosis").sample(1000, replace=True, random_state=number)
            started = time.perf_counter()
            s3.put_object(Bucket=store.bucket, Key=input_key, Body=table.to_csv(index=False).encode())
            self._wait_for_receipt(output_key, store.etag(input_key))
            delays.append(time.perf_counter() - started)
            line_counts.add(len(store.read(output_key).data.splitlines()))
        median = statistics.median(delays)
        self.report.figure("drop_to_predictions_median_seconds", median)
        text = f"{REPEATS} tables of 1,000 rows at input_url: predictions at output_url, median {median:.3f} s"
        self.report.check(line_counts == {1001}, text)

    def _wait_for_receipt(self, output_key: str, etag: str | None) -> None:
        self.client.wait_until(lambda: self._receipt(output_key).get("etag") == etag, MAX_SWAP_SECONDS)

    def _receipt(self, output_key: str) -> dict[str, object]:
        try:
            receipt: dict[str, object] = json.loads(self.context.store.read(f"{output_key}.receipt.json").data)
        except NotFound:
            return {}
        return receipt


def _swap_seconds(load: RequestLoad, entry: AuditEntry) -> float:
    """Return the seconds from a promotion to the first response of its version, or infinity if there is none."""
    first = load.first_response(entry.version)
    return first - datetime.fromisoformat(entry.at).timestamp() if first else float("inf")

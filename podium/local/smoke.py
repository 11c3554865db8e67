"""`podium smoke`: the whole chain headless, called as clients call it; every line says what was seen."""

from __future__ import annotations

import csv
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path

import pandas as pd

from podium.local import LocalCloud
from podium.local.check_report import CheckReport
from podium.local.demo import KEY, PROJECT
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import breast_cancer, promotion_context, put_table, run_pipeline, start_service
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import read_champion
from podium.registry.promotion import PromotionContext, promote, rollback, utc_now
from podium.registry.versions import publish, read_manifest, version_prefix
from podium.storage.datasets import split_url
from podium.storage.object_store import NotFound

PREDICT = f"/projects/{PROJECT}/predict"
SWAP_SECONDS = 30
REPEATS = 20
DROP = f"s3://podium/drop/{PROJECT}"


def run_smoke(folder: Path | None, as_json: bool) -> int:
    """Returns 0 if everything was right."""
    seen = CheckReport()
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podium-smoke-")))
        port = free_ports(1)[0]
        started = time.perf_counter()
        cloud = stack.enter_context(LocalCloud(place, port))
        seen.figure("s3_and_lambda_up_seconds", time.perf_counter() - started)
        frame = breast_cancer()
        put_table(cloud, KEY, frame)
        seen.figure("pipeline_seconds", run_pipeline(cloud.environment, PROJECT, quiet=True))
        seen.figure("pipeline_again_seconds", run_pipeline(cloud.environment, PROJECT, quiet=True))
        started = time.perf_counter()
        service = start_service({**cloud.environment, "PODIUM_POLL_SECONDS": "3"}, port, place)
        stack.callback(service.stop)
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, SWAP_SECONDS)
        seen.figure("service_ready_seconds", time.perf_counter() - started)
        _ways_in(seen, client, frame)
        _bad_input(seen, client, frame)
        context = promotion_context(cloud)
        _new_champion(seen, client, cloud, context, frame)
        _many_champions(seen, client, context, frame)
        _drop_box(seen, context, frame)
        _poll_alone(seen, client, cloud, context, frame)
    seen.say(as_json)
    return 1 if seen.wrong else 0


def _record(frame: pd.DataFrame, row: int = 0) -> dict[str, float]:
    """An input made of the middle of the table, no row of it."""
    return {name: float(value) for name, value in frame.drop(columns="diagnosis").quantile(0.3 + 0.02 * (row % 20)).items()}


def _ways_in(seen: CheckReport, client: Client, frame: pd.DataFrame) -> None:
    record = _record(frame)
    one = client.post_json(PREDICT, record)
    first = one.json()["predictions"][0]
    seen.check(
        one.status == 200 and first["prediction"] in ("benign", "malignant"), f"one record as JSON: {first['prediction']}"
    )
    seen.check(
        one.headers["x-model-version"] == one.json()["version"],
        f"the answer names its version: {one.headers['x-model-version']}",
    )
    seen.check(client.post_json("/predict", record).json()["predictions"][0] == first, "the default project at /predict")
    seen.check(
        client.post_json(PREDICT, list(record.values())).json()["predictions"][0] == first, "a bare array in training order"
    )
    records = [_record(frame, row) for row in range(25)]
    few = [client.post_json(PREDICT, records[low : low + 10]).json()["predictions"] for low in (0, 10, 20)]
    client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
    many = client.post_json(PREDICT, records).json()["predictions"]
    seen.check(list(chain.from_iterable(few)) == many, "25 records over Dask: the same numbers as 10 at a time in the process")
    dask = client.get("/status").json()["dask"]
    seen.check(dask["batches"] >= 1 and dask["fallbacks"] == 0, f"Dask answered: {dask['workers']} workers")
    every = client.post_json(PREDICT + "?models=all", record).json()["predictions"][0]["models"]
    seen.check(len(every) >= 3, f"all models side by side: {', '.join(every)}")
    form = client.post_form(PREDICT, {name: str(value) for name, value in record.items()})
    seen.check(form.status == 200 and b"Download as CSV" in form.body, "the form gives a page")
    table = frame.drop(columns="diagnosis").iloc[:200].to_csv(index=False).encode()
    page = client.post_file(f"/projects/{PROJECT}/batch", table)
    link = page.text.split('href="/jobs/')[1].split('"')[0]
    download = list(csv.DictReader(io.StringIO(client.get("/jobs/" + link).text)))
    seen.check(
        len(download) == 200 and "lightgbm.prediction" in download[0],
        "a CSV uploaded: a table and a CSV of all models to download",
    )
    direct = client.post(PREDICT + ".csv", table, {"content-type": "text/csv"})
    same = [row["prediction"] for row in csv.DictReader(io.StringIO(direct.text))] == [row["prediction"] for row in download]
    seen.check(direct.status == 200 and same, "a CSV posted: the same predictions as CSV")
    for path in ("leaderboard.csv", "schema", "versions", "report"):
        seen.check(client.get(f"/projects/{PROJECT}/{path}").status == 200, f"/projects/{PROJECT}/{path}")
    described = client.get("/openapi.json").json()["components"]["schemas"][f"record-{PROJECT}"]
    seen.check(list(described["properties"]) == list(record), "OpenAPI shows the live signature's fields")
    for path in ("/", f"/projects/{PROJECT}", "/docs", "/livez", "/readyz", "/status"):
        seen.check(client.get(path).status == 200, path)


def _bad_input(seen: CheckReport, client: Client, frame: pd.DataFrame) -> None:
    record = _record(frame) | {"mean radius": "secret-text"}
    answer = client.post_json(PREDICT, record)
    echoed = b"secret-text" in answer.body
    seen.check(
        answer.status == 422 and not echoed and answer.headers["content-type"].startswith("application/problem+json"),
        "a wrong cell: 422, not echoed",
    )
    seen.check(client.post(PREDICT, b"{", {"content-type": "application/json"}).status == 400, "broken JSON: 400")
    seen.check(client.post("/refresh", b"{}", {"content-type": "application/json"}).status == 401, "an unsigned hint: 401")


class _Load:
    """Clients that ask all the time and note every version and every failure."""

    def __init__(self, client: Client, record: Mapping[str, float], clients: int = 3) -> None:
        self._client, self._record = client, record
        self._over = threading.Event()
        self.answers: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._client.post_json(PREDICT, self._record)
            except OSError as error:
                self.failures.append(str(error))
                continue
            if answer.status != 200 or answer.json()["version"] != answer.headers["x-model-version"]:
                self.failures.append(f"{answer.status}")
            self.answers.append((time.time(), answer.headers.get("x-model-version", "")))
            time.sleep(0.002)

    def until(self, wanted: str, seconds: float) -> float | None:
        """When the load first saw a version; None when it never did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = next((at for at, seen in self.answers if seen == wanted), None)
            if found:
                return found
            time.sleep(0.02)
        return None

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def _champion(context: PromotionContext) -> AuditEntry:
    entry = read_champion(context.store, PROJECT, context.trust.promoters)
    assert entry is not None and entry.champion
    return entry


def _new_champion(seen: CheckReport, client: Client, cloud: LocalCloud, context: PromotionContext, frame: pd.DataFrame) -> None:
    """Changed data makes a new version, and the service swaps to it while it is asked."""
    before = _champion(context).version
    put_table(cloud, KEY, frame.sample(frac=0.9, random_state=1))
    with _Load(client, _record(frame)) as load:
        run_pipeline(cloud.environment, PROJECT, quiet=True)
        entry = _champion(context)
        found = load.until(entry.version, SWAP_SECONDS)
    _report_swap(seen, load, entry, before, found, "put of the alias → event → Lambda → swap", "event_to_swap_seconds")


def _many_champions(seen: CheckReport, client: Client, context: PromotionContext, frame: pd.DataFrame) -> None:
    """New versions one after another, each proved before it serves: from the put of the alias to the first answer."""
    last = read_manifest(context.store, PROJECT, _champion(context).version, context.trust.trainers)[0]
    prefix = version_prefix(PROJECT, last.version)
    files = {name: context.store.read(prefix + name).data for name in last.files}
    delays = []
    with _Load(client, _record(frame)) as load:
        for number in range(REPEATS):
            manifest = last.model_copy(update={"version": f"{last.version[:-8]}{number:08x}", "run": f"{number:032x}"})
            publish(context.store, manifest, files, context.signer)
            entry = promote(context, PROJECT, manifest.version, "smoke: one of many", utc_now, force=True)
            found = load.until(entry.version, SWAP_SECONDS)
            delays.append(found - datetime.fromisoformat(entry.at).timestamp() if found else float("nan"))
    median = statistics.median(delays)
    seen.figure("alias_to_answer_median_seconds", median)
    seen.check(max(delays) < SWAP_SECONDS, f"{REPEATS} new champions: alias → first answer, median {median:.3f} s")
    seen.check(not load.failures, f"{len(load.answers)} requests during them, {len(load.failures)} failed")


def _drop_box(seen: CheckReport, context: PromotionContext, frame: pd.DataFrame) -> None:
    """Tables of 1,000 rows at the project's input_url: from their put to the receipt beside output_url."""
    test, pred = (split_url(url)[1] for url in (f"{DROP}.csv", f"{DROP}-predictions.csv"))
    delays, lines = [], set()
    for number in range(REPEATS):
        table = frame.drop(columns="diagnosis").sample(1000, replace=True, random_state=number)
        started = time.perf_counter()
        context.store.client.put_object(Bucket=context.store.bucket, Key=test, Body=table.to_csv(index=False).encode())
        state = context.store.etag(test)
        Client.wait_until(lambda state=state: _receipt(context, pred).get("etag") == state, SWAP_SECONDS)  # type: ignore[misc]
        delays.append(time.perf_counter() - started)
        lines.add(len(context.store.read(pred).data.splitlines()))
    median = statistics.median(delays)
    seen.figure("drop_to_predictions_median_seconds", median)
    seen.check(
        lines == {1001}, f"{REPEATS} tables of 1,000 rows at input_url: predictions at output_url, median {median:.3f} s"
    )


def _receipt(context: PromotionContext, result: str) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(context.store.read(f"{result}.receipt.json").data)
    except NotFound:
        return {}
    return found


def _poll_alone(seen: CheckReport, client: Client, cloud: LocalCloud, context: PromotionContext, frame: pd.DataFrame) -> None:
    """Without events the poll gets there as well; here by a rollback."""
    cloud.stop_events()
    before = _champion(context).version
    with _Load(client, _record(frame)) as load:
        entry = rollback(context, PROJECT, "smoke: the poll alone", utc_now)
        found = load.until(entry.version, SWAP_SECONDS)
    _report_swap(seen, load, entry, before, found, "a rollback, by the poll alone (every 3 s)", "poll_to_swap_seconds")


def _report_swap(
    seen: CheckReport, load: _Load, entry: AuditEntry, before: str, found: float | None, what: str, name: str
) -> None:
    delay = found - datetime.fromisoformat(entry.at).timestamp() if found else float("nan")
    seen.check(found is not None and entry.version != before, f"{what}: {delay:.3f} s, {before} → {entry.version}")
    seen.figure(name, delay)
    versions = [version for _, version in sorted(load.answers)]
    changes = sum(one != other for one, other in pairwise(versions))
    seen.check(
        not load.failures, f"{len(load.answers)} requests during it, {len(load.failures)} failed {load.failures[:2] or ''}"
    )
    seen.figure(name.replace("_seconds", "_failed_requests"), len(load.failures))
    seen.check(
        set(versions) == {before, entry.version}, f"no other version answered, {changes} change(s) as the clients saw it"
    )

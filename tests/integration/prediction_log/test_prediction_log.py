"""The prediction log of a service with two workers: complete, exactly once, and computed again to the bit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import promotion_context, start_service
from podium.prediction_log.journal import SEGMENT_BYTES, Journal
from podium.prediction_log.labels import read_labels
from podium.prediction_log.transparency_log import TransparencyLog
from podium.prediction_log.verification import PredictionNotFound, Verifier, loader
from podium.project import Project
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.validation import Validator
from podium.storage.object_store import Store, StoreError
from service.active_models import ActiveModels
from service.errors import PredictionLogFull
from service.metrics import Metrics
from service.prediction_log import PredictionLog
from tests import tables
from tests.conftest import publish_champion

pytestmark = pytest.mark.slow

KEY = Signer.new()
CSV = {"content-type": "text/csv"}
MIXED = "/projects/mixed"
OPTIONS: dict[str, Any] = {"families": ["linear", "lightgbm"], "n_trials": 1}


@pytest.fixture(scope="module")
def context(own_cloud: LocalCloud, validator: Validator) -> PromotionContext:
    context = replace(promotion_context(own_cloud), validator=validator)
    mixed = Project(data="s3://podium/none", name="mixed", target="bought", columns=tables.MIXED_COLUMNS, **OPTIONS)
    publish_champion(context, tables.mixed(), mixed)
    private = Project.model_validate(
        {
            "data": "s3://podium/none",
            "name": "private",
            "target": "price",
            **OPTIONS,
            "log": {"exclude": ["area"], "hash": ["rooms"]},
        }
    )
    publish_champion(context, tables.prices(), private)
    return context


@pytest.fixture(scope="module")
def service(own_cloud: LocalCloud, context: PromotionContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    process, client = start(own_cloud, tmp_path_factory.mktemp("service"))
    yield client
    process.stop(30)


def start(cloud: LocalCloud, folder: Path, **variables: str) -> tuple[Process, Client]:
    (port,) = free_ports(1)
    settings = {
        "PODIUM_LOG_KEY": KEY.private,
        "PODIUM_DASK_WORKERS": "0",
        "PODIUM_JOURNAL_SECONDS": "1",
        "PODIUM_POLL_SECONDS": "1",
        "PODIUM_INBOX_POLL_SECONDS": "1",
        "PODIUM_ASYNC_THRESHOLD_BYTES": "10000",
        **variables,
    }
    process = start_service({**cloud.environment, **settings}, port, folder, workers=2)
    client = Client(f"http://127.0.0.1:{port}")
    client.wait_until(lambda: '"ready"' in (text := client.get("/readyz").text) or "cannot be logged" in text, 60)
    return process, client


@pytest.fixture
def verifier(own_cloud: LocalCloud, context: PromotionContext) -> Verifier:
    keys = VerifyingKeys([KEY.public])
    return Verifier(
        context.store, context.trust, TransparencyLog(context.store, keys), loader(context.fetch, context.trust.trainers)
    )


def logged_ids(store: Store, project: str) -> Counter[str]:
    """Count the rows of each prediction id."""
    counts: Counter[str] = Counter()
    for info in store.list_objects(f"predictions/{project}/"):
        if info.key.endswith(".parquet"):
            for entry in pc.value_counts(pq.read_table(io.BytesIO(store.read(info.key).data))["prediction_id"]).to_pylist():
                counts[entry["values"]] += entry["counts"]
    return counts


def wait_for(client: Client, store: Store, project: str, ids: set[str]) -> Counter[str]:
    counts: Counter[str] = Counter()

    def are_logged() -> bool:
        with contextlib.suppress(StoreError):  # the object store has just been started again
            counts.update(logged_ids(store, project) - counts)
        return ids <= counts.keys()

    client.wait_until(are_logged, 60)
    return counts


def test_every_format_is_logged_and_computed_again_to_the_bit(service: Client, verifier: Verifier) -> None:
    frame = tables.mixed(150, seed=7).drop(columns="bought")
    table = frame.to_csv(index=False).encode()
    wrong = (
        table.split(b"\n")[0] + b"\n40000,3,Bonn,true,2022-01-01,0.5\nx,3,Bonn,true,2022-01-01,0.5\n1,1,Bonn,true,2022-01-01,\n"
    )
    cells = {name: str(cell).lower() if cell is True else cell for name, cell in tables.RECORD.items()}
    tensors = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES" if isinstance(cell, str) else "FP64", "data": [cell]}
        for name, cell in tables.RECORD.items()
    ]
    odd_record = {**tables.RECORD, "score": None, "city": "Nowhere", "visits": 7.0}
    answers = {
        "record": (service.post_json(f"{MIXED}/predict", tables.RECORD), 1),
        "missing and unknown": (service.post_json(f"{MIXED}/predict", odd_record), 1),
        "all models": (service.post_json(f"{MIXED}/predict?models=all", [tables.RECORD, odd_record]), 2),
        "one model": (service.post_json(f"{MIXED}/predict?models=linear", tables.RECORD), 1),
        "text": (service.post(f"{MIXED}/predict", table, CSV), 150),
        "some rows are invalid": (service.post(f"{MIXED}/predict?on_error=row", wrong, CSV), 2),
        "form": (service.post_form(f"{MIXED}/predict", {name: str(cell) for name, cell in cells.items()}), 1),
        "upload": (service.post_file(f"{MIXED}/predict", table), 150),
        "mlflow": (service.post_json("/invocations?project=mixed", {"dataframe_records": [tables.RECORD] * 3}), 3),
        "tensors": (service.post_json("/v2/models/mixed/infer", {"inputs": tensors}), 1),
        "query": (service.get(f"{MIXED}/predict?" + "&".join(f"{name}={cell}" for name, cell in cells.items())), 1),
    }
    assert {name: answer.status for name, (answer, _) in answers.items()} == dict.fromkeys(answers, 200)
    ids = {name: answer.headers["x-prediction-id"] for name, (answer, _) in answers.items()}
    counts = wait_for(service, verifier.store, "mixed", set(ids.values()))
    assert {name: counts[ids[name]] for name in ids} == {name: rows for name, (_, rows) in answers.items()}
    service.wait_until(lambda: verifier.verify(ids["query"]).ok, 20)  # the log is appended to after the objects
    for name in ids:
        result = verifier.verify(ids[name])
        assert result.verdict == "MATCH", (name, result.stages)
        assert len(result.stages) == 4
    numbers = [row["row"] for row in verifier.verify(ids["some rows are invalid"]).predictions]
    assert numbers == [1, 3]
    answered = answers["all models"][0].json()["predictions"][1]
    logged = verifier.verify(ids["all models"]).predictions[1]
    assert logged["prediction"] == answered["prediction"]
    assert logged["scores"]["linear"] == list(answered["models"]["linear"]["probabilities"].values())
    assert logged["inputs"]["score"] is None and logged["inputs"]["city"] == "Nowhere"
    day = verifier.verify_day("mixed", logged["at"][:10])
    assert (day.problems, day.matches) == ([], day.rows)
    assert day.rows >= sum(rows for _, rows in answers.values())


def test_the_rows_of_files_are_logged(service: Client, verifier: Verifier) -> None:
    store, table = verifier.store, tables.mixed(300, seed=8).drop(columns="bought").to_csv(index=False).encode()
    job = service.post(f"{MIXED}/batch", table, CSV)
    assert job.status == 202, job.text
    assert "x-prediction-id" not in job.headers
    location = job.headers["location"]
    service.wait_until(lambda: service.get(location).json()["state"] == "done", 30)
    store.create("inbox/mixed/new.csv", table)
    service.wait_until(lambda: store.exists("outbox/mixed/new.csv.receipt.json"), 30)
    receipt = json.loads(store.read("outbox/mixed/new.csv.receipt.json").data)
    for logged, caller in (
        (service.get(location).json()["logged"], ""),
        (receipt["logged"], "s3://podium/inbox/mixed/new.csv"),
    ):
        assert [(each["first_row"], each["last_row"]) for each in logged] == [(1, 300)]
        prediction_id = logged[0]["prediction_id"]
        service.wait_until(lambda id_=prediction_id: _is_verified(verifier, id_), 30)
        rows = verifier.verify(prediction_id).predictions
        assert len(rows) == 300 and rows[-1]["row"] == 300 and rows[0]["caller"] == caller
        assert rows[0]["request_sha256"] == hashlib.sha256(table).hexdigest()


def _is_verified(verifier: Verifier, prediction_id: str) -> bool:
    try:
        return verifier.verify(prediction_id).ok
    except PredictionNotFound:
        return False


def test_labels_are_stored_and_refused_if_they_are_not_valid(service: Client, verifier: Verifier) -> None:
    store, prediction_id = verifier.store, service.post_json(f"{MIXED}/predict", tables.RECORD).json()["prediction_id"]
    path = f"/predictions/{prediction_id}/label"
    service.wait_until(lambda: service.post_json(path, {"label": "YES"}).status == 202, 30)
    assert service.post_json(path, {"label": "maybe"}).json()["errors"][0]["expected"] == "no, yes"
    assert service.post_json(path, {"label": "yes", "row": 2}).json()["code"] == "unknown-prediction"
    assert service.post_json("/predictions/20260101aaaaaaaaaaaa-0/label", {"label": "yes"}).status == 404
    table = f"prediction_id,bought\n{prediction_id},no\n".encode()
    assert service.post(f"{MIXED}/labels", table, CSV).json() == {
        "project": "mixed",
        "labels": 1,
        "unlabelled": 0,
    }
    assert service.post(f"{MIXED}/labels", b"id,label\n1,2\n", CSV).json()["code"] == "missing-field"
    store.create("inbox/mixed/labels.csv", table)
    service.wait_until(lambda: store.exists("outbox/mixed/labels.csv.receipt.json"), 30)
    assert json.loads(store.read("outbox/mixed/labels.csv.receipt.json").data)["labels"] == 1
    today = datetime.now(UTC).date().isoformat()
    service.wait_until(lambda: len(labels := read_labels(store, "mixed", today)) == 1 and labels["label"].item() == "no", 30)
    service.wait_until(lambda: "labels" in {json.loads(entry)["kind"] for entry in verifier.log.check_all()[1]}, 30)


def test_a_page_and_an_endpoint_show_a_prediction(service: Client, verifier: Verifier) -> None:
    prediction_id = service.post_json(f"{MIXED}/predict", tables.RECORD).json()["prediction_id"]
    path = f"/predictions/{prediction_id}"
    service.wait_until(lambda: service.get(path).status == 200 and service.get(path).json()["verdict"] == "MATCH", 30)
    assert service.get(path).json() == json.loads(json.dumps(verifier.verify(prediction_id).as_json()))
    page = service.request("GET", path, headers={"accept": "text/html"})
    assert "the same to the bit" in page.text and "Bonn" in page.text
    assert service.get("/predictions/20260101aaaaaaaaaaaa-0").json()["code"] == "unknown-prediction"
    assert service.get("/predictions/x").status == 404


def test_private_inputs_are_not_logged(service: Client, verifier: Verifier) -> None:
    prediction_id = service.post_json("/projects/private/predict", {"area": 80.5, "rooms": 3}).json()["prediction_id"]
    wait_for(service, verifier.store, "private", {prediction_id})
    service.wait_until(lambda: len(verifier.verify(prediction_id).stages) == 4, 20)
    result = verifier.verify(prediction_id)
    (row,) = result.predictions
    assert list(row["inputs"]) == ["rooms"] and len(row["inputs"]["rooms"]) == 64
    assert result.verdict == "DIFFERS: computed again from the logged inputs"
    assert "excluded" in result.stages[-1].detail


def test_what_was_changed_is_named(service: Client, verifier: Verifier) -> None:
    store = verifier.store
    answers = [service.post_json(f"{MIXED}/predict", tables.RECORD).json()["prediction_id"] for _ in range(2)]
    wait_for(service, store, "mixed", set(answers))
    service.wait_until(lambda: all(verifier.verify(each).ok for each in answers), 20)
    key, data, _ = verifier.find(answers[0], "mixed")
    day = key.split("dt=")[1][:10]
    table = pq.read_table(io.BytesIO(data))
    changed = io.BytesIO()
    pq.write_table(table.set_column(table.schema.get_field_index("caller"), "caller", pc.utf8_upper(table["version"])), changed)
    try:
        store.client.put_object(Bucket=store.bucket, Key=key, Body=changed.getvalue())
        assert verifier.verify(answers[0]).verdict == "DIFFERS: included in the signed log"
        assert any("not the object that was logged" in problem for problem in verifier.verify_day("mixed", day).problems)
        store.delete(key)
        with pytest.raises(PredictionNotFound):
            verifier.verify(answers[0])
        assert any("is missing" in problem for problem in verifier.verify_day("mixed", day).problems)
        store.client.put_object(Bucket=store.bucket, Key=key.replace(".parquet", "0.parquet"), Body=data)
        assert any("not in the log" in problem for problem in verifier.verify_day("mixed", day).problems)
    finally:
        store.delete(key.replace(".parquet", "0.parquet"))
        store.client.put_object(Bucket=store.bucket, Key=key, Body=data)
    assert verifier.verify_day("mixed", day).problems == []


def test_kills_of_workers_and_an_outage_lose_nothing_and_repeat_nothing(
    own_cloud: LocalCloud, service: Client, verifier: Verifier
) -> None:
    seen, broken = list[str](), Counter[str]()
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            try:
                answer = service.post_json(f"{MIXED}/predict", tables.RECORD)
            except OSError:
                broken["connection"] += 1
                continue
            if answer.status == 200:
                seen.append(answer.json()["prediction_id"])
            else:
                broken[answer.status] += 1

    before = logged_ids(verifier.store, "mixed").keys()
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(2)
            os.kill(service.get("/status").json()["workers"][0]["pid"], signal.SIGKILL)
        own_cloud.stop()
        time.sleep(3)
        os.kill(service.get("/status").json()["workers"][0]["pid"], signal.SIGKILL)
        time.sleep(3)
    finally:
        own_cloud.start()
        stopped.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 500
    counts = wait_for(service, verifier.store, "mixed", set(seen))
    new = {prediction_id: count for prediction_id, count in counts.items() if prediction_id not in before}
    assert set(new.values()) == {1}
    assert len(new.keys() - set(seen)) <= broken["connection"]  # logged, but the worker was killed before it answered
    service.wait_until(lambda: verifier.verify_day("mixed", _day(seen[-1])).problems == [], 60)


def _day(prediction_id: str) -> str:
    return f"{prediction_id[:4]}-{prediction_id[4:6]}-{prediction_id[6:8]}"


@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("answer", 200)])
def test_a_full_journal_refuses_or_answers_as_configured_and_reports_it(
    own_cloud: LocalCloud, context: PromotionContext, tmp_path: Path, choice: str, status: int
) -> None:
    process, client = start(own_cloud, tmp_path, PODIUM_JOURNAL_BYTES="1000", PODIUM_JOURNAL_WHEN_FULL=choice)
    try:
        answer = client.post_json(f"{MIXED}/predict", tables.RECORD)
        assert answer.status == status
        if status == 503:
            assert answer.json()["code"] == "prediction-log-full" and answer.headers["retry-after"]
        result = "refused" if choice == "refuse" else "not logged"
        line = f'prediction_log_requests_total{{result="{result}"}} 1.0'
        client.wait_until(lambda: line in client.get("/metrics").text, 10)
        log = client.get("/status.json").json()["prediction_log"]
        assert (log["state"], "wait to be written" in log["error"]) == ("full", True)
        assert client.get("/readyz").status == status
    finally:
        process.stop(30)


def test_a_full_journal_recovers_without_a_restart_when_there_is_space(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SEGMENT_BYTES)
    predictions = PredictionLog(journal, Metrics(ActiveModels()), refuses_when_full=True)
    other = tmp_path / "waiting"
    other.write_bytes(b"x")
    with pytest.raises(PredictionLogFull):
        predictions.record_labels("p", "ann", b"", pa.table({"a": [1]}))
    predictions.flush()
    assert predictions.full and predictions.refuses
    other.unlink()
    predictions.flush()
    assert not predictions.refuses
    predictions.record_labels("p", "ann", b"", pa.table({"a": [1]}))


def test_what_a_service_has_answered_is_shipped_when_it_stops(
    own_cloud: LocalCloud, context: PromotionContext, tmp_path: Path
) -> None:
    process, client = start(own_cloud, tmp_path, PODIUM_JOURNAL_SECONDS="600")
    ids = {client.post_json(f"{MIXED}/predict", tables.RECORD).json()["prediction_id"] for _ in range(20)}
    assert json.loads(client.get("/status.json").body)["prediction_log"]["waiting_bytes"] > 0
    process.stop(30)
    assert ids <= logged_ids(context.store, "mixed").keys()

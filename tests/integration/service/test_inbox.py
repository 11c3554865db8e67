"""Each version of an inbox file is processed exactly once, whatever happens to events and processes."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from podium.inference.champion import load_champion
from podium.inference.inbox import InboxFile, ObjectRef, ProcessingOptions, inbox_files, process_file
from podium.inference.served_model import ServedModel, scores_here
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service
from podium.project import InboxOptions, Project
from podium.registry.promotion import PromotionContext
from podium.registry.validation import Validator
from podium.settings import ROOT
from podium.storage.object_store import NotFound, Store
from tests import tables
from tests.conftest import Put, publish_champion

ROWS = b"area,rooms\n50.5,3\n120,4\n"
MAX_BYTES = 100_000
LINEAR: dict[str, Any] = {"target": "price", "n_trials": 1, "families": ("linear",)}


@pytest.fixture
def served(context: PromotionContext) -> ServedModel:
    publish_champion(context, tables.prices(), Project(name="prices", data="s3://podium/none", **LINEAR))
    return load_champion(replace(context, validator=Validator()), "prices")


def options(store: Store, score: Callable[[ServedModel, str, pd.DataFrame], Any] = scores_here) -> ProcessingOptions:
    return ProcessingOptions(score, MAX_BYTES, lambda: datetime.now(UTC), store, lambda *_: "id")


def put(store: Store, key: str, data: bytes) -> None:
    if store.exists(key):
        store.replace(key, data, store.etag(key))
    else:
        store.create(key, data)


def list_files(store: Store, served: ServedModel) -> list[InboxFile]:
    return list(inbox_files(store, served.manifest, lambda _: store))


def read(store: Store, key: str) -> Any:
    return json.loads(store.read(key).data)


def test_each_version_of_a_file_is_processed_once(store: Store, served: ServedModel) -> None:
    put(store, "inbox/prices/day 1/ä.csv", ROWS)
    put(store, "outbox/prices/loop.csv", ROWS)
    put(store, "inbox/prices/folder/", b"")
    put(store, "inbox/other/x.csv", ROWS)
    (file,) = list_files(store, served)
    with ThreadPoolExecutor(5) as pool:
        receipts = list(pool.map(lambda _: process_file(file, served, options(store)), range(5)))
    done = [receipt for receipt in receipts if receipt]
    assert len(done) == 1
    result = store.read("outbox/prices/day 1/ä.csv")
    assert len(result.data.splitlines()) == 3
    assert done[0] == read(store, "outbox/prices/day 1/ä.csv.receipt.json")
    assert (done[0]["rows"], done[0]["version"]) == (2, served.version)
    assert done[0]["logged"] == [{"prediction_id": "id", "first_row": 1, "last_row": 2}]
    assert process_file(file, served, options(store)) is None
    assert store.etag("outbox/prices/day 1/ä.csv") == result.etag
    put(store, "inbox/prices/day 1/ä.csv", ROWS + b"70,2\n")
    receipt = process_file(file, served, options(store))
    assert receipt is not None
    assert receipt["rows"] == 3


def test_an_overwritten_input_is_kept_with_its_result_and_receipt(store: Store, served: ServedModel) -> None:
    inputs = [ROWS, ROWS + b"70,2\n", b"area,rooms\nmuch,4\n"]
    receipts = []
    for data in inputs:
        put(store, "inbox/prices/x.csv", data)
        (file,) = list_files(store, served)
        receipts.append(process_file(file, served, options(store)))
    folder = f"predictions/prices/dt={datetime.now(UTC):%Y-%m-%d}/{served.version}/"
    kept = {info.key: store.read(info.key).data for info in store.list_objects(folder)}
    assert sorted(data for key, data in kept.items() if key.endswith(".input")) == sorted(inputs)
    assert len([key for key in kept if key.endswith(".csv")]) == 2
    assert sum(json.loads(data) in receipts for key, data in kept.items() if key.endswith(".receipt.json")) == 3
    assert all(hashlib.sha256(data).hexdigest() == key.removeprefix(folder).partition(".")[0] for key, data in kept.items())
    for data, receipt in zip(inputs, receipts, strict=True):
        assert receipt is not None
        assert kept[receipt["input"].partition(f"{store.bucket}/")[2]] == data


INVALID = [
    (b"area,rooms\n50.5,3\nmuch,4\n", "invalid-type", [2]),
    (b"", "empty-input", [None]),
    (b"PK\x03\x04", "unsupported-media-type", [None]),
    (b"area,rooms\n" + b"50.5,3\n" * MAX_BYTES, "too-large", [None]),
    (b"PAR1" + b"\x00" * 100 + b"PAR1", "parquet-malformed", [None]),
]


@pytest.mark.parametrize(("data", "code", "rows"), INVALID, ids=[code for _, code, _ in INVALID])
def test_an_invalid_file_gets_an_error_report_and_can_be_fixed(
    store: Store, served: ServedModel, data: bytes, code: str, rows: list[int | None]
) -> None:
    put(store, "inbox/prices/x.csv", data)
    (file,) = list_files(store, served)
    process_file(file, served, options(store))
    assert process_file(file, served, options(store)) is None
    report = read(store, "outbox/prices/x.csv.error.json")
    assert (report["code"], [error.get("row") for error in report["errors"]]) == (code, rows)
    assert not store.exists("outbox/prices/x.csv")
    put(store, "inbox/prices/x.csv", ROWS)
    process_file(file, served, options(store))
    assert store.exists("outbox/prices/x.csv")
    assert read(store, "outbox/prices/x.csv.error.json")["state"] == "resolved"


def test_a_file_overwritten_during_processing_is_processed_again(store: Store, served: ServedModel) -> None:
    """The first result is complete; the next scan processes the new version."""
    put(store, "inbox/prices/x.csv", ROWS)
    (file,) = list_files(store, served)

    def score_and_overwrite(model: ServedModel, family: str, frame: pd.DataFrame) -> Any:
        put(store, "inbox/prices/x.csv", ROWS + b"70,2\n")
        return scores_here(model, family, frame)

    first = process_file(file, served, options(store, score_and_overwrite))
    assert first is not None
    assert first["rows"] == 2
    second = process_file(file, served, options(store))
    assert second is not None
    assert second["rows"] == 3
    assert first["etag"] != second["etag"]


def test_a_decompression_bomb_is_rejected(store: Store, served: ServedModel) -> None:
    put(store, "inbox/prices/x.csv.gz", gzip.compress(b"area,rooms\n" + b"50.5,3\n" * 30 * MAX_BYTES))
    (file,) = list_files(store, served)
    receipt = process_file(file, served, options(store))
    assert receipt is not None
    assert (receipt["state"], receipt["code"]) == ("error", "too-large")


def test_every_input_has_its_own_result(store: Store, served: ServedModel) -> None:
    names = ("t", "t.csv", "t.csv.gz", "t.csv.csv", "t.table.csv", "t.table.csv.table.csv", ".table.csv", ".csv")
    for name in names:
        put(store, f"inbox/prices/{name}", ROWS)
    keys = [file.result.key for file in list_files(store, served)]
    assert len(set(keys)) == len(names)


@pytest.mark.parametrize("interrupted", ["result", "receipt"])
def test_a_killed_process_leaves_no_partial_result(
    store: Store, served: ServedModel, interrupted: str, monkeypatch: Any
) -> None:
    """The process dies before writing the result or the receipt; the next scan processes the file."""
    put(store, "inbox/prices/x.csv", ROWS)
    (file,) = list_files(store, served)
    put_object = ObjectRef.put

    def put_or_die(ref: ObjectRef, data: bytes, seen: str | None) -> None:
        if ref == getattr(file, interrupted):
            raise KeyboardInterrupt
        put_object(ref, data, seen)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectRef, "put", put_or_die)
        with pytest.raises(KeyboardInterrupt):
            process_file(file, served, options(store))
    assert not store.exists(file.receipt.key)
    receipt = process_file(file, served, options(store))
    assert receipt is not None
    assert store.read(file.result.key).data.count(b"\n") == 3


@pytest.mark.parametrize(
    ("input_url", "output_url"),
    [
        ("s3://b/x", None),
        ("s3://b/x.csv", "s3://b/x.csv"),
        ("s3://b/x", "s3://b/x.csv"),
        ("s3://b/p.csv.receipt.json", "s3://b/p.csv"),
        ("s3://b/x", "s3://b/inbox/p/y"),
        ("s3://b/outbox/x", "s3://b/y"),
        ("s3://b/x", "s3://b/aliases/y"),
    ],
)
def test_an_output_that_would_become_an_input_is_rejected(input_url: str, output_url: str | None) -> None:
    with pytest.raises(ValidationError):
        InboxOptions(input_url=input_url, output_url=output_url)


# --- the service and the task ------------------------------------------------------------------------------------------

INBOX_URLS = {"input_url": "s3://podium/drop/test.csv", "output_url": "s3://podium/drop/predictions.csv"}


@pytest.fixture(scope="module")
def boxed(service: Client, put_champion: Put) -> str:
    manifest = put_champion(tables.prices(), name="boxed", target="price", n_trials=1, families=["linear"], inbox=INBOX_URLS)
    service.wait_until(lambda: "boxed" in [model["project"] for model in service.get("/status").json()["serving"]], 30)
    return manifest.version


def receipt_for(store: Store, result: str, source: str, seconds: float = 20) -> Any:
    """Wait for the receipt of the current version of the source."""
    etag, end = store.etag(source), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            receipt = read(store, f"{result}.receipt.json")
            if receipt["etag"] == etag:
                return receipt
        except NotFound:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"no receipt for {source}")


def test_the_service_processes_a_file_after_its_event(service: Client, boxed: str, cloud_store: Store) -> None:
    """Put → event → Lambda → notification → result, under inbox/ and at the URL in the project file."""
    for source, result in (("inbox/boxed/x.csv", "outbox/boxed/x.csv"), ("drop/test.csv", "drop/predictions.csv")):
        put(cloud_store, source, ROWS)
        receipt = receipt_for(cloud_store, result, source)
        assert (receipt["state"], receipt["version"]) == ("done", boxed)
        same = service.post("/projects/boxed/predict.csv?models=all", ROWS, {"content-type": "text/csv"}).text
        rows = [list(csv.DictReader(io.StringIO(text))) for text in (cloud_store.read(result).data.decode(), same)]
        assert rows[0] == rows[1]
    assert service.get("/status").json()["inbox"]["done"] >= 2


def test_a_file_with_earlier_content_is_processed_again(boxed: str, cloud_store: Store) -> None:
    """The content is A, B and A again; another file before it cannot be processed."""
    put(cloud_store, "inbox/boxed/" + "x" * 245, ROWS)  # the key of its receipt would be too long
    for data in (ROWS, ROWS + b"70,2\n", ROWS):
        put(cloud_store, "inbox/boxed/y.csv", data)
        receipt = receipt_for(cloud_store, "outbox/boxed/y.csv", "inbox/boxed/y.csv")
        assert receipt["rows"] == data.count(b"\n") - 1
    cloud_store.delete("inbox/boxed/" + "x" * 245)


@pytest.fixture
def polling_service(cloud: LocalCloud, boxed: str, tmp_path: Path) -> Iterator[Client]:
    """A service that gets no events and scans the inbox at an interval."""
    (port,) = free_ports(1)
    variables = {"PODIUM_INBOX_POLL_SECONDS": "0.5", "PODIUM_DASK_WORKERS": "0"}
    process = start_service({**cloud.environment, **variables}, port, tmp_path)
    try:
        yield Client(f"http://127.0.0.1:{port}")
    finally:
        process.stop()


def test_a_scan_finds_files_without_events(cloud: LocalCloud, cloud_store: Store, boxed: str, polling_service: Client) -> None:
    cloud.stop_events()
    try:
        put(cloud_store, "inbox/boxed/quiet.csv", ROWS)
        assert receipt_for(cloud_store, "outbox/boxed/quiet.csv", "inbox/boxed/quiet.csv")["rows"] == 2
    finally:
        cloud.start_events()


@pytest.mark.slow
def test_the_daily_task_predicts_once_a_day(cloud: LocalCloud, cloud_store: Store, boxed: str) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        luigi = str(Path(sysconfig.get_path("scripts")) / "luigi")
        command = [luigi, "--module", "luigi_tasks", "PredictBatch", "--project", "boxed", "--local-scheduler", *more]
        variables = {**cloud.environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
        return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    put(cloud_store, "drop/test.csv", ROWS + b"70,2\n")
    first = run("--date", "2026-11-20")
    assert first.returncode == 0, first.stdout + first.stderr
    result = cloud_store.read("predictions/boxed/dt=2026-11-20/predictions.csv")
    assert len(result.data.splitlines()) == 4
    assert run("--date", "2026-11-20").returncode == 0
    assert cloud_store.etag("predictions/boxed/dt=2026-11-20/predictions.csv") == result.etag
    assert receipt_for(cloud_store, "drop/predictions.csv", "drop/test.csv")["rows"] == 3
    repeated = run("--date", "2026-11-20", "--source", "s3://podium/drop/nothing.csv")
    assert repeated.returncode != 0 and "s3://podium/drop/nothing.csv does not exist yet" in repeated.stdout + repeated.stderr
    assert "done before" in run("--date", "2026-11-20").stdout
    put(cloud_store, "bad.csv", b"area,rooms\nmuch,3\n")
    invalid = run("--date", "2026-11-21", "--source", "s3://podium/bad.csv")
    assert invalid.returncode != 0
    assert "invalid-type" in invalid.stdout + invalid.stderr
    assert "bucket elsewhere" in (repeated := run("--source", "s3://elsewhere/x.csv")).stdout + repeated.stderr

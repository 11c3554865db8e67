"""A table put into the bucket is answered once a state, whole or not at all, whatever events and processes do."""

from __future__ import annotations

import csv
import gzip
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

from podium.cli.predict import champion_of
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
MOST = 100_000
LINEAR: dict[str, Any] = {"target": "price", "n_trials": 1, "families": ("linear",)}


@pytest.fixture
def snapshot(context: PromotionContext) -> ServedModel:
    publish_champion(context, tables.prices(), Project(name="prices", data="s3://podium/none", **LINEAR))
    return champion_of(replace(context, validator=Validator()), "prices")


def terms(score: Callable[[ServedModel, str, pd.DataFrame], Any] = scores_here) -> ProcessingOptions:
    return ProcessingOptions(score, MOST, lambda: datetime.now(UTC), lambda: "id")


def put(store: Store, key: str, data: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=data)


def waiting(store: Store, snapshot: ServedModel) -> list[InboxFile]:
    return list(inbox_files(store, snapshot.manifest, lambda _: store))


def read(store: Store, key: str) -> Any:
    return json.loads(store.read(key).data)


def test_a_state_is_answered_once_and_the_next_state_again(store: Store, snapshot: ServedModel) -> None:
    put(store, "inbox/prices/day 1/ä.csv", ROWS)
    put(store, "outbox/prices/loop.csv", ROWS)
    put(store, "inbox/prices/folder/", b"")
    put(store, "inbox/other/x.csv", ROWS)
    (drop,) = waiting(store, snapshot)
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: process_file(drop, snapshot, terms()), range(5)))
    done = [receipt for receipt in found if receipt]
    assert len(done) == 1
    result = store.read("outbox/prices/day 1/ä.csv")
    assert len(result.data.splitlines()) == 3
    assert done[0] == read(store, "outbox/prices/day 1/ä.csv.receipt.json")
    assert (done[0]["rows"], done[0]["version"], done[0]["prediction_id"]) == (2, snapshot.version, "id")
    assert process_file(drop, snapshot, terms()) is None
    assert store.etag("outbox/prices/day 1/ä.csv") == result.etag
    put(store, "inbox/prices/day 1/ä.csv", ROWS + b"70,2\n")
    receipt = process_file(drop, snapshot, terms())
    assert receipt is not None
    assert receipt["rows"] == 3


POISON = [
    (b"area,rooms\n50.5,3\nmuch,4\n", "invalid-type", [2]),
    (b"", "empty-input", [None]),
    (b"PK\x03\x04", "unsupported-media-type", [None]),
    (b"area,rooms\n" + b"50.5,3\n" * MOST, "too-large", [None]),
    (b"PAR1" + b"\x00" * 100 + b"PAR1", "parquet-malformed", [None]),
]


@pytest.mark.parametrize(("data", "code", "rows"), POISON, ids=[code for _, code, _ in POISON])
def test_poison_is_told_beside_and_can_be_mended(
    store: Store, snapshot: ServedModel, data: bytes, code: str, rows: list[int | None]
) -> None:
    put(store, "inbox/prices/x.csv", data)
    (drop,) = waiting(store, snapshot)
    process_file(drop, snapshot, terms())
    assert process_file(drop, snapshot, terms()) is None
    told = read(store, "outbox/prices/x.csv.error.json")
    assert (told["code"], [error.get("row") for error in told["errors"]]) == (code, rows)
    assert not store.exists("outbox/prices/x.csv")
    put(store, "inbox/prices/x.csv", ROWS)
    process_file(drop, snapshot, terms())
    assert store.exists("outbox/prices/x.csv")
    assert read(store, "outbox/prices/x.csv.error.json")["state"] == "resolved"


def test_written_again_while_it_is_answered(store: Store, snapshot: ServedModel) -> None:
    """The answer of the first state is whole and says so; the next look answers the second."""
    put(store, "inbox/prices/x.csv", ROWS)
    (drop,) = waiting(store, snapshot)

    def meanwhile(found: ServedModel, family: str, frame: pd.DataFrame) -> Any:
        put(store, "inbox/prices/x.csv", ROWS + b"70,2\n")
        return scores_here(found, family, frame)

    first = process_file(drop, snapshot, terms(meanwhile))
    assert first is not None
    assert first["rows"] == 2
    second = process_file(drop, snapshot, terms())
    assert second is not None
    assert second["rows"] == 3
    assert first["etag"] != second["etag"]


def test_what_unpacks_to_too_much_is_refused(store: Store, snapshot: ServedModel) -> None:
    put(store, "inbox/prices/x.csv.gz", gzip.compress(b"area,rooms\n" + b"50.5,3\n" * 30 * MOST))
    (drop,) = waiting(store, snapshot)
    receipt = process_file(drop, snapshot, terms())
    assert receipt is not None
    assert (receipt["state"], receipt["code"]) == ("error", "too-large")


def test_no_two_inputs_share_a_result(store: Store, snapshot: ServedModel) -> None:
    names = ("t", "t.csv", "t.csv.gz", "t.csv.csv", "t.table.csv", "t.table.csv.table.csv", ".table.csv", ".csv")
    for name in names:
        put(store, f"inbox/prices/{name}", ROWS)
    places = [drop.result.key for drop in waiting(store, snapshot)]
    assert len(set(places)) == len(names)


@pytest.mark.parametrize("lost", ["result", "receipt"])
def test_who_dies_in_the_middle_leaves_no_half(store: Store, snapshot: ServedModel, lost: str, monkeypatch: Any) -> None:
    """Killed before the result, or between it and the receipt: the next one answers."""
    put(store, "inbox/prices/x.csv", ROWS)
    (drop,) = waiting(store, snapshot)
    whole = ObjectRef.put

    def dies(place: ObjectRef, data: bytes, seen: str | None) -> None:
        if place == getattr(drop, lost):
            raise KeyboardInterrupt
        whole(place, data, seen)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectRef, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            process_file(drop, snapshot, terms())
    assert not store.exists(drop.receipt.key)
    receipt = process_file(drop, snapshot, terms())
    assert receipt is not None
    assert store.read(drop.result.key).data.count(b"\n") == 3


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
def test_no_circle_can_be_configured(input_url: str, output_url: str | None) -> None:
    with pytest.raises(ValidationError):
        InboxOptions(input_url=input_url, output_url=output_url)


# --- the service and the task ------------------------------------------------------------------------------------------

BOX = {"input_url": "s3://podium/drop/test.csv", "output_url": "s3://podium/drop/predictions.csv"}


@pytest.fixture(scope="module")
def boxed(service: Client, put_champion: Put) -> str:
    manifest = put_champion(tables.prices(), name="boxed", target="price", n_trials=1, families=["linear"], inbox=BOX)
    service.wait_until(lambda: "boxed" in [each["project"] for each in service.get("/status").json()["serving"]], 30)
    return manifest.version


def receipt_for(store: Store, result: str, source: str, seconds: float = 20) -> Any:
    """The receipt of the present state of the source, once it is there."""
    state, end = store.etag(source), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = read(store, f"{result}.receipt.json")
            if found["etag"] == state:
                return found
        except NotFound:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"no receipt of {source}")


def test_the_service_answers_what_an_event_announces(service: Client, boxed: str, cloud_store: Store) -> None:
    """Put → event → Lambda → hint → answer, under inbox/ and at the URL that the project names."""
    for source, result in (("inbox/boxed/x.csv", "outbox/boxed/x.csv"), ("drop/test.csv", "drop/predictions.csv")):
        put(cloud_store, source, ROWS)
        found = receipt_for(cloud_store, result, source)
        assert (found["state"], found["version"]) == ("done", boxed)
        same = service.post("/projects/boxed/predict.csv?models=all", ROWS, {"content-type": "text/csv"}).text
        rows = [list(csv.DictReader(io.StringIO(text))) for text in (cloud_store.read(result).data.decode(), same)]
        assert rows[0] == rows[1]
    assert service.get("/status").json()["inbox"]["done"] >= 2


def test_the_same_table_again_after_another_is_answered_again(boxed: str, cloud_store: Store) -> None:
    """A, B, and A again, with an odd file before it that nobody can answer."""
    put(cloud_store, "inbox/boxed/" + "x" * 245, ROWS)  # its receipt's key would be too long
    for data in (ROWS, ROWS + b"70,2\n", ROWS):
        put(cloud_store, "inbox/boxed/y.csv", data)
        found = receipt_for(cloud_store, "outbox/boxed/y.csv", "inbox/boxed/y.csv")
        assert found["rows"] == data.count(b"\n") - 1
    cloud_store.delete("inbox/boxed/" + "x" * 245)


@pytest.fixture
def unhinted(cloud: LocalCloud, boxed: str, tmp_path: Path) -> Iterator[Client]:
    """A service that no event reaches."""
    (port,) = free_ports(1)
    own = {"PODIUM_INBOX_POLL_SECONDS": "0.5", "PODIUM_DASK_WORKERS": "0"}
    process = start_service({**cloud.environment, **own}, port, tmp_path)
    try:
        yield Client(f"http://127.0.0.1:{port}")
    finally:
        process.stop()


def test_a_sweep_finds_what_no_event_announced(cloud: LocalCloud, cloud_store: Store, boxed: str, unhinted: Client) -> None:
    cloud.stop_events()
    try:
        put(cloud_store, "inbox/boxed/quiet.csv", ROWS)
        assert receipt_for(cloud_store, "outbox/boxed/quiet.csv", "inbox/boxed/quiet.csv")["rows"] == 2
    finally:
        cloud.start_events()


def test_the_daily_task_answers_once_a_day(cloud: LocalCloud, cloud_store: Store, boxed: str) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        luigi = str(Path(sysconfig.get_path("scripts")) / "luigi")
        command = [luigi, "--module", "luigi_tasks", "PredictBatch", "--project", "boxed", "--local-scheduler", *more]
        own = {**cloud.environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
        return subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    put(cloud_store, "drop/test.csv", ROWS + b"70,2\n")
    first = run("--date", "2026-11-20")
    assert first.returncode == 0, first.stdout + first.stderr
    result = cloud_store.read("predictions/boxed/dt=2026-11-20/predictions.csv")
    assert len(result.data.splitlines()) == 4
    assert run("--date", "2026-11-20").returncode == 0
    assert cloud_store.etag("predictions/boxed/dt=2026-11-20/predictions.csv") == result.etag
    assert receipt_for(cloud_store, "drop/predictions.csv", "drop/test.csv")["rows"] == 3
    again = run("--date", "2026-11-20", "--source", "s3://podium/drop/nothing.csv")
    assert again.returncode != 0 and "there is no s3://podium/drop/nothing.csv yet" in again.stdout + again.stderr
    assert "done before" in run("--date", "2026-11-20").stdout
    put(cloud_store, "bad.csv", b"area,rooms\nmuch,3\n")
    wrong = run("--date", "2026-11-21", "--source", "s3://podium/bad.csv")
    assert wrong.returncode != 0
    assert "invalid-type" in wrong.stdout + wrong.stderr
    assert "bucket elsewhere" in (again := run("--source", "s3://elsewhere/x.csv")).stdout + again.stderr

"""Daily files to one history, whatever order they come in."""

from __future__ import annotations

import functools
import itertools
import random
import time

import pytest

from podium.project import ColumnOptions, Project, parse_project
from podium.registry.fsck import fsck
from podium.registry.signing import TrustPolicy, VerifyingKeys
from podium.storage import daily_ingest, datasets
from podium.storage.daily_ingest import INGEST_STATE, IngestState
from podium.storage.object_store import NotFound, Store, StoreError
from podium.training.daily_files import daily_rows, parse_fingerprint
from podium.training.tasks import prepare

URL = "s3://any/raw/shop/"
PANEL = {"entity": "shop", "time": "day", "lags": 2}
PROJECT: Project = parse_project({"name": "shop", "data": URL, "target": "sold", "panel": PANEL}, "test")


def file(day: str, *rows: str) -> bytes:
    return "\n".join(["shop,day,sold", *(f"{row.split('=')[0]},{day},{row.split('=')[1]}" for row in rows), ""]).encode()


def put(store: Store, name: str, data: bytes) -> None:
    store._client.put_object(Bucket=store.bucket, Key=f"raw/shop/{name}", Body=data)


def ingest(store: Store, project: Project = PROJECT) -> tuple[datasets.DatasetSnapshot, IngestState]:
    """As the task does it."""
    files = daily_ingest.list_source_files(store, URL)
    snapshot = daily_ingest.ingest_new_files(
        store, URL, files, store, "shop", functools.partial(daily_rows, project=project), parse_fingerprint(project)
    )
    key = datasets.receipt_key("shop", URL, snapshot.etag)
    if not store.exists(key):
        store.create(key, datasets.to_json(snapshot))
    return snapshot, INGEST_STATE.validate_json(store.read(datasets.snapshot_key("shop", snapshot.sha256)).data)


def days(store: Store, history: IngestState, last: str | None = None, most: int = 10**6) -> dict[tuple[str, str], str]:
    """What counts of each shop and day: the last of its rows."""
    table = daily_ingest.read_daily_rows(store, history, last, most, ("shop", "day"))
    return {(row["shop"], row["day"]): row["sold"] for row in table.to_pylist()}


def test_what_is_new_is_added_and_nothing_is_read_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "1.csv", file("2026-01-31", "a=1", "b=2"))
    first, history = ingest(store)
    assert list(history.parts) == ["2026-01"]
    put(store, "2.csv", file("2026-02-01", "a=3", "b=4"))
    read: list[str] = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key, **named: read.append(key) or original(self, key, **named))
    second, later = ingest(store)
    assert [key for key in read if key.startswith("raw/")] == ["raw/shop/2.csv"]
    assert later.parts["2026-01"] == history.parts["2026-01"]
    assert second.sha256 != first.sha256
    assert days(store, later) == {
        ("a", "2026-01-31"): "1", ("b", "2026-01-31"): "2", ("a", "2026-02-01"): "3", ("b", "2026-02-01"): "4"
    }  # fmt: skip


def test_the_same_folder_is_the_same_snapshot(store: Store) -> None:
    put(store, "1.csv", file("2026-01-31", "a=1"))
    assert ingest(store)[0] == ingest(store)[0]


def test_a_late_a_doubled_and_a_corrected_file(store: Store) -> None:
    put(store, "03.csv", file("2026-01-03", "a=3"))
    put(store, "01.csv", file("2026-01-01", "a=1", "b=1"))
    ingest(store)
    put(store, "02-late.csv", file("2026-01-02", "a=2"))
    put(store, "03-again.csv", file("2026-01-03", "a=3"))
    put(store, "01.csv", file("2026-01-01", "a=10"))  # corrected in its place: b is taken back
    _, history = ingest(store)
    assert days(store, history) == {("a", "2026-01-01"): "10", ("a", "2026-01-02"): "2", ("a", "2026-01-03"): "3"}


def test_a_file_that_cannot_be_read_is_left_out_with_its_reason_until_it_is_mended(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    put(store, "2.csv", file("2026-01-02", "a=many"))
    put(store, "3.csv", b"shop,sold\na,1\n")
    _, history = ingest(store)
    assert set(history.refused) == {"raw/shop/2.csv", "raw/shop/3.csv"}
    assert "sold" in history.refused["raw/shop/2.csv"]
    assert len(days(store, history)) == 1
    put(store, "2.csv", file("2026-01-02", "a=2"))
    _, history = ingest(store)
    assert set(history.refused) == {"raw/shop/3.csv"}
    assert days(store, history)["a", "2026-01-02"] == "2"


def test_what_is_gone_from_the_folder_stays_in_the_history(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    put(store, "2.csv", file("2026-01-02", "a=2"))
    ingest(store)
    store.delete("raw/shop/1.csv")
    assert len(days(store, ingest(store)[1])) == 2
    store.delete("raw/shop/2.csv")
    with pytest.raises(NotFound):
        ingest(store)


def test_any_order_of_arrival_gives_one_history(store: Store) -> None:
    """Twelve orders of six files, each collected after every one or at once."""
    names = [f"{day}.csv" for day in range(1, 7)]
    wanted = {("a", f"2026-01-0{day}"): str(day) for day in range(1, 7)}
    luck = random.Random(0)
    for number, together in itertools.product(range(3), (True, False)):
        for key in [*store.keys("raw/"), *store.keys("datasets/")]:
            store.delete(key)
        for name in luck.sample(names, len(names)):
            put(store, name, file(f"2026-01-0{name[0]}", f"a={name[0]}"))
            if not together:
                ingest(store)
        assert days(store, ingest(store)[1]) == wanted, number


def test_only_the_months_that_are_needed_are_read(store: Store) -> None:
    for month in range(1, 7):
        put(store, f"{month}.csv", file(f"2026-{month:02}-15", *(f"s{n}=1" for n in range(10))))
    _, history = ingest(store)
    months = {day[:7] for _, day in days(store, history, most=15)}
    assert months == {"2026-04", "2026-05", "2026-06"}  # 20 rows, and the month before for what comes before
    assert {day[:7] for _, day in days(store, history, last="2026-02")} == {"2026-01", "2026-02"}
    with pytest.raises(StoreError, match="nothing was collected"):
        days(store, history, last="2025-12")


def test_fsck_sees_a_part_that_was_altered(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    _, history = ingest(store)
    trust = TrustPolicy(VerifyingKeys([]), VerifyingKeys([]))
    assert not [line for line in fsck(store, trust) if "datasets/" in line]
    key = history.parts["2026-01"]
    store.replace(key, b"other", store.etag(key))
    assert any(key in line for line in fsck(store, trust))


def test_a_collected_history_can_be_learned_from(store: Store) -> None:
    for day in range(1, 29):
        put(store, f"{day}.csv", file(f"2026-01-{day:02}", f"a={day}", f"b={100 - day}"))
    _, history = ingest(store)
    rows = prepare(
        daily_ingest.read_daily_rows(store, history, None, 1000, ("shop", "day")), PROJECT, until=20_480
    )  # 2026-01-27
    assert len(rows.inputs) == 2 * 26
    assert rows.order is not None and rows.order.max() == 20_480


def test_what_could_not_be_read_is_read_again_when_the_project_says_how(store: Store) -> None:
    put(store, "1.csv", file("01/02/2026", "a=1"))
    with pytest.raises(
        StoreError, match=r"none of the 1 files in .* can be read; raw/shop/1.csv: row 1: \"day\" is not a date"
    ):
        ingest(store)
    put(store, "2.csv", file("2026-01-01", "a=1"))
    _, history = ingest(store)
    assert set(history.refused) == {"raw/shop/1.csv"} and list(history.parts) == ["2026-01"]
    mended = PROJECT.model_copy(update={"columns": {"day": ColumnOptions(date_format="%d/%m/%Y")}})
    _, history = ingest(store, mended)
    assert set(history.refused) == {"raw/shop/2.csv"} and list(history.parts)[-1] == "2026-02"
    wrong = PROJECT.model_copy(update={"panel": PROJECT.panel and PROJECT.panel.model_copy(update={"entity": "store"})})
    with pytest.raises(StoreError, match=r"none of the 2 files .* \"store\" is missing from the table"):
        ingest(store, wrong)


def test_what_came_twice_counts_once_among_the_newest_rows(store: Store) -> None:
    """Files that repeat the days before them must not push older days out."""
    for month in range(1, 5):
        for copy in range(10):
            put(store, f"{month}-{copy}.csv", file(f"2026-{month:02}-15", *(f"s{n}=1" for n in range(10))))
    _, history = ingest(store)
    assert len(days(store, history, most=25)) == 40


def test_the_file_that_was_put_last_counts_even_if_it_is_as_before(store: Store) -> None:
    put(store, "a.csv", file("2026-01-01", "a=1"))
    time.sleep(1.1)  # S3 tells times in seconds
    put(store, "b.csv", file("2026-01-01", "a=2"))
    assert days(store, ingest(store)[1])["a", "2026-01-01"] == "2"
    time.sleep(1.1)
    put(store, "a.csv", file("2026-01-01", "a=1"))
    assert days(store, ingest(store)[1])["a", "2026-01-01"] == "1"

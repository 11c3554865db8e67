"""Daily files give the same rows in any order of arrival."""

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
from podium.storage.daily_ingest import IngestState, Parser
from podium.storage.object_store import NotFound, Store, StoreError
from podium.training.daily_files import daily_rows, parse_fingerprint
from podium.training.project_kinds import prepare

URL = "s3://any/raw/shop/"
PANEL = {"entity": "shop", "time": "day", "lags": 2}
PROJECT: Project = parse_project({"name": "shop", "data": URL, "target": "sold", "panel": PANEL}, "test")


def file(day: str, *rows: str) -> bytes:
    return "\n".join(["shop,day,sold", *(f"{row.split('=')[0]},{day},{row.split('=')[1]}" for row in rows), ""]).encode()


def put(store: Store, name: str, data: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=f"raw/shop/{name}", Body=data)


def ingest(store: Store, project: Project = PROJECT) -> tuple[datasets.DatasetSnapshot, IngestState]:
    """Ingest as the Luigi task does."""
    parser = Parser(functools.partial(daily_rows, project=project), parse_fingerprint(project))
    snapshot = daily_ingest.ingest_new_files(daily_ingest.list_source_files(store, URL), parser, store, "shop")
    key = datasets.receipt_key("shop", URL, snapshot.etag)
    if not store.exists(key):
        store.create(key, snapshot.to_json())
    return snapshot, IngestState.from_json(store.read(datasets.snapshot_key("shop", snapshot.sha256)).data)


def days(store: Store, state: IngestState, last: str | None = None, max_rows: int = 10**6) -> dict[tuple[str, str], str]:
    """Return the value of each shop and day: that of its last row."""
    table = daily_ingest.read_daily_rows(store, state, last, max_rows, ("shop", "day"))
    return {(row["shop"], row["day"]): row["sold"] for row in table.to_pylist()}


def test_only_new_files_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "1.csv", file("2026-01-31", "a=1", "b=2"))
    first, state = ingest(store)
    assert list(state.partitions) == ["2026-01"]
    put(store, "2.csv", file("2026-02-01", "a=3", "b=4"))
    read: list[str] = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key, **named: read.append(key) or original(self, key, **named))
    second, later = ingest(store)
    assert [key for key in read if key.startswith("raw/")] == ["raw/shop/2.csv"]
    assert later.partitions["2026-01"] == state.partitions["2026-01"]
    assert second.sha256 != first.sha256
    assert days(store, later) == {
        ("a", "2026-01-31"): "1", ("b", "2026-01-31"): "2", ("a", "2026-02-01"): "3", ("b", "2026-02-01"): "4"
    }  # fmt: skip


def test_the_same_folder_is_the_same_snapshot(store: Store) -> None:
    put(store, "1.csv", file("2026-01-31", "a=1"))
    assert ingest(store)[0] == ingest(store)[0]


def test_late_repeated_and_corrected_files(store: Store) -> None:
    put(store, "03.csv", file("2026-01-03", "a=3"))
    put(store, "01.csv", file("2026-01-01", "a=1", "b=1"))
    ingest(store)
    put(store, "02-late.csv", file("2026-01-02", "a=2"))
    put(store, "03-again.csv", file("2026-01-03", "a=3"))
    put(store, "01.csv", file("2026-01-01", "a=10"))  # overwritten with a correction that removes b
    _, state = ingest(store)
    assert days(store, state) == {("a", "2026-01-01"): "10", ("a", "2026-01-02"): "2", ("a", "2026-01-03"): "3"}


def test_an_unreadable_file_is_skipped_until_it_is_fixed(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    put(store, "2.csv", file("2026-01-02", "a=many"))
    put(store, "3.csv", b"shop,sold\na,1\n")
    _, state = ingest(store)
    assert set(state.unreadable) == {"raw/shop/2.csv", "raw/shop/3.csv"}
    assert "sold" in state.unreadable["raw/shop/2.csv"]
    assert len(days(store, state)) == 1
    put(store, "2.csv", file("2026-01-02", "a=2"))
    _, state = ingest(store)
    assert set(state.unreadable) == {"raw/shop/3.csv"}
    assert days(store, state)["a", "2026-01-02"] == "2"


def test_a_deleted_file_keeps_its_rows(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    put(store, "2.csv", file("2026-01-02", "a=2"))
    ingest(store)
    store.delete("raw/shop/1.csv")
    assert len(days(store, ingest(store)[1])) == 2
    store.delete("raw/shop/2.csv")
    with pytest.raises(NotFound):
        ingest(store)


def test_the_order_of_arrival_does_not_matter(store: Store) -> None:
    """Random orders of six files, ingested one by one or all at once."""
    names = [f"{day}.csv" for day in range(1, 7)]
    expected = {("a", f"2026-01-0{day}"): str(day) for day in range(1, 7)}
    rng = random.Random(0)
    for number, together in itertools.product(range(3), (True, False)):
        for key in [info.key for prefix in ("raw/", "datasets/") for info in store.list_objects(prefix)]:
            store.delete(key)
        for name in rng.sample(names, len(names)):
            put(store, name, file(f"2026-01-0{name[0]}", f"a={name[0]}"))
            if not together:
                ingest(store)
        assert days(store, ingest(store)[1]) == expected, number


def test_only_the_needed_months_are_read(store: Store) -> None:
    for month in range(1, 7):
        put(store, f"{month}.csv", file(f"2026-{month:02}-15", *(f"s{n}=1" for n in range(10))))
    _, state = ingest(store)
    months = {day[:7] for _, day in days(store, state, max_rows=15)}
    assert months == {"2026-04", "2026-05", "2026-06"}  # 20 rows, plus one month for lags
    assert {day[:7] for _, day in days(store, state, last="2026-02")} == {"2026-01", "2026-02"}
    with pytest.raises(StoreError, match="no data was ingested up to 2025-12"):
        days(store, state, last="2025-12")


def test_fsck_reports_a_changed_partition(store: Store) -> None:
    put(store, "1.csv", file("2026-01-01", "a=1"))
    _, state = ingest(store)
    trust = TrustPolicy(VerifyingKeys([]), VerifyingKeys([]))
    assert not [line for line in fsck(store, trust) if "datasets/" in line]
    key = state.partitions["2026-01"]
    store.replace(key, b"other", store.etag(key))
    assert any(key in line for line in fsck(store, trust))


def test_ingested_rows_can_be_used_for_training(store: Store) -> None:
    for day in range(1, 29):
        put(store, f"{day}.csv", file(f"2026-01-{day:02}", f"a={day}", f"b={100 - day}"))
    _, state = ingest(store)
    rows = prepare(daily_ingest.read_daily_rows(store, state, None, 1000, ("shop", "day")), PROJECT, until=20_480)  # 2026-01-27
    assert len(rows.inputs) == 2 * 26
    assert rows.order is not None and rows.order.max() == 20_480


def test_unreadable_files_are_read_again_with_new_parser_options(store: Store) -> None:
    put(store, "1.csv", file("01/02/2026", "a=1"))
    with pytest.raises(
        StoreError, match=r"none of the 1 files in .* can be read; raw/shop/1.csv: row 1: \"day\" is not a date"
    ):
        ingest(store)
    put(store, "2.csv", file("2026-01-01", "a=1"))
    _, state = ingest(store)
    assert set(state.unreadable) == {"raw/shop/1.csv"} and list(state.partitions) == ["2026-01"]
    fixed = PROJECT.model_copy(update={"columns": {"day": ColumnOptions(date_format="%d/%m/%Y")}})
    _, state = ingest(store, fixed)
    assert not state.unreadable and list(state.partitions)[-1] == "2026-02"  # ISO dates are always read
    wrong = PROJECT.model_copy(update={"panel": PROJECT.panel and PROJECT.panel.model_copy(update={"entity": "store"})})
    with pytest.raises(StoreError, match=r"none of the 2 files .* \"store\" is missing from the table"):
        ingest(store, wrong)


def test_repeated_rows_count_once(store: Store) -> None:
    """Files that repeat earlier days must not displace older days."""
    for month in range(1, 5):
        for copy in range(10):
            put(store, f"{month}-{copy}.csv", file(f"2026-{month:02}-15", *(f"s{n}=1" for n in range(10))))
    _, state = ingest(store)
    assert len(days(store, state, max_rows=25)) == 40


def test_the_last_written_file_counts_even_if_unchanged(store: Store) -> None:
    put(store, "a.csv", file("2026-01-01", "a=1"))
    time.sleep(1.1)  # S3 timestamps have one-second resolution
    put(store, "b.csv", file("2026-01-01", "a=2"))
    assert days(store, ingest(store)[1])["a", "2026-01-01"] == "2"
    time.sleep(1.1)
    put(store, "a.csv", file("2026-01-01", "a=1"))
    assert days(store, ingest(store)[1])["a", "2026-01-01"] == "1"

"""Tables of many files: listed, read one after another, and sampled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.project import parse_project
from podium.registry.fsck import fsck
from podium.registry.signing import TrustPolicy, VerifyingKeys
from podium.schema.data_errors import BadData
from podium.storage import datasets
from podium.storage.datasets import SourceChanged
from podium.storage.object_store import NotFound, Store, StoreError
from podium.storage.table_parts import TableParts, list_parts
from podium.tables.labeled_rows import LabeledRows
from podium.training.project_kinds import kind_of

ROWS = 200


def put(store: Store, name: str, data: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=f"raw/sales/{name}", Body=data)


def frame(part: int) -> pd.DataFrame:
    random = np.random.default_rng(part)
    numbers = np.arange(part * ROWS, (part + 1) * ROWS) / 7
    return pd.DataFrame({"n": numbers, "c": random.choice(["x", "y"], ROWS), "y": random.choice(["no", "yes"], ROWS)})


def parquet(part: int) -> bytes:
    file = io.BytesIO()
    frame(part).to_parquet(file)
    return file.getvalue()


def load(store: Store, parts: TableParts, **options: Any) -> LabeledRows:
    project = parse_project({"name": "sales", "data": parts.url, "target": "y", **options}, "test")
    return kind_of(project).load(parts.to_json(), store, "")


def url(store: Store) -> str:
    return f"s3://{store.bucket}/raw/sales/"


def test_the_rows_of_all_files_are_read_in_order_without_a_copy(store: Store) -> None:
    for part in (0, 1, 2):
        put(store, f"dt=2026-01-0{part + 1}/part-0.parquet", parquet(part))
    put(store, "_SUCCESS", b"")
    put(store, "dt=2026-01-01/.part-0.crc", b"x")
    parts = list_parts(store, url(store))
    assert len(parts.files) == 3 and TableParts.from_json(parts.to_json()) == parts
    snapshot = parts.snapshot(store, "sales")
    assert parts.snapshot(store, "sales") == snapshot
    assert store.read(datasets.snapshot_key("sales", snapshot.sha256)).data == parts.to_json()
    store.create(datasets.receipt_key("sales", parts.url, snapshot.etag), snapshot.to_json())
    keys = VerifyingKeys([])
    assert fsck(store, TrustPolicy(keys, keys)) == []
    rows = load(store, parts)
    assert np.array_equal(rows.inputs["n"], np.concatenate([frame(part)["n"] for part in (0, 1, 2)]))
    assert rows.findings[0].message == "600 rows in 3 files"


def test_of_many_rows_the_same_random_ones_are_used_each_time(store: Store) -> None:
    for part in range(4):
        put(store, f"part-{part}.{'csv' if part else 'CSV'}", frame(part).to_csv(index=False).encode())
    parts = list_parts(store, url(store))
    rows = load(store, parts, cleaning={"max_rows": 150})
    assert "800 rows in 4 files; a random sample of 150 is used" in str(rows.findings[0])
    numbers = rows.inputs["n"].to_numpy()
    assert len(numbers) == 150 and (np.diff(numbers) > 0).all()
    counts = np.bincount((numbers * 7 // ROWS).astype(int))
    assert len(counts) == 4 and counts.min() > 15
    assert np.array_equal(load(store, parts, cleaning={"max_rows": 150}).inputs["n"], numbers)
    assert not np.array_equal(load(store, parts, cleaning={"max_rows": 150}, seed=1).inputs["n"], numbers)


def test_what_is_wrong_with_a_file_is_reported_with_its_name(store: Store) -> None:
    put(store, "a.csv", frame(0).to_csv(index=False).encode())
    for change, message in (
        (frame(1).drop(columns="c"), "b.csv: has no column c"),
        (frame(1).assign(z=1), "b.csv: has the column z"),
    ):
        put(store, "b.csv", change.to_csv(index=False).encode())
        with pytest.raises(BadData, match=message):
            load(store, list_parts(store, url(store)))
    put(store, "b.csv", frame(1).to_csv(index=False, sep=";").encode())
    with pytest.raises(BadData, match=r"b.csv: has another delimiter"):
        load(store, list_parts(store, url(store)))
    put(store, "b.csv", b"n,c,y\n1\n2,x,no\n")
    with pytest.raises(BadData, match=r"b.csv: has 1 cells instead of 3"):
        load(store, list_parts(store, url(store)))


def test_columns_may_have_any_order_and_files_without_rows_are_named(store: Store) -> None:
    empty = io.BytesIO()
    frame(0).head(0).to_parquet(empty)
    put(store, "a/part-0.parquet", empty.getvalue())
    put(store, "a/part-1.csv", frame(0).to_csv(index=False).encode())
    put(store, "b/part-0.csv", b"n,c,y\n")
    put(store, "b/part-1.csv", frame(1)[["y", "c", "n"]].to_csv(index=False).encode())
    put(store, "c.csv", frame(2).replace("x", "größer").to_csv(index=False).encode("windows-1252"))
    rows = load(store, list_parts(store, url(store)))
    assert np.array_equal(rows.inputs["n"], np.concatenate([frame(part)["n"] for part in (0, 1, 2)]))
    assert (rows.signature.reading.encoding, "größer" in set(rows.inputs["c"])) == ("windows-1252", True)
    notes = [finding.message for finding in rows.findings]
    assert "2 files without rows left out: a/part-0.parquet, b/part-0.csv" in notes
    for name in ("a/part-1.csv", "b/part-1.csv", "c.csv"):
        store.delete(f"raw/sales/{name}")
    with pytest.raises(BadData, match="none of the files"):
        load(store, list_parts(store, url(store)))


def test_files_that_change_or_are_no_tables_are_not_read(store: Store) -> None:
    with pytest.raises(NotFound, match="there are no files"):
        list_parts(store, url(store))
    put(store, "a.csv", frame(0).to_csv(index=False).encode())
    parts = list_parts(store, url(store))
    put(store, "a.csv", frame(1).to_csv(index=False).encode())
    with pytest.raises(SourceChanged, match=r"a.csv was changed or deleted"):
        load(store, parts)
    put(store, "notes.docx", b"x")
    with pytest.raises(StoreError, match=r"notes.docx.*end with .csv"):
        list_parts(store, url(store))

"""Journal files become objects and log entries exactly once, whatever fails in between."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from podium.prediction_log.journal import Journal
from podium.prediction_log.shipping import FAILED, Shipper
from podium.prediction_log.transparency_log import TransparencyLog
from podium.prediction_log.verification import promotion_problems
from podium.registry.audit_log import entry_key
from podium.registry.signing import Signer, VerifyingKeys
from podium.schema.columns import Column, Signature, Target
from podium.storage.object_store import Store, StoreError

SIGNATURE = Signature(
    target=Target("y", "binary", ("no", "yes")),
    inputs=(Column("number", "number"), Column("text", "category", categories=("a", "b"))),
    ignored={},
)
VERSION = ("p", "v1", "0" * 64, 3)
ROWS = 7


@pytest.fixture
def shipper(store: Store, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shipper:
    manifest: Any = SimpleNamespace(
        signature=SIGNATURE, families=["linear", "lightgbm"], configuration={"log": {"hash": ["text"]}}
    )
    monkeypatch.setattr(Shipper, "_manifest", lambda *_: manifest)
    store.create(entry_key("p", 3), b"the promotion")
    return Shipper(tmp_path, store, signer, VerifyingKeys([signer.public]))


def journal(folder: Path) -> list[str]:
    log = Journal(folder, 1 << 30)
    ids = [
        log.append(VERSION, "ann", b"request", {"linear": [[0.25, 0.75], [float("nan"), 0.5]]}, [[1.5, "a"], [None, None]])
        for _ in range(ROWS)
    ]
    log.seal()
    return ids


def logged(shipper: Shipper) -> list[dict[str, Any]]:
    """Return the entries of objects with predictions."""
    facts = [json.loads(entry) for entry in shipper.log.check_all()[1]]
    assert [each["key"] for each in facts if each["kind"] == "promotion"] == [entry_key("p", 3)]
    return [each for each in facts if each["kind"] == "predictions"]


def test_rows_and_ids_are_in_one_object_and_one_entry(shipper: Shipper) -> None:
    ids = journal(shipper.folder)
    assert shipper.ship() == 2 * ROWS
    (entry,) = logged(shipper)
    table = pq.read_table(io.BytesIO(shipper.store.read(entry["key"]).data))
    assert table["prediction_id"].to_pylist() == [each for each in ids for _ in range(2)]
    assert table["row"].to_pylist() == [1, 2] * ROWS
    first, second = table["inputs"].to_pylist()[:2]
    assert first["number"] == 1.5 and len(first["text"]) == 32
    assert second == {"number": None, "text": None}
    assert table["scores"][0].as_py() == {"linear": [0.25, 0.75], "lightgbm": None}
    assert table["prediction"][0].as_py() == "yes"
    assert list(shipper.folder.iterdir()) == []


def test_a_history_that_was_put_back_or_changed_is_found(shipper: Shipper) -> None:
    journal(shipper.folder)
    shipper.ship()
    _, entries = shipper.log.check_all()
    assert promotion_problems(shipper.store, entries) == []
    shipper.store.client.put_object(Bucket=shipper.store.bucket, Key=entry_key("p", 3), Body=b"another")
    assert promotion_problems(shipper.store, entries) == ["history/p/00000003.json is not the entry that was logged"]
    shipper.store.delete(entry_key("p", 3))
    assert promotion_problems(shipper.store, entries) == ["history/p/00000003.json is missing"]


def test_a_crash_between_object_and_log_repeats_nothing(shipper: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise StoreError("unavailable")

    journal(shipper.folder)
    with monkeypatch.context() as patch:
        patch.setattr(TransparencyLog, "append", unavailable)
        with pytest.raises(StoreError):
            shipper.ship()
    assert shipper.ship() == 2 * ROWS
    assert len(logged(shipper)) == 1


def test_a_crash_between_log_and_deletion_repeats_nothing(shipper: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(shipper.folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shipper.ship()
    assert shipper.ship() == 0
    assert len(logged(shipper)) == 1
    assert list(shipper.folder.iterdir()) == []


def test_a_file_that_cannot_be_read_is_kept_and_the_others_are_shipped(
    shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(shipper.folder)
    bad = Journal(shipper.folder, 1 << 30)
    bad.append(VERSION, "ann", b"request", {"linear": [["x"]]}, [["y"]])
    bad.seal()
    assert shipper.ship() == 2 * ROWS
    assert [path.suffix for path in shipper.folder.iterdir()] == [FAILED]

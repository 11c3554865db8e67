"""The log in a bucket of both servers, checked with an independent implementation where it can be installed."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from podium.prediction_log.transparency_log import (
    CHECKPOINT,
    PENDING,
    PREFIX,
    Checkpoint,
    TransparencyLog,
    pack_entries,
    tile_key,
    unpack_entries,
    verifier_key,
)
from podium.prediction_log.witness import Witness
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import Store, StoreError

COUNTS = [1, 2, 250, 3, 256, 100]
SIZE = sum(COUNTS)


def entry(number: int) -> bytes:
    return f'{{"number":{number}}}'.encode()


@pytest.fixture
def log(store: Store, signer: Signer) -> TransparencyLog:
    return TransparencyLog(store, VerifyingKeys([signer.public]))


def fill(log: TransparencyLog, signer: Signer) -> None:
    number = 0
    for count in COUNTS:
        log.append([entry(number + offset) for offset in range(count)], signer)
        number += count


def put(store: Store, key: str, data: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=data)


def test_entries_are_kept_in_order_and_proved(log: TransparencyLog, signer: Signer) -> None:
    assert log.checkpoint().size == 0
    fill(log, signer)
    checkpoint, entries = log.check_all()
    assert entries == [entry(number) for number in range(SIZE)]
    for index in (0, 255, 256, 300, SIZE - 1):
        log.check_inclusion(entry(index), index, checkpoint)
        with pytest.raises(IntegrityError):
            log.check_inclusion(entry(index + 1), index, checkpoint)


def test_writers_that_append_at_the_same_time_lose_nothing(store: Store, log: TransparencyLog, signer: Signer) -> None:
    def append(writer: int) -> None:
        own = TransparencyLog(store, VerifyingKeys([signer.public]))
        for number in range(5):
            own.append([f"{writer} {number}".encode()], signer)

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, entries = log.check_all()
    assert sorted(entries) == sorted(f"{writer} {number}".encode() for writer in range(4) for number in range(5))


class Killed(Exception):
    pass


@pytest.mark.parametrize("allowed", range(6))
def test_a_writer_that_is_killed_at_any_write_leaves_a_log_that_goes_on(
    store: Store, log: TransparencyLog, signer: Signer, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    log.append([b"first"], signer)
    writes = iter(range(allowed))
    put_object = Store._put

    def until_killed(self: Store, *arguments: object, **options: object) -> str:
        if next(writes, None) is None:
            raise Killed
        return put_object(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", until_killed)
        try:
            log.append([b"second"], signer)
        except Killed:
            pass
    other = TransparencyLog(store, VerifyingKeys([signer.public]))
    other.append([b"third"], signer)
    _, entries = other.check_all()
    assert entries in ([b"first", b"third"], [b"first", b"second", b"third"])


def _altered(store: Store, key: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    put(store, key, pack_entries(change(unpack_entries(store.read(key).data))))


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "altered": lambda entries: [*entries[:7], entries[7].replace(b"7", b"8"), *entries[8:]],
    "dropped": lambda entries: [*entries[:7], *entries[8:]],
    "reordered": lambda entries: [entries[1], entries[0], *entries[2:]],
    "inserted": lambda entries: [entries[0], *entries[:-1]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_an_entry_is_found(store: Store, log: TransparencyLog, signer: Signer, change: str) -> None:
    fill(log, signer)
    _altered(store, tile_key("entries", 0, 256), CHANGES[change])
    started = time.perf_counter()
    with pytest.raises(IntegrityError):
        log.check_all()
    assert time.perf_counter() - started < 30  # 1 s on a machine that does nothing else


def test_a_log_that_is_signed_again_or_put_back_is_found(store: Store, log: TransparencyLog, signer: Signer) -> None:
    fill(log, signer)
    seen = log.checkpoint()
    other = Signer.new()
    put(store, CHECKPOINT, replace(seen, size=seen.size).signed(other))
    with pytest.raises(IntegrityError, match="not signed"):
        log.check_all()
    put(store, CHECKPOINT, Checkpoint("podium/another", seen.size, seen.root).signed(signer))
    with pytest.raises(IntegrityError, match="set PODIUM_LOG_NAME=podium/another"):
        log.check_all()
    named = TransparencyLog(store, VerifyingKeys([signer.public]), "podium/another")
    assert named.checkpoint().size == seen.size
    for info in list(store.list_objects(PREFIX)):
        store.delete(info.key)
    fresh = TransparencyLog(store, VerifyingKeys([signer.public]))
    fresh.append([entry(number) for number in range(SIZE - 1)] + [b"another"], signer)
    latest, _ = fresh.check_all()  # valid by itself
    with pytest.raises(IntegrityError, match="seen before"):
        fresh.check_continues(seen, latest)


def test_a_witness_remembers_the_log_and_knows_the_latest_promotions(
    store: Store, log: TransparencyLog, signer: Signer, tmp_path: Path
) -> None:
    def entries(*promotions: int) -> list[bytes]:
        return [json.dumps({"project": "p", "promotion": number}).encode() for number in promotions]

    witness = Witness(log, tmp_path / "remembered")
    assert witness.latest_promotions() == {}
    log.append(entries(1, 3, 2), signer)
    earlier = {info.key: store.read(info.key).data for info in store.list_objects(PREFIX)}
    assert witness.latest_promotions() == {"p": 3}
    log.append(entries(*[4] * 300), signer)
    assert witness.latest_promotions() == {"p": 4}
    for info in list(store.list_objects(PREFIX)):
        store.delete(info.key)
    for key, data in earlier.items():
        store.create(key, data)
    put_back = TransparencyLog(store, VerifyingKeys([signer.public]))
    with pytest.raises(IntegrityError, match="seen before"):
        Witness(put_back, witness.path).latest_promotions()
    assert Witness(put_back, tmp_path / "another").latest_promotions() == {"p": 3}


def test_a_forged_pending_entry_is_not_completed(store: Store, log: TransparencyLog, signer: Signer) -> None:
    fill(log, signer)
    content = json.loads(store.read(PENDING).data)
    content["entries"][0] = base64.b64encode(b"forged").decode()
    content["checkpoint"] = replace(log.checkpoint(), size=SIZE + 5).signed(signer).decode()
    put(store, PENDING, json.dumps(content).encode())
    with pytest.raises(StoreError):
        log.append([b"next"], signer)
    assert log.check_all()[0].size == SIZE


def test_an_independent_verifier_accepts_the_log(
    store: Store, log: TransparencyLog, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = pytest.importorskip("aics_tlog.cli", reason="needs aics-tlog")
    fill(log, signer)
    for info in store.list_objects(PREFIX):
        path = tmp_path / "log" / info.key.removeprefix(PREFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(info.key).data)
    (tmp_path / "key").write_text(verifier_key(log.origin, signer.public))
    common = ["--vkey-file", str(tmp_path / "key"), "--tiles", str(tmp_path / "log")]
    for command in (["verify-checkpoint"], ["verify-inclusion", "--index", "300"]):
        assert cli.main([*command, *common]) == 0
        assert json.loads(capsys.readouterr().out)["ok"], sys.argv

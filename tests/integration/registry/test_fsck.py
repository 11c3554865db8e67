"""The bucket is whole after any death, and whatever is not whole is named."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from podium.project import Project
from podium.registry.fsck import fsck
from podium.registry.gc import find_garbage
from podium.registry.promotion import PromotionContext, promote
from podium.registry.versions import Manifest, fetch_from, list_versions, projects_with_versions, publish
from podium.storage import datasets
from podium.storage.object_store import Store
from podium.tables.readers import read_csv
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FLOWERS = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)


def learned(seed: int, parent: str | None) -> tuple[Manifest, dict[str, bytes]]:
    claim = VersionReservation.now(NOW, f"{seed:08d}{seed:016d}", "0" * 64, parent)
    table = read_csv(tables.flowers(seed=2).to_csv(index=False).encode())
    return train_locally(table, FLOWERS.model_copy(update={"seed": seed}), claim, "trainer")


def put_in_service(context: PromotionContext, manifest: Manifest, files: dict[str, bytes]) -> None:
    publish(context.store, manifest, files, context.signer)
    promote(context, "p", manifest.version, "a run", lambda: NOW, expect=manifest.parent)


class Killed:
    """A client whose process is killed, with no word, before or after its n-th call."""

    CALLS = ("put_object", "get_object", "head_object")

    def __init__(self, client: Any, turn: int, after: bool) -> None:
        self._client, self._left, self._after = client, turn, after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in self.CALLS:
            return real

        def call(**arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self._left and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = real(**arguments)
            if self.calls == self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call


def in_a_child(work: Callable[[], None]) -> int:
    """The exit status of a forked process, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.timeout(600)
def test_after_a_kill_at_any_call_a_rerun_makes_the_bucket_whole(context: PromotionContext) -> None:
    first, files = learned(1, None)
    second, others = learned(2, first.version)
    counting = Killed(context.store.client, 0, False)
    put_in_service(replace(context, store=Store(counting, context.store.bucket)), first, files)
    put_in_service(replace(context, store=Store(counting, context.store.bucket)), second, others)
    assert fsck(context.store, context.trust) == []
    calls = counting.calls // 2 + 2
    assert calls > 10
    killed = 0
    for turn in range(1, calls + 1):
        for after in (False, True):
            bucket = f"kill-{uuid4().hex[:10]}"
            context.store.client.create_bucket(Bucket=bucket)
            own = replace(context, store=Store(context.store.client, bucket))
            own = replace(own, fetch=fetch_from(own.store))
            put_in_service(own, first, files)
            dying = replace(own, store=Store(Killed(context.store.client, turn, after), bucket))
            killed += in_a_child(lambda dying=dying: put_in_service(dying, second, others)) == -signal.SIGKILL
            put_in_service(own, second, others)
            assert fsck(own.store, own.trust) == [], (turn, after)
    assert killed >= 2 * (calls - 4)


def overwrite(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store.client.delete_object(Bucket=store.bucket, Key=key)
    else:
        store.client.put_object(Bucket=store.bucket, Key=key, Body=data)


def test_whatever_does_not_fit_is_named(context: PromotionContext) -> None:
    manifest, files = learned(1, None)
    put_in_service(context, manifest, files)
    context.store.create("raw/t.csv", b"a\n1\n")
    snapshot = datasets.take_snapshot(
        context.store, context.store.url("raw/t.csv"), context.store.etag("raw/t.csv"), context.store, "p"
    )
    context.store.create(datasets.receipt_key("p", snapshot.url, snapshot.etag), datasets.to_json(snapshot))
    context.store.create("runs/p/r/publish.json", json.dumps({"version": manifest.version}).encode())
    assert fsck(context.store, context.trust) == []
    place = f"versions/p/{manifest.version}/"
    damage: dict[str, tuple[str, bytes | None]] = {
        "is not what was published": (place + "models/linear.pkl", b"x"),
        "there is no versions": (place + "golden.json", None),
        "is not named by the manifest": (place + "extra.txt", b"x"),
        "not signed": (place + "manifest.json", b"{}"),
        "was never finished": ("versions/p/half/models/linear.pkl", b"x"),
        "which is not there": ("runs/p/s/publish.json", b'{"version": "v0"}'),
        "is not what its name says": (datasets.snapshot_key("p", snapshot.sha256), b"x"),
        "snapshot that is not there": (datasets.snapshot_key("p", snapshot.sha256), None),
        "does not show the last entry": ("aliases/p/champion.json", None),
    }
    for words, (key, data) in damage.items():
        before = context.store.read(key).data if context.store.exists(key) else None
        overwrite(context.store, key, data)
        assert any(words in line for line in fsck(context.store, context.trust)), words
        overwrite(context.store, key, before)
    assert fsck(context.store, context.trust) == []


def test_objects_that_are_not_podiums_are_named_and_stop_nothing(context: PromotionContext) -> None:
    manifest, files = learned(1, None)
    put_in_service(context, manifest, files)
    keys = [
        "versions/x",
        "versions/p",
        "versions/P/v/f",
        "versions/p/.hidden/manifest.json",
        "aliases/x",
        "aliases/p/other.json",
    ]
    keys += ["datasets/x", "datasets/p/x/data", "datasets/p/sources/x.json", "history/x"]
    receipts = [f"datasets/p/sources/{'0' * 32}.json", "runs/p/r/publish.json"]
    for key in keys + receipts:
        overwrite(context.store, key, b"[]")
    found = fsck(context.store, context.trust)
    assert {line.split(": ")[0] for line in found} == {*keys, *receipts}
    assert list_versions(context.store, "p") == [manifest.version]
    assert projects_with_versions(context.store) == ["p"]
    assert list(find_garbage(context, "p", NOW, keep=1, days=0)) == []

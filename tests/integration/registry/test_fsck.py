"""The bucket is consistent after a kill at any point, and fsck reports every inconsistency."""

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
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FLOWERS = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)


def trained(seed: int, parent: str | None) -> tuple[Manifest, dict[str, bytes]]:
    reservation = VersionReservation.now(NOW, f"{seed:08d}{seed:016d}", "0" * 64, parent)
    table = tables.flowers(seed=2).to_csv(index=False).encode()
    return train_locally(table, FLOWERS.model_copy(update={"seed": seed}), reservation, "trainer")


def publish_and_promote(context: PromotionContext, manifest: Manifest, files: dict[str, bytes]) -> None:
    publish(context.store, manifest, files, context.signer)
    promote(context, "p", manifest.version, "a run", lambda: NOW, expect=manifest.parent)


class KillingClient:
    """A client whose process is killed before or after its n-th call."""

    CALLS = ("put_object", "get_object", "head_object")

    def __init__(self, client: Any, number: int, after: bool) -> None:
        self._client, self._fatal_call, self._after = client, number, after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in self.CALLS:
            return real

        def call(**arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self._fatal_call and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            response = real(**arguments)
            if self.calls == self._fatal_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return response

        return call


def run_in_child(work: Callable[[], None]) -> int:
    """Return the exit status of a forked process, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_rerun_after_a_kill_at_any_call_makes_the_bucket_consistent(context: PromotionContext) -> None:
    first, files = trained(1, None)
    second, others = trained(2, first.version)
    counting = KillingClient(context.store.client, 0, False)
    publish_and_promote(replace(context, store=Store(counting, context.store.bucket)), first, files)
    publish_and_promote(replace(context, store=Store(counting, context.store.bucket)), second, others)
    assert fsck(context.store, context.trust) == []
    calls = counting.calls // 2 + 2
    assert calls > 10
    killed = 0
    for number in range(1, calls + 1):
        for after in (False, True):
            bucket = f"kill-{uuid4().hex[:10]}"
            context.store.client.create_bucket(Bucket=bucket)
            store = Store(context.store.client, bucket)
            fresh = replace(context, store=store, fetch=fetch_from(store))
            publish_and_promote(fresh, first, files)
            dying = replace(fresh, store=Store(KillingClient(context.store.client, number, after), bucket))
            killed += run_in_child(lambda dying=dying: publish_and_promote(dying, second, others)) == -signal.SIGKILL
            publish_and_promote(fresh, second, others)
            assert fsck(store, fresh.trust) == [], (number, after)
    assert killed >= 2 * (calls - 4)


def overwrite(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store.client.delete_object(Bucket=store.bucket, Key=key)
    else:
        store.client.put_object(Bucket=store.bucket, Key=key, Body=data)


def test_every_inconsistency_is_reported(context: PromotionContext) -> None:
    manifest, files = trained(1, None)
    publish_and_promote(context, manifest, files)
    context.store.create("raw/t.csv", b"a\n1\n")
    snapshot = datasets.take_snapshot(
        context.store, context.store.url("raw/t.csv"), context.store.etag("raw/t.csv"), context.store, "p"
    )
    context.store.create(datasets.receipt_key("p", snapshot.url, snapshot.etag), snapshot.to_json())
    context.store.create("runs/p/r/publish.json", json.dumps({"version": manifest.version}).encode())
    assert fsck(context.store, context.trust) == []
    prefix = f"versions/p/{manifest.version}/"
    damage: dict[str, tuple[str, bytes | None]] = {
        "differs from the published file": (prefix + "models/linear.pkl", b"x"),
        "golden.json is missing": (prefix + "golden.json", None),
        "not listed in the manifest": (prefix + "extra.txt", b"x"),
        "not signed": (prefix + "manifest.json", b"{}"),
        "unfinished version": ("versions/p/half/models/linear.pkl", b"x"),
        "references missing version v0": ("runs/p/s/publish.json", b'{"version": "v0"}'),
        "content differs from the digest": (datasets.snapshot_key("p", snapshot.sha256), b"x"),
        "references missing snapshot": (datasets.snapshot_key("p", snapshot.sha256), None),
        "differs from the last audit-log entry": ("aliases/p/champion.json", None),
    }
    for message, (key, data) in damage.items():
        before = context.store.read(key).data if context.store.exists(key) else None
        overwrite(context.store, key, data)
        assert any(message in line for line in fsck(context.store, context.trust)), message
        overwrite(context.store, key, before)
    assert fsck(context.store, context.trust) == []


def test_unknown_objects_are_reported_and_do_no_harm(context: PromotionContext) -> None:
    manifest, files = trained(1, None)
    publish_and_promote(context, manifest, files)
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
    errors = fsck(context.store, context.trust)
    assert {line.split(": ")[0] for line in errors} == {*keys, *receipts}
    assert list_versions(context.store, "p") == [manifest.version]
    assert projects_with_versions(context.store) == ["p"]
    assert list(find_garbage(context, "p", NOW, keep=1, days=0)) == []

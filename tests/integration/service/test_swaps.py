"""A new champion comes into service without a failed request, and a bad one does not come at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, start_service
from podium.models.scorers import LightGBMScorer
from podium.models.serialization import dump, load
from podium.project import Project
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import alias_key, append
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.validation import Validator
from podium.registry.versions import Manifest, file_digests, read_manifest
from podium.storage.object_store import digest
from tests import tables
from tests.conftest import Put, publish_champion

RECORD = {"petal": 2.5, "sepal": 5.1}
PATH = "/projects/swap/predict"


@pytest.fixture(scope="module")
def versions(put_champion: Put) -> list[Manifest]:
    """Two versions that answer differently; the second is the champion."""
    entries: dict[str, Any] = {
        "name": "swap",
        "target": "kind",
        "families": ["linear", "lightgbm", "random-forest"],
        "n_trials": 1,
    }
    return [put_champion(tables.flowers(seed=seed), **entries) for seed in (2, 3)]


@pytest.fixture(scope="module")
def service(cloud: LocalCloud, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with patched(cloud, tmp_path_factory.mktemp("swap"), HARMFUL, PODIUM_VALIDATION_TIMEOUT="5") as started:
        yield started


def serving(client: Client) -> str | None:
    found = [each["version"] for each in client.get("/status").json()["serving"] if each["project"] == "swap"]
    return found[0] if found else None


def move(context: PromotionContext, version: str) -> AuditEntry:
    return promote(context, "swap", version, "a test", utc_now, force=True)


class Load:
    """Clients that know the right answer of each version, and count how often it changed for them."""

    def __init__(self, client: Client, right: dict[str, Any], count: int = 3) -> None:
        self.client, self.right = client, right
        self.requests = self.most_changes = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self) -> None:
        seen, changes = "", -1
        while not self._over.is_set():
            try:
                answer = self.client.post_json(PATH, RECORD)
                body = answer.json()
                if body.get("version") != seen:
                    seen, changes = body.get("version"), changes + 1
                    self.most_changes = max(self.most_changes, changes)
                same = answer.status == 200 and answer.headers["x-model-version"] == body["version"]
                if not same or body["predictions"] != self.right[body["version"]]:
                    self.wrong.append(f"{answer.status} {answer.text[:200]}")
            except (OSError, ValueError) as error:
                self.wrong.append(repr(error))
            self.requests += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_swaps_under_load_fail_no_request_and_mix_no_version(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest]
) -> None:
    right = {}
    for manifest in versions:
        move(cloud_context, manifest.version)
        service.wait_until(lambda wanted=manifest.version: serving(service) == wanted, 20)
        right[manifest.version] = service.post_json(PATH, RECORD).json()["predictions"]
    assert right[versions[0].version] != right[versions[1].version]
    with Load(service, right) as load:
        for turn in range(12):
            wanted = versions[turn % 2].version
            move(cloud_context, wanted)
            service.wait_until(lambda wanted=wanted: serving(service) == wanted, 20)
    assert load.wrong == []
    assert load.requests > 100
    receipt = service.get("/status").json()["swaps"][-1]
    assert receipt["to"] == versions[1].version
    assert receipt["golden_difference"] == 0
    assert set(receipt["fast_paths"]) == {"linear", "lightgbm", "random-forest"}


SWAPS = 1000


def swapped(service: Client, context: PromotionContext, versions: list[Manifest], count: int) -> Load:
    """So many swaps under load, each seen by a request before the next."""
    right = {}
    for manifest in versions:
        move(context, manifest.version)
        service.wait_until(lambda wanted=manifest.version: serving(service) == wanted, 20)
        right[manifest.version] = service.post_json(PATH, RECORD).json()["predictions"]
    digests = {m.version: digest(context.store.read(f"versions/swap/{m.version}/manifest.json").data) for m in versions}
    with Load(service, right) as load:
        for turn in range(count):
            wanted = versions[turn % 2].version
            point(context, wanted, digests[wanted])
            service.wait_until(lambda wanted=wanted: shown(service) == wanted, 20)
    return load


def shown(client: Client) -> str:
    answer = client.post_json(PATH, RECORD)
    return answer.headers["x-model-version"] or ""


def point(context: PromotionContext, version: str, manifest: str) -> AuditEntry:
    """The act alone: neither gates nor proof, which the service makes itself."""
    act = {"version": version, "champion": version, "manifest_sha256": manifest, "previous": None}
    fields = {"action": "promote", **act, "by": "a test", "reason": "swap", "at": "now"}
    return append(context.store, "swap", context.signer, context.trust.promoters, lambda _: fields)


def test_a_thousand_swaps_fail_and_mix_nothing_and_never_go_back(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest]
) -> None:
    load = swapped(service, cloud_context, versions, SWAPS)
    assert load.wrong == []
    assert load.requests > SWAPS
    assert load.most_changes <= SWAPS + 1


@contextmanager
def patched(cloud: LocalCloud, folder: Path, patch: str, **variables: str) -> Iterator[Client]:
    """A service into which something was put that is no part of it."""
    (folder / "sitecustomize.py").write_text(patch)
    (port,) = free_ports(1)
    own = {**cloud.environment, "PODIUM_POLL_SECONDS": "0.05", "PODIUM_DASK_WORKERS": "0", "PYTHONPATH": str(folder)}
    process = start_service({**own, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        client.wait_until(lambda: serving(client) is not None, 60)
        yield client
    finally:
        process.stop()


READS_TWICE = """
import sys
if "serve" in sys.orig_argv:
    import asyncio, inspect, textwrap
    import service.fast_path as lanes
    source = textwrap.dedent(inspect.getsource(lanes.FastLane.__call__))
    once = "found = lane.answer(body) if whole else None"
    assert once in source
    twice = "await asyncio.sleep(0.001); lane_now = lane_of(self._live.find(project)); found = lane_now.answer(body)"
    space = {**vars(lanes), "asyncio": asyncio}
    exec(source.replace(once, twice), space)
    lanes.FastLane.__call__ = space["__call__"]
"""
"""The header of the version from one look at what is live, the answer from another."""


def test_a_service_that_looks_twice_is_caught(
    cloud: LocalCloud, cloud_context: PromotionContext, versions: list[Manifest], tmp_path: Path
) -> None:
    with patched(cloud, tmp_path, READS_TWICE) as mutant:
        assert swapped(mutant, cloud_context, versions, 100).wrong


SLOW = """
import sys
if "serve" in sys.orig_argv:
    import time
    import podium.registry.validation as validator
    load = validator.Validator.load
    def slowly(*given):
        time.sleep(3)
        return load(*given)
    validator.Validator.load = slowly
"""


def test_three_seconds_of_loading_cost_no_request(
    cloud: LocalCloud, cloud_context: PromotionContext, versions: list[Manifest], tmp_path: Path
) -> None:
    one, other = (manifest.version for manifest in versions)
    move(cloud_context, one)
    with patched(cloud, tmp_path, SLOW) as slow:
        slow.wait_until(lambda: serving(slow) == one, 20)
        right = {one: slow.post_json(PATH, RECORD).json()["predictions"]}
        with Load(slow, right) as load:
            move(cloud_context, other)
            asked = load.requests
            slow.wait_until(lambda: load.requests - asked > 1000, 20)
            assert serving(slow) == one  # it still loads
        slow.wait_until(lambda: serving(slow) == other, 20)
        assert slow.get("/status").json()["swaps"][-1]["load_milliseconds"] >= 3000
    assert load.wrong == []


def point_at(context: PromotionContext, manifest: Manifest, files: dict[str, bytes], sign: bool = True) -> AuditEntry:
    """Publish without any check and make it the champion as somebody who holds the keys could."""
    document = manifest.model_dump(mode="json")
    data = json.dumps({**document, "signatures": context.signer.sign(document) if sign else {}}).encode()
    for name, content in {**files, "manifest.json": data}.items():
        context.store.create(f"versions/swap/{manifest.version}/{name}", content)

    def draft(head: AuditEntry | None) -> dict[str, Any]:
        act = {"version": manifest.version, "champion": manifest.version, "manifest_sha256": digest(data), "previous": None}
        return {"action": "promote", **act, "by": "mallory", "reason": "bad", "at": "now"}

    return append(context.store, "swap", context.signer, context.trust.promoters, draft)


Spoil = Callable[[Manifest, dict[str, bytes]], tuple[Manifest, dict[str, bytes]]]


def rebound(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest binds the spoiled files, so that only the later checks can see it."""
    return manifest.model_copy(update={"files": file_digests(files)}), files


def a_flipped_bit(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    data = bytearray(files["models/linear.pkl"])
    data[len(data) // 2] ^= 1
    return manifest, {**files, "models/linear.pkl": bytes(data)}


def a_truncated_file(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, {**files, "models/lightgbm.pkl": files["models/lightgbm.pkl"][:-100]}


def a_missing_file(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, {name: data for name, data in files.items() if name != "models/lightgbm.pkl"}


def a_wrong_golden_answer(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    golden = json.loads(files["golden.json"])
    golden["scores"]["linear"][0][0] += 0.01
    return rebound(manifest, {**files, "golden.json": json.dumps(golden).encode()})


def a_pickle_that_runs(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    class Runs:
        def __reduce__(self) -> Any:
            return os.system, ("touch /tmp/podium-must-not-exist",)

    return rebound(manifest, {**files, "models/linear.pkl": pickle.dumps(Runs())})


def golden_rows_of_another_model(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    golden = json.loads(files["golden.json"])
    del golden["scores"]["linear"]
    return rebound(manifest, {**files, "golden.json": json.dumps(golden).encode()})


def remodelled(manifest: Manifest, files: dict[str, bytes], edit: Callable[[str], str]) -> tuple[Manifest, dict[str, bytes]]:
    """LightGBM's text changed inside a well-formed, bound and signed pickle."""
    model = load(files["models/lightgbm.pkl"])
    assert isinstance(model.scorer, LightGBMScorer)
    changed = replace(model, scorer=replace(model.scorer, text=edit(model.scorer.text), _booster=None))
    return rebound(manifest, {**files, "models/lightgbm.pkl": dump(changed)})


def a_tree_that_never_ends(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    def circle(text: str) -> str:
        return re.sub(r"(left|right)_child=[^\n]*", lambda line: re.sub(r"-?\d+", "0", line[0]), text)

    return remodelled(manifest, files, circle)


def a_tree_that_leaves_its_memory(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return remodelled(manifest, files, lambda text: re.sub(r"split_feature=\d+", "split_feature=2000000000", text))


def another_projects_manifest(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest.model_copy(update={"project": "other"}), files


def unsigned(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


def a_wrong_schema(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """The inputs that it names are not those that its models take."""
    renamed = tuple(replace(column, name=f"{column.name}-x") for column in manifest.signature.inputs)
    return manifest.model_copy(update={"signature": replace(manifest.signature, inputs=renamed)}), files


def wrong_libraries(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest.model_copy(update={"libraries": {**manifest.libraries, "lightgbm": "3.3.5"}}), files


def huge(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """A file that is said to take more than fits; nobody tries to fetch it."""
    bound = manifest.files["models/linear.pkl"].model_copy(update={"size": 10**13})
    return manifest.model_copy(update={"files": {**manifest.files, "models/linear.pkl": bound}}), files


def that_takes_too_long(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


def that_eats_all_memory(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


HARMFUL = """
import sys
if "podium.registry.validation_worker" in sys.orig_argv:
    import time, numpy
    import podium.registry.loading as loading
    validate = loading.validate_version
    def harmful(manifest, fetch):
        if "too-long" in manifest.version:
            time.sleep(60)
        if "all-memory" in manifest.version:
            eaten = [numpy.empty(1 << 30, "u1") for _ in range(64)]
        return validate(manifest, fetch)
    loading.validate_version = harmful
"""
"""In the validation process, two versions do by their names what a model could do by its content."""

BAD: list[tuple[Spoil, str]] = [
    (a_wrong_schema, "differs from the manifest"),
    (wrong_libraries, "trained with lightgbm 3.3.5"),
    (huge, "validation accepts at most"),
    (that_takes_too_long, "the validation process did not finish within"),
    (that_eats_all_memory, "needs more memory than the sandbox allows"),
    (unsigned, "not signed"),
    (a_flipped_bit, "differs from the published file"),
    (a_truncated_file, "differs from the published file"),
    (a_missing_file, "is missing"),
    (a_wrong_golden_answer, "golden rows"),
    (golden_rows_of_another_model, "KeyError"),
    (a_tree_that_never_ends, "tree"),
    (a_tree_that_leaves_its_memory, "tree"),
    (a_pickle_that_runs, "may not construct"),
    (another_projects_manifest, "another version"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_a_bad_version_never_serves(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest], spoil: Spoil, reason: str
) -> None:
    good = versions[1].version
    move(cloud_context, good)
    service.wait_until(lambda: serving(service) == good, 20)
    manifest = read_manifest(cloud_context.store, "swap", good, cloud_context.trust.trainers)[0]
    salt = b"\n" * (1 + [each for each, _ in BAD].index(spoil))  # of its own, so that no cached file stands in for a bad one
    files = {name: cloud_context.store.read(f"versions/swap/{good}/{name}").data + salt for name in manifest.files}
    named = manifest.model_copy(update={"version": f"bad-{spoil.__name__.replace('_', '-')}", "files": file_digests(files)})
    bad, spoiled = spoil(named, files)
    right = {good: service.post_json(PATH, RECORD).json()["predictions"]}
    with Load(service, right) as load:
        point_at(cloud_context, bad, spoiled, sign=spoil is not unsigned)
        service.wait_until(lambda: "swap" in service.get("/status").json()["failures"], 20)
    assert load.wrong == []
    assert reason in service.get("/status").json()["failures"]["swap"]
    assert serving(service) == good
    assert service.post_json(PATH, RECORD).status == 200
    assert service.get("/readyz").status == 200
    assert not Path("/tmp/podium-must-not-exist").exists()


@pytest.fixture(autouse=True)
def well_again(service: Client, cloud_context: PromotionContext, versions: list[Manifest]) -> Iterator[None]:
    """Whatever a test did, the next one finds a good champion."""
    yield
    if service.get("/status").json()["failures"]:
        move(cloud_context, versions[1].version)
    service.wait_until(lambda: not service.get("/status").json()["failures"], 20)


def test_a_forged_or_old_alias_changes_nothing(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest]
) -> None:
    store = cloud_context.store
    old = store.read(alias_key("swap")).data
    other = next(manifest.version for manifest in versions if manifest.version != serving(service))
    move(cloud_context, other)
    service.wait_until(lambda: serving(service) == other, 20)
    blob = store.read(alias_key("swap"))
    etag = blob.etag
    forged = json.dumps({**json.loads(blob.data), "sequence": 10_000, "champion": versions[0].version}).encode()
    for bad, reason in ((b"{}", "not signed"), (forged, "not signed"), (old, "but number")):
        etag = store.replace(alias_key("swap"), bad, etag)
        service.wait_until(lambda reason=reason: reason in service.get("/status").json()["failures"].get("swap", ""), 20)
        assert service.post_json(PATH, RECORD).status == 200
        assert serving(service) == other
        etag = store.replace(alias_key("swap"), blob.data, etag)
        service.wait_until(lambda: not service.get("/status").json()["failures"], 20)


def test_a_cache_that_vanishes_is_made_again(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory
) -> None:
    caches = list(tmp_path_factory.getbasetemp().glob("swap*/cache"))
    assert caches
    for cache in caches:
        shutil.rmtree(cache, ignore_errors=True)
    other = next(manifest.version for manifest in versions if manifest.version != serving(service))
    move(cloud_context, other)
    service.wait_until(lambda: serving(service) == other, 20)


def test_predictions_go_on_while_s3_is_down(validator: Validator, tmp_path: Path) -> None:
    """S3 of its own, stopped while the service runs."""
    port = free_ports(1)[0]
    with LocalCloud(tmp_path / "cloud", port) as own:
        project = Project(name="down", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)
        publish_champion(replace(promotion_context(own), validator=validator), tables.flowers(), project)
        process = start_service({**own.environment, "PODIUM_POLL_SECONDS": "0.2", "PODIUM_DASK_WORKERS": "0"}, port, tmp_path)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 30)
            own.stop()
            end = time.monotonic() + 60
            while client.get("/status").json()["store"]["error"] is None:
                assert client.post_json("/predict", RECORD).status == 200
                assert time.monotonic() < end
            assert client.post_json("/predict", RECORD).status == 200
            assert client.get("/readyz").status == 200
            assert client.get("/projects/down/versions").status == 503
        finally:
            process.stop()

"""A new champion is swapped in without failed requests; an invalid one is never served."""

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
from podium.registry.audit_log import append
from podium.registry.champion_alias import alias_key
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
    """Two versions with different predictions; the second is the champion."""
    entries: dict[str, Any] = {
        "name": "swap",
        "target": "kind",
        "families": ["linear", "lightgbm", "random-forest"],
        "n_trials": 1,
    }
    return [put_champion(tables.flowers(seed=seed), **entries) for seed in (2, 3)]


@pytest.fixture(scope="module")
def service(cloud: LocalCloud, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with patched(cloud, tmp_path_factory.mktemp("swap"), HARMFUL_PATCH, PODIUM_VALIDATION_TIMEOUT="5") as started:
        yield started


def serving(client: Client) -> str | None:
    serving_now = client.get("/status").json()["serving"]
    return next((model["version"] for model in serving_now if model["project"] == "swap"), None)


def move(context: PromotionContext, version: str) -> AuditEntry:
    return promote(context, "swap", version, "a test", utc_now, force=True)


class Load:
    """Clients that know the predictions of each version and count how often the version changes."""

    def __init__(self, client: Client, expected: dict[str, Any], count: int = 3) -> None:
        self.client, self.expected = client, expected
        self.requests = self.max_changes = 0
        self.errors: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send_requests) for _ in range(count)]

    def _send_requests(self) -> None:
        seen, changes = "", -1
        while not self._stopped.is_set():
            try:
                response = self.client.post_json(PATH, RECORD)
                body = response.json()
                if body.get("version") != seen:
                    seen, changes = body.get("version"), changes + 1
                    self.max_changes = max(self.max_changes, changes)
                same = response.status == 200 and response.headers["x-model-version"] == body["version"]
                if not same or body["predictions"] != self.expected[body["version"]]:
                    self.errors.append(f"{response.status} {response.text[:200]}")
            except (OSError, ValueError) as error:
                self.errors.append(repr(error))
            self.requests += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_swaps_under_load_fail_no_request_and_never_mix_versions(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest]
) -> None:
    expected = {}
    for manifest in versions:
        move(cloud_context, manifest.version)
        service.wait_until(lambda target=manifest.version: serving(service) == target, 20)
        expected[manifest.version] = service.post_json(PATH, RECORD).json()["predictions"]
    assert expected[versions[0].version] != expected[versions[1].version]
    with Load(service, expected) as load:
        for number in range(12):
            target = versions[number % 2].version
            move(cloud_context, target)
            service.wait_until(lambda target=target: serving(service) == target, 20)
    assert load.errors == []
    assert load.requests > 100
    record = service.get("/status").json()["swaps"][-1]
    assert record["to"] == versions[1].version
    assert record["golden_difference"] == 0
    assert set(record["fast_paths"]) == {"linear", "lightgbm", "random-forest"}


SWAPS = 1000


def swap_under_load(service: Client, context: PromotionContext, versions: list[Manifest], count: int) -> Load:
    """Run `count` swaps under load; a request sees each one before the next."""
    expected = {}
    for manifest in versions:
        move(context, manifest.version)
        service.wait_until(lambda target=manifest.version: serving(service) == target, 20)
        expected[manifest.version] = service.post_json(PATH, RECORD).json()["predictions"]
    digests = {m.version: digest(context.store.read(f"versions/swap/{m.version}/manifest.json").data) for m in versions}
    with Load(service, expected) as load:
        for number in range(count):
            target = versions[number % 2].version
            append_promotion(context, target, digests[target])
            service.wait_until(lambda target=target: served_version(service) == target, 20)
    return load


def served_version(client: Client) -> str:
    response = client.post_json(PATH, RECORD)
    return response.headers["x-model-version"] or ""


def append_promotion(context: PromotionContext, version: str, manifest: str) -> AuditEntry:
    """Append a promotion to the audit log without gates and validation."""
    event = {"version": version, "champion": version, "manifest_sha256": manifest, "previous": None}
    fields = {"action": "promote", **event, "by": "a test", "reason": "swap", "at": "now"}
    return append(context.store, "swap", context.signer, context.trust.promoters, lambda _: fields)


@pytest.mark.slow
@pytest.mark.long
def test_a_thousand_swaps_fail_no_request_mix_no_versions_and_never_go_back(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest]
) -> None:
    load = swap_under_load(service, cloud_context, versions, SWAPS)
    assert load.errors == []
    assert load.requests > SWAPS
    assert load.max_changes <= SWAPS + 1


@contextmanager
def patched(cloud: LocalCloud, folder: Path, patch: str, **variables: str) -> Iterator[Client]:
    """Run a service with a patch in its sitecustomize.py."""
    (folder / "sitecustomize.py").write_text(patch)
    (port,) = free_ports(1)
    settings = {**cloud.environment, "PODIUM_POLL_SECONDS": "0.05", "PODIUM_DASK_WORKERS": "0", "PYTHONPATH": str(folder)}
    process = start_service({**settings, **variables}, port, folder)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        client.wait_until(lambda: serving(client) is not None, 60)
        yield client
    finally:
        process.stop()


MIXED_VERSIONS_PATCH = """
import sys
if "serve" in sys.orig_argv:
    import inspect, textwrap
    import service.fast_path as module
    source = textwrap.dedent(inspect.getsource(module.FastResponder.__call__))
    right = "DirectResponse(fast_path.head"
    assert right in source
    wrong = "DirectResponse((vars(self).setdefault('last', fast_path), vars(self).update(last=fast_path))[0].head"
    space = dict(vars(module))
    exec(source.replace(right, wrong), space)
    module.FastResponder.__call__ = space["__call__"]
"""
"""A mutant whose header names the version of the previous request."""


@pytest.mark.slow
@pytest.mark.long
def test_the_load_detects_a_service_that_mixes_versions(
    cloud: LocalCloud, cloud_context: PromotionContext, versions: list[Manifest], tmp_path: Path
) -> None:
    with patched(cloud, tmp_path, MIXED_VERSIONS_PATCH) as mutant:
        assert swap_under_load(mutant, cloud_context, versions, 100).errors


SLOW_PATCH = """
import sys
if "serve" in sys.orig_argv:
    import time
    import podium.registry.validation as validator
    load = validator.Validator.load
    def slow_load(*args):
        time.sleep(3)
        return load(*args)
    validator.Validator.load = slow_load
"""


@pytest.mark.slow
@pytest.mark.long
def test_three_seconds_of_loading_fail_no_request(
    cloud: LocalCloud, cloud_context: PromotionContext, versions: list[Manifest], tmp_path: Path
) -> None:
    one, other = (manifest.version for manifest in versions)
    move(cloud_context, one)
    with patched(cloud, tmp_path, SLOW_PATCH) as slow:
        slow.wait_until(lambda: serving(slow) == one, 20)
        expected = {one: slow.post_json(PATH, RECORD).json()["predictions"]}
        with Load(slow, expected) as load:
            move(cloud_context, other)
            sent = load.requests
            slow.wait_until(lambda: load.requests - sent > 1000, 20)
            assert serving(slow) == one  # the other version is still loading
        slow.wait_until(lambda: serving(slow) == other, 20)
        assert slow.get("/status").json()["swaps"][-1]["load_milliseconds"] >= 3000
    assert load.errors == []


def publish_unchecked(context: PromotionContext, manifest: Manifest, files: dict[str, bytes], sign: bool = True) -> AuditEntry:
    """Publish a version without checks and make it the champion, like an attacker with the keys."""
    document = manifest.model_dump(mode="json")
    data = json.dumps({**document, "signatures": context.signer.sign(document) if sign else {}}).encode()
    for name, content in {**files, "manifest.json": data}.items():
        context.store.create(f"versions/swap/{manifest.version}/{name}", content)

    def draft(head: AuditEntry | None) -> dict[str, Any]:
        event = {"version": manifest.version, "champion": manifest.version, "manifest_sha256": digest(data), "previous": None}
        return {"action": "promote", **event, "by": "mallory", "reason": "bad", "at": "now"}

    return append(context.store, "swap", context.signer, context.trust.promoters, draft)


Corrupt = Callable[[Manifest, dict[str, bytes]], tuple[Manifest, dict[str, bytes]]]


def with_matching_manifest(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """Make the manifest match the corrupt files, so that only later checks detect them."""
    return manifest.model_copy(update={"files": file_digests(files)}), files


def flipped_bit(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    data = bytearray(files["models/linear.pkl"])
    data[len(data) // 2] ^= 1
    return manifest, {**files, "models/linear.pkl": bytes(data)}


def truncated_file(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, {**files, "models/lightgbm.pkl": files["models/lightgbm.pkl"][:-100]}


def missing_file(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, {name: data for name, data in files.items() if name != "models/lightgbm.pkl"}


def wrong_golden_score(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    golden = json.loads(files["golden.json"])
    golden["scores"]["linear"][0][0] += 0.01
    return with_matching_manifest(manifest, {**files, "golden.json": json.dumps(golden).encode()})


def malicious_pickle(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    class RunsCommand:
        def __reduce__(self) -> Any:
            return os.system, ("touch /tmp/podium-must-not-exist",)

    return with_matching_manifest(manifest, {**files, "models/linear.pkl": pickle.dumps(RunsCommand())})


def missing_golden_scores(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    golden = json.loads(files["golden.json"])
    del golden["scores"]["linear"]
    return with_matching_manifest(manifest, {**files, "golden.json": json.dumps(golden).encode()})


def with_edited_model(
    manifest: Manifest, files: dict[str, bytes], edit: Callable[[str], str]
) -> tuple[Manifest, dict[str, bytes]]:
    """Edit the text of a LightGBM model in an otherwise valid, signed pickle."""
    model = load(files["models/lightgbm.pkl"])
    assert isinstance(model.scorer, LightGBMScorer)
    scorer = LightGBMScorer(edit(model.scorer.text), model.scorer.features, model.scorer.outputs)
    changed = replace(model, scorer=scorer)
    return with_matching_manifest(manifest, {**files, "models/lightgbm.pkl": dump(changed)})


def endless_tree(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    def circle(text: str) -> str:
        return re.sub(r"(left|right)_child=[^\n]*", lambda line: re.sub(r"-?\d+", "0", line[0]), text)

    return with_edited_model(manifest, files, circle)


def out_of_bounds_tree(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return with_edited_model(manifest, files, lambda text: re.sub(r"split_feature=\d+", "split_feature=2000000000", text))


def manifest_of_another_project(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest.model_copy(update={"project": "other"}), files


def unsigned(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


def wrong_schema(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """Rename the inputs in the manifest, so that they differ from those of its models."""
    renamed = tuple(replace(column, name=f"{column.name}-x") for column in manifest.signature.inputs)
    return manifest.model_copy(update={"signature": replace(manifest.signature, inputs=renamed)}), files


def wrong_libraries(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest.model_copy(update={"libraries": {**manifest.libraries, "lightgbm": "3.3.5"}}), files


def huge_file(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """Declare a file that is too large; it must not be fetched."""
    bound = manifest.files["models/linear.pkl"].model_copy(update={"size": 10**13})
    return manifest.model_copy(update={"files": {**manifest.files, "models/linear.pkl": bound}}), files


def too_slow(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


def too_much_memory(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    return manifest, files


HARMFUL_PATCH = """
import sys
if "podium.registry.validation_worker" in sys.orig_argv:
    import time, numpy
    import podium.registry.loading as loading
    validate_version = loading.validate_version
    def harmful(manifest, fetch):
        if "too-slow" in manifest.version:
            time.sleep(60)
        if "too-much-memory" in manifest.version:
            arrays = [numpy.empty(1 << 30, "u1") for _ in range(64)]
        return validate_version(manifest, fetch)
    loading.validate_version = harmful
"""
"""Makes two versions misbehave in the validation process, selected by their names."""

BAD: list[tuple[Corrupt, str]] = [
    (wrong_schema, "differs from the manifest"),
    (wrong_libraries, "trained with lightgbm 3.3.5"),
    (huge_file, "validation accepts at most"),
    (too_slow, "the validation process did not finish within"),
    (too_much_memory, "needs more memory than the sandbox allows"),
    (unsigned, "not signed"),
    (flipped_bit, "differs from the published file"),
    (truncated_file, "differs from the published file"),
    (missing_file, "is missing"),
    (wrong_golden_score, "golden rows"),
    (missing_golden_scores, "KeyError"),
    (endless_tree, "tree"),
    (out_of_bounds_tree, "tree"),
    (malicious_pickle, "may not construct"),
    (manifest_of_another_project, "another version"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("corrupt", "reason"), BAD, ids=[corrupt.__name__ for corrupt, _ in BAD])
def test_an_invalid_version_is_never_served(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest], corrupt: Corrupt, reason: str
) -> None:
    good = versions[1].version
    move(cloud_context, good)
    service.wait_until(lambda: serving(service) == good, 20)
    manifest = read_manifest(cloud_context.store, "swap", good, cloud_context.trust.trainers)[0]
    salt = b"\n" * (1 + [function for function, _ in BAD].index(corrupt))  # makes the files unique, so that none is cached
    files = {name: cloud_context.store.read(f"versions/swap/{good}/{name}").data + salt for name in manifest.files}
    named = manifest.model_copy(update={"version": f"bad-{corrupt.__name__.replace('_', '-')}", "files": file_digests(files)})
    bad, corrupted = corrupt(named, files)
    expected = {good: service.post_json(PATH, RECORD).json()["predictions"]}
    with Load(service, expected) as load:
        publish_unchecked(cloud_context, bad, corrupted, sign=corrupt is not unsigned)
        service.wait_until(lambda: "swap" in service.get("/status").json()["failures"], 20)
    assert load.errors == []
    assert reason in service.get("/status").json()["failures"]["swap"]
    assert serving(service) == good
    assert service.post_json(PATH, RECORD).status == 200
    assert service.get("/readyz").status == 200
    assert not Path("/tmp/podium-must-not-exist").exists()


@pytest.fixture(autouse=True)
def restore_champion(service: Client, cloud_context: PromotionContext, versions: list[Manifest]) -> Iterator[None]:
    """Restore a valid champion after each test."""
    yield
    if service.get("/status").json()["failures"]:
        move(cloud_context, versions[1].version)
    service.wait_until(lambda: not service.get("/status").json()["failures"], 20)


def test_a_forged_or_older_alias_changes_nothing(
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
    for bad, reason in ((b"{}", "not signed"), (forged, "not signed"), (old, "older than entry")):
        etag = store.replace(alias_key("swap"), bad, etag)
        service.wait_until(lambda reason=reason: reason in service.get("/status").json()["failures"].get("swap", ""), 20)
        assert service.post_json(PATH, RECORD).status == 200
        assert serving(service) == other
        etag = store.replace(alias_key("swap"), blob.data, etag)
        service.wait_until(lambda: not service.get("/status").json()["failures"], 20)


def test_a_deleted_cache_is_recreated(
    service: Client, cloud_context: PromotionContext, versions: list[Manifest], tmp_path_factory: pytest.TempPathFactory
) -> None:
    caches = list(tmp_path_factory.getbasetemp().glob("swap*/cache"))
    assert caches
    for cache in caches:
        shutil.rmtree(cache, ignore_errors=True)
    other = next(manifest.version for manifest in versions if manifest.version != serving(service))
    move(cloud_context, other)
    service.wait_until(lambda: serving(service) == other, 20)


@pytest.mark.slow
def test_predictions_continue_while_s3_is_down(validator: Validator, tmp_path: Path) -> None:
    """Uses its own S3, which stops while the service runs."""
    port = free_ports(1)[0]
    with LocalCloud(tmp_path / "cloud", port) as own_cloud:
        project = Project(name="down", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)
        publish_champion(replace(promotion_context(own_cloud), validator=validator), tables.flowers(), project)
        process = start_service(
            {**own_cloud.environment, "PODIUM_POLL_SECONDS": "0.2", "PODIUM_DASK_WORKERS": "0"}, port, tmp_path
        )
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.get("/readyz").status == 200, 30)
            own_cloud.stop()
            end = time.monotonic() + 60
            while client.get("/status").json()["store"]["error"] is None:
                assert client.post_json("/predict", RECORD).status == 200
                assert time.monotonic() < end
            assert client.post_json("/predict", RECORD).status == 200
            assert client.get("/readyz").status == 200
            assert client.get("/projects/down/versions").status == 503
        finally:
            process.stop()

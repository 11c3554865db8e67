"""A harmful model file cannot affect the process that loads it."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import psutil
import pytest

from podium.models.encoder import Encoder
from podium.models.golden_rows import GOLDEN, verify_golden_rows
from podium.models.scorers import LinearScorer
from podium.models.serialization import dump, load
from podium.project import Project
from podium.registry.loading import ModelLoadError
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.validation import Validator
from podium.registry.versions import Manifest, file_digests, version_prefix
from podium.storage.object_store import StoreError, digest
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def version() -> tuple[Manifest, Files]:
    project = Project(name="p", data="s3://podium/x", target="kind", families=("linear", "lightgbm"), n_trials=1)
    claim = VersionReservation.now(datetime(2026, 1, 2, tzinfo=UTC), "0" * 24, "0" * 64, None)
    return train_locally(tables.flowers(120).to_csv(index=False).encode(), project, claim, "trainer")


def load_version(validator: Validator, signer: Signer, manifest: Manifest, files: Files) -> float:
    """Sign and load any files, so that only validation can reject them; return the difference to the golden rows."""
    document = manifest.model_copy(update={"files": file_digests(files)}).model_dump(mode="json")
    data = json.dumps({**document, "signatures": signer.sign(document)}).encode()
    prefix = version_prefix("p", manifest.version)
    objects = {prefix + name: content for name, content in {**files, "manifest.json": data}.items()}
    loaded = validator.load("p", manifest.version, digest(data), lambda key, *_: objects[key], VerifyingKeys([signer.public]))
    golden = GOLDEN.validate_json(files["golden.json"])
    return max(verify_golden_rows(model, golden) for model in loaded.models.values())


def test_a_good_version_is_validated_and_loaded(validator: Validator, signer: Signer, version: tuple[Manifest, Files]) -> None:
    assert load_version(validator, signer, *version) == 0


def test_a_killed_fork_server_is_replaced(signer: Signer, version: tuple[Manifest, Files]) -> None:
    validator, before = Validator(), psutil.Process().children()
    try:
        assert load_version(validator, signer, *version) == 0
        (server,) = new_children(before)
        server.kill()
        server.wait()
        assert load_version(validator, signer, *version) == 0
    finally:
        validator.close()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_thousand_damaged_models_do_no_harm(validator: Validator, signer: Signer, version: tuple[Manifest, Files]) -> None:
    """Models with flipped, cut, repeated and moved bytes, all signed, are rejected or predict the same."""
    manifest, files = version
    rng = random.Random(0)
    rejected = 0
    for turn in range(1000):
        name = rng.choice(["models/linear.pkl", "models/lightgbm.pkl", "models/lightgbm.pkl"])
        try:
            assert load_version(validator, signer, manifest, {**files, name: damaged(files[name], turn % 4, rng)}) <= 1e-6
        except ModelLoadError:
            rejected += 1
    assert rejected > 500
    assert load_version(validator, signer, manifest, files) == 0


def new_children(before: list[psutil.Process]) -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in before]


def damaged(data: bytes, kind: int, rng: random.Random) -> bytes:
    first = rng.randrange(len(data))
    second = rng.randrange(len(data))
    if kind == 0:
        return data[:first] + bytes([data[first] ^ 1 << rng.randrange(8)]) + data[first + 1 :]
    if kind == 1:
        return data[:first]
    if kind == 2:
        return data[:first] + data[first : first + 50] + data[first:]
    low, high = sorted((first, second))
    return data[:low] + data[high : high + 20] + data[low + 20 :]


@pytest.mark.timeout(120)
def test_a_version_that_hangs_does_not_delay_others(signer: Signer, version: tuple[Manifest, Files], hanging: Files) -> None:
    manifest, files = version
    validator = Validator(seconds=20)
    try:
        with ThreadPoolExecutor(2) as pool:
            slow = [pool.submit(load_version, validator, signer, manifest, hanging) for _ in range(2)]
            time.sleep(2)
            started = time.monotonic()
            assert load_version(validator, signer, manifest, files) == 0
            assert time.monotonic() - started < 10
            assert not any(future.done() for future in slow)
            validator.close()
            for future in slow:
                with pytest.raises(ModelLoadError):
                    future.result(10)
    finally:
        validator.close()


@pytest.fixture
def hanging(version: tuple[Manifest, Files]) -> Files:
    """A model with 900,000 features takes minutes to load."""
    _, files = version
    model = load(files["models/linear.pkl"])
    wide = Encoder(model.encoder.columns, model.encoder.features[:1] * 900_000)
    scorer = model.scorer
    assert isinstance(scorer, LinearScorer)
    weights = tuple((0.0,) * 900_000 for _ in scorer.weights)
    slow = replace(model, encoder=wide, scorer=replace(scorer, weights=weights))
    return {**files, "models/linear.pkl": dump(slow)}


def test_many_threads_start_one_fork_server() -> None:
    validator, before = Validator(), psutil.Process().children()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: validator.start(), range(8)))
        assert len(new_children(before)) == 1
    finally:
        validator.close()
    assert new_children(before) == []


def test_the_fork_server_has_no_secrets_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_SIGNING_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    validator, before = Validator(), psutil.Process().children()
    try:
        validator.start()
        (server,) = new_children(before)
        while "podium.sandbox.fork_server" not in server.cmdline():  # until then it has the environment of this process
            time.sleep(0.01)
        variables = server.environ()
        assert "PATH" in variables
        assert not [name for name in variables if name.startswith(("PODIUM_", "AWS_"))]
    finally:
        validator.close()


def test_an_unsigned_version_is_not_loaded(validator: Validator, version: tuple[Manifest, Files]) -> None:
    manifest, files = version
    data = manifest.model_dump_json().encode()
    prefix = version_prefix("p", manifest.version)
    objects = {prefix + name: content for name, content in {**files, "manifest.json": data}.items()}
    with pytest.raises(StoreError, match="not signed"):
        validator.load("p", manifest.version, digest(data), lambda key, *_: objects[key], VerifyingKeys([Signer.new().public]))

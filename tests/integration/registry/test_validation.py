"""Nothing that a model file can do reaches the process that loads it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from podium.registry.versions import Manifest, describe, version_prefix
from podium.sandbox.child_process import run_in_child
from podium.storage.object_store import StoreError, digest
from podium.tables.readers import read_csv
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables

Found = dict[str, Any]


def proves() -> Found:
    return {"fast": []}


def refuses() -> Found:
    raise ModelLoadError("is wrong")


def sleeps() -> Found:
    time.sleep(60)
    return {}


def eats() -> Found:
    return {"size": len(bytearray(1 << 40))}


def dies() -> Found:
    signal.raise_signal(signal.SIGSEGV)
    return {}


def exits() -> Found:
    os._exit(7)


def writes() -> Found:
    Path("/tmp/podium-proof-must-not-write").write_bytes(b"x" * 100_000)
    return {}


def connects() -> Found:
    return {"socket": socket.socket().fileno()}


def reads() -> Found:
    return {"owner": Path(f"/proc/{os.getppid()}/environ").read_bytes()}


def prints() -> Found:
    for descriptor in range(64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"largest_difference": 0.0, "fast": []}\n')
    raise ModelLoadError("is wrong")


def floods() -> Found:
    return {"fast": ["x" * 10_000_000]}


def starts() -> Found:
    return {"code": subprocess.run(["true"], check=False).returncode}


ENDS: list[tuple[Callable[[], Found], str | Found]] = [
    (proves, {"fast": []}),
    (refuses, "is wrong"),
    (sleeps, "did not load within 1 s"),
    (eats, "needs more memory than a proof may have"),
    (dies, "crashed while it was loaded (SIGSEGV)"),
    (exits, "crashed while it was loaded (exit code 7)"),
    (writes, "PermissionError while it was loaded"),
    (reads, "PermissionError while it was loaded"),
    (prints, "gave no sound answer while it was loaded"),
    (floods, "gave no sound answer while it was loaded"),
    (connects, "PermissionError while it was loaded"),
    (starts, "PermissionError while it was loaded"),
]


@pytest.mark.parametrize(("work", "reason"), ENDS)
def test_however_a_child_ends_its_owner_is_told(work: Callable[[], Found], reason: str | Found) -> None:
    assert run_in_child(work, 1.0, 1 << 30) == reason


def closes() -> Found:
    os.closerange(0, 100)
    time.sleep(60)
    return {}


def test_a_child_that_closes_its_pipe_is_not_waited_for() -> None:
    started = time.monotonic()
    assert run_in_child(closes, 1.0, 1 << 30) == "did not load within 1 s"
    assert time.monotonic() - started < 20


Files = dict[str, bytes]


@pytest.fixture(scope="module")
def version() -> tuple[Manifest, Files]:
    project = Project(name="p", data="s3://podium/x", target="kind", families=("linear", "lightgbm"), n_trials=1)
    claim = VersionReservation.now(datetime(2026, 1, 2, tzinfo=UTC), "0" * 24, "0" * 64, None)
    return train_locally(read_csv(tables.flowers(120).to_csv(index=False).encode()), project, claim, "trainer")


def loads(validator: Validator, signer: Signer, manifest: Manifest, files: Files) -> float:
    """Signed and bound as it is, so that only loading can find what is wrong; the difference at the golden rows."""
    document = manifest.model_copy(update={"files": describe(files)}).model_dump(mode="json")
    data = json.dumps({**document, "signatures": signer.sign(document)}).encode()
    place = version_prefix("p", manifest.version)
    there = {place + name: content for name, content in {**files, "manifest.json": data}.items()}
    loaded = validator.load("p", manifest.version, digest(data), lambda key, *_: there[key], VerifyingKeys([signer.public]))
    golden = GOLDEN.validate_json(files["golden.json"])
    return max(verify_golden_rows(model, golden) for model in loaded.models.values())


def test_a_good_version_is_proved_and_loaded(validator: Validator, signer: Signer, version: tuple[Manifest, Files]) -> None:
    assert loads(validator, signer, *version) == 0


def test_a_helper_that_was_killed_is_replaced(signer: Signer, version: tuple[Manifest, Files]) -> None:
    own, before = Validator(), psutil.Process().children()
    try:
        assert loads(own, signer, *version) == 0
        (helper,) = [each for each in psutil.Process().children() if each not in before]
        helper.kill()
        helper.wait()
        assert loads(own, signer, *version) == 0
    finally:
        own.close()


@pytest.mark.timeout(600)
def test_a_thousand_damaged_models_harm_nobody(validator: Validator, signer: Signer, version: tuple[Manifest, Files]) -> None:
    """Bits flipped, bytes cut, doubled and swapped, all bound and signed: refused, or answering as before."""
    manifest, files = version
    dice = random.Random(0)
    refused = 0
    for turn in range(1000):
        name = dice.choice(["models/linear.pkl", "models/lightgbm.pkl", "models/lightgbm.pkl"])
        try:
            assert loads(validator, signer, manifest, {**files, name: damaged(files[name], turn % 4, dice)}) <= 1e-6
        except ModelLoadError:
            refused += 1
    assert refused > 500
    assert loads(validator, signer, manifest, files) == 0


def damaged(data: bytes, way: int, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    other = dice.randrange(len(data))
    if way == 0:
        return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
    if way == 1:
        return data[:place]
    if way == 2:
        return data[:place] + data[place : place + 50] + data[place:]
    low, high = sorted((place, other))
    return data[:low] + data[high : high + 20] + data[low + 20 :]


@pytest.mark.timeout(120)
def test_a_version_that_hangs_delays_no_other(signer: Signer, version: tuple[Manifest, Files], hanging: Files) -> None:
    manifest, files = version
    own = Validator(seconds=20)
    try:
        with ThreadPoolExecutor(2) as pool:
            slow = [pool.submit(loads, own, signer, manifest, hanging) for _ in range(2)]
            time.sleep(2)
            started = time.monotonic()
            assert loads(own, signer, manifest, files) == 0
            assert time.monotonic() - started < 10
            assert not any(each.done() for each in slow)
            own.close()
            for each in slow:
                with pytest.raises(ModelLoadError):
                    each.result(10)
    finally:
        own.close()


@pytest.fixture
def hanging(version: tuple[Manifest, Files]) -> Files:
    """A category that is in the encoder's tables of so many features takes minutes to load."""
    _, files = version
    model = load(files["models/linear.pkl"])
    wide = Encoder(model.encoder.columns, model.encoder.features[:1] * 900_000)
    scorer = model.scorer
    assert isinstance(scorer, LinearScorer)
    weights = tuple((0.0,) * 900_000 for _ in scorer.weights)
    slow = replace(model, encoder=wide, scorer=replace(scorer, weights=weights))
    return {**files, "models/linear.pkl": dump(slow)}


def test_helpers_are_started_once_by_many_threads() -> None:
    own, before = Validator(), psutil.Process().children()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: own.start(), range(8)))
        assert len([each for each in psutil.Process().children() if each not in before]) == 1
    finally:
        own.close()
    assert [each for each in psutil.Process().children() if each not in before] == []


def test_the_helper_has_no_keys_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_SIGNING_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    own, before = Validator(), psutil.Process().children()
    try:
        own.start()
        (helper,) = [each for each in psutil.Process().children() if each not in before]
        found = helper.environ()
        assert "PATH" in found
        assert not [name for name in found if name.startswith(("PODIUM_", "AWS_"))]
    finally:
        own.close()


def test_an_unsigned_version_is_not_even_tried(validator: Validator, version: tuple[Manifest, Files]) -> None:
    manifest, files = version
    data = manifest.model_dump_json().encode()
    place = version_prefix("p", manifest.version)
    there = {place + name: content for name, content in {**files, "manifest.json": data}.items()}
    with pytest.raises(StoreError, match="not signed"):
        validator.load("p", manifest.version, digest(data), lambda key, *_: there[key], VerifyingKeys([Signer.new().public]))

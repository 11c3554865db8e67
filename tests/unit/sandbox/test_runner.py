"""A runner keeps a model in a sandboxed process, which is replaced after a failure and ends with its client."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import psutil
import pytest

from podium.sandbox.child_process import SandboxError
from podium.sandbox.process_limits import ProcessLimits
from podium.sandbox.runner import start_runner

LOADER = "tests.unit.sandbox.sample_loader"
LIMITS = ProcessLimits(seconds=1.0, memory_bytes=1 << 30, result_bytes=1000, keeps_running=True)


def runners() -> set[int]:
    children = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    return {process.pid for process in children if "podium.sandbox.runner" in process.cmdline()}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_runner_has_the_content_and_the_libraries_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "secret")
    before = runners()
    answer = start_runner(LOADER, b"content", LIMITS)
    assert [answer(b"one"), answer(b"two")] == [b"content|one|yes|None", b"content|two|yes|None"]
    assert len(runners() - before) == 1
    del answer
    gc.collect()
    wait_until(lambda: runners() == before)


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [(b"exit", "ended without a result"), (b"sleep", "did not finish within 1 s"), (b"large", "ended without a result")],
)
def test_a_process_without_a_reply_is_replaced(request_bytes: bytes, message: str) -> None:
    before = runners()
    answer = start_runner(LOADER, b"content", LIMITS)
    first = runners() - before
    with pytest.raises(SandboxError, match=message):
        answer(request_bytes)
    assert answer(b"one") == b"content|one|yes|None"
    assert runners() - before != first
    assert len(runners() - before) == 1


def test_the_process_stays_after_an_error() -> None:
    before = runners()
    answer = start_runner(LOADER, b"content", LIMITS)
    first = runners() - before
    with pytest.raises(SandboxError, match="raised PermissionError"):
        answer(b"open")
    assert answer(b"one") == b"content|one|yes|None"
    assert runners() - before == first


def test_content_that_cannot_be_loaded_is_described_without_the_text_of_the_error() -> None:
    before = runners()
    with pytest.raises(SandboxError) as error:
        start_runner(LOADER, b"reject", LIMITS)
    assert str(error.value) == "raised LookupError"
    with pytest.raises(SandboxError, match="cannot import tests"):
        start_runner("tests.unit.sandbox.absent", b"", LIMITS)
    assert runners() == before


def test_a_process_that_was_killed_between_calls_is_replaced() -> None:
    before = runners()
    answer = start_runner(LOADER, b"content", LIMITS)
    (process,) = runners() - before
    psutil.Process(process).kill()
    with pytest.raises(SandboxError, match="ended without a result"):
        answer(b"one")
    assert answer(b"two") == b"content|two|yes|None"

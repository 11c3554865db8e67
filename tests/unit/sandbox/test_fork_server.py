"""A fork server runs each request in its own sandboxed child."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from podium.sandbox.child_process import SandboxError, WorkError
from podium.sandbox.fork_server import ForkServer
from podium.sandbox.process_limits import ProcessLimits

WORKER = "tests.unit.sandbox.sample_worker"
LIMITS = ProcessLimits(seconds=20.0, memory_bytes=1 << 30)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(WORKER) as started:
        yield started


def test_a_child_has_the_warm_libraries_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_SIGNING_KEY", "secret")
    with ForkServer(WORKER) as server:
        assert server.call("hello", LIMITS) == "hello, warmed up: yes, secret: None"


@pytest.mark.parametrize(
    ("request_text", "message"),
    [("reject early", "rejected before the sandbox"), ("reject", "rejected in the sandbox")],
)
def test_an_expected_error_is_raised_with_its_text(server: ForkServer, request_text: str, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        server.call(request_text, LIMITS)


@pytest.mark.parametrize(("request_text", "message"), [("fail early", "raised OSError"), ("open", "raised PermissionError")])
def test_another_error_is_described_without_its_text(server: ForkServer, request_text: str, message: str) -> None:
    with pytest.raises(SandboxError) as error:
        server.call(request_text, LIMITS)
    assert str(error.value) == message


def test_a_slow_request_is_stopped_and_does_not_delay_others(server: ForkServer) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(server.call, "sleep", ProcessLimits(seconds=5.0, memory_bytes=1 << 30))
        assert server.call("hello", LIMITS).startswith("hello")
        assert not slow.done()
        with pytest.raises(SandboxError, match="did not finish within 5 s"):
            slow.result(60)


def test_a_server_that_was_killed_is_replaced_and_close_stops_all_processes() -> None:
    before = psutil.Process().children()
    with ForkServer(WORKER) as server:
        server.start()
        (process,) = [child for child in psutil.Process().children() if child not in before]
        process.kill()
        process.wait()
        assert server.call("hello", LIMITS).startswith("hello")
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(server.call, "sleep", LIMITS)
            time.sleep(1)
            server.close()
            with pytest.raises(SandboxError, match="ended without a result"):
                slow.result(10)
    assert [child for child in psutil.Process().children() if child not in before] == []

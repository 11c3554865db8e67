"""Every way in which a child process can end gives its result or one clear error."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from podium.sandbox.child_process import SandboxError, WorkError, run_in_child
from podium.sandbox.process_limits import ProcessLimits

LIMITS = ProcessLimits(seconds=1.0, memory_bytes=1 << 30)


def succeed() -> str:
    return '{"fast": []}'


def reject() -> str:
    raise LookupError("the model is wrong")


def sleep() -> str:
    time.sleep(60)
    return ""


def exhaust_memory() -> str:
    return str(len(bytearray(1 << 40)))


def crash() -> str:
    signal.raise_signal(signal.SIGSEGV)
    return ""


def exit_early() -> str:
    os._exit(7)


def write_a_file() -> str:
    Path("/tmp/podium-sandbox-must-not-write").write_bytes(b"x" * 100_000)
    return ""


def open_a_socket() -> str:
    return str(socket.socket().fileno())


def read_the_parents_environment() -> str:
    return Path(f"/proc/{os.getppid()}/environ").read_text()


def write_to_every_descriptor() -> str:
    for descriptor in range(64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"largest_difference": 0.0, "fast": []}\n')
    raise LookupError("the model is wrong")


def return_too_much() -> str:
    return "x" * 10_000_000


def return_invalid_text() -> str:
    for descriptor in range(64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"r\xff")
    os._exit(0)


def start_a_process() -> str:
    return str(subprocess.run(["true"], check=False).returncode)


def close_the_pipe() -> str:
    os.closerange(0, 100)
    time.sleep(60)
    return ""


FAILURES: list[tuple[Callable[[], str], str]] = [
    (sleep, "did not finish within 1 s"),
    (exhaust_memory, "needs more memory than the sandbox allows"),
    (crash, "crashed (SIGSEGV)"),
    (exit_early, "crashed (exit code 7)"),
    (write_a_file, "raised PermissionError"),
    (read_the_parents_environment, "raised PermissionError"),
    (write_to_every_descriptor, "returned an invalid result"),
    (return_too_much, "returned an invalid result"),
    (return_invalid_text, "returned an invalid result"),
    (open_a_socket, "raised PermissionError"),
    (start_a_process, "raised PermissionError"),
]


def test_a_result_is_returned() -> None:
    assert run_in_child(succeed, LIMITS) == '{"fast": []}'


def test_an_expected_error_is_raised_with_its_text() -> None:
    with pytest.raises(WorkError, match=r"^the model is wrong$"):
        run_in_child(reject, LIMITS, expected=(LookupError,))
    with pytest.raises(SandboxError, match=r"^raised LookupError$"):
        run_in_child(reject, LIMITS)


@pytest.mark.parametrize(("work", "message"), FAILURES, ids=[work.__name__ for work, _ in FAILURES])
def test_a_failure_is_described(work: Callable[[], str], message: str) -> None:
    with pytest.raises(SandboxError) as error:
        run_in_child(work, LIMITS, expected=(LookupError,))
    assert str(error.value) == message


def test_a_child_that_closes_its_pipe_is_stopped_at_the_time_limit() -> None:
    started = time.monotonic()
    with pytest.raises(SandboxError, match="did not finish within 1 s"):
        run_in_child(close_the_pipe, LIMITS)
    assert time.monotonic() - started < 20

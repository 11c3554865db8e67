"""Run a function in a forked, sandboxed child process and read its result from a pipe."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import BinaryIO

from podium.sandbox.process_limits import ProcessLimits, enter_sandbox

Work = Callable[[], str]
Expected = tuple[type[Exception], ...]
RESULT, EXPECTED_ERROR, FAILURE = b"r", b"e", b"f"
"""The first byte of a message. The rest is a result, the text of an expected error, or a description of the failure."""


class SandboxError(Exception):
    """The child returned no result. The message is a verb phrase, such as "crashed (SIGSEGV)"."""


class WorkError(Exception):
    """The work raised an expected error; the message is the text of that error."""


def run_in_child(work: Work, limits: ProcessLimits, expected: Expected = ()) -> str:
    """Return what `work` returns in a sandboxed child process.

    Malicious bytes may control the child and its result: validate the result as untrusted input.
    Raises WorkError if `work` raises one of the `expected` errors, and SandboxError if it fails in any other way.
    """
    return unpack(message_from_child(work, limits, expected))


def message_from_child(work: Work, limits: ProcessLimits, expected: Expected = ()) -> bytes:
    """Run `work` as `run_in_child` does, and return the outcome as a message for `unpack`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _write_all(writer, _outcome(work, limits, expected, writer))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        return _wait(child, pipe, limits)


def unpack(message: bytes) -> str:
    """Return the result in a message. Raises WorkError or SandboxError for the other two kinds."""
    kind = message[:1]
    try:
        text = message[1:].decode()
    except UnicodeDecodeError:
        kind, text = b"", ""
    if kind == RESULT:
        return text
    if kind == EXPECTED_ERROR:
        raise WorkError(text)
    raise SandboxError(text if kind == FAILURE else "returned an invalid result")


def error_message(error: BaseException, expected: Expected) -> bytes:
    if isinstance(error, expected):
        return EXPECTED_ERROR + str(error).encode(errors="replace")
    if isinstance(error, MemoryError):
        return FAILURE + b"needs more memory than the sandbox allows"
    if isinstance(error, ImportError):
        return FAILURE + f"cannot import {error.name}".encode()
    return FAILURE + f"raised {type(error).__name__}".encode()


def _outcome(work: Work, limits: ProcessLimits, expected: Expected, writer: int) -> bytes:
    try:
        enter_sandbox(limits, writer)
        return RESULT + work().encode()
    except BaseException as error:
        return error_message(error, expected)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _wait(child: int, pipe: BinaryIO, limits: ProcessLimits) -> bytes:
    """Read the child's message and wait until the child exits; kill it if it takes too long or writes too much."""
    timed_out = threading.Event()

    def kill_late() -> None:
        timed_out.set()
        os.kill(child, signal.SIGKILL)

    timer = threading.Timer(limits.seconds, kill_late)
    timer.start()
    message = pipe.read(limits.result_bytes + 2)
    too_large = len(message) > limits.result_bytes + 1
    if too_large:
        os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # keeps the process id until the timer is stopped
    timer.cancel()
    timer.join()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if timed_out.is_set():
        return FAILURE + f"did not finish within {limits.seconds:g} s".encode()
    if too_large:
        return FAILURE + b"returned an invalid result"
    return message or FAILURE + f"crashed ({_signal_name(-code) if code < 0 else f'exit code {code}'})".encode()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

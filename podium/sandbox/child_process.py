"""Work of unknown outcome in a forked child: what it found, or in words how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from podium.sandbox.process_limits import enter_sandbox
from podium.storage.object_store import StoreError

MAX_ANSWER = 1 << 20
NO_ANSWER = "gave no sound answer while it was loaded"


def run_in_child(work: Callable[[], dict[str, Any]], seconds: float, max_bytes: int) -> str | dict[str, Any]:
    """The child has one descriptor, a pipe of its own; its answer is checked as if the bytes that it handled had written it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_sandbox(seconds, max_bytes, writing)
            _write(writing, work())
        except MemoryError:
            _write(writing, "needs more memory than a proof may have")
        except BaseException as error:
            _write(writing, str(error) if isinstance(error, StoreError) else f"{type(error).__name__} while it was loaded")
        finally:
            os._exit(0)
    os.close(writing)
    try:
        return _outcome(child, reading, time.monotonic() + seconds, seconds)
    finally:
        os.close(reading)


def _write(descriptor: int, answer: str | dict[str, Any]) -> None:
    left = json.dumps(answer).encode()
    while left:
        left = left[os.write(descriptor, left) :]


def _outcome(child: int, reading: int, end: float, seconds: float) -> str | dict[str, Any]:
    answer, late = b"", True
    while len(answer) <= MAX_ANSWER and select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reading, 1 << 16)
        if not piece:
            late = False
            break
        answer += piece
    late = late or not _ends(child, end)
    if late:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late:
        return NO_ANSWER if len(answer) > MAX_ANSWER else f"did not load within {seconds:g} s"
    if not answer:
        return f"crashed while it was loaded ({_signal(-code) if code < 0 else f'exit code {code}'})"
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return NO_ANSWER
    return found if isinstance(found, str | dict) else NO_ANSWER


def _ends(child: int, end: float) -> bool:
    """Whether a child that has closed its pipe ends in time."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

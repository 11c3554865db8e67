"""A sandboxed process that keeps answering, for a library that scores an untrusted model with its own code.

Run as `python -m podium.sandbox.runner MODULE DESCRIPTOR`, where the module defines LOADER.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from podium.sandbox import processes
from podium.sandbox.child_process import FAILURE, RESULT, SandboxError, error_message
from podium.sandbox.process_limits import ProcessLimits, enter_sandbox, is_sandboxed

START_SECONDS = 60.0
Answer = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Loader:
    """How a runner loads a model: `import_libraries` runs before the process enters the sandbox, and `load` within it."""

    import_libraries: Callable[[], None]
    load: Callable[[bytes], Answer]


def start_runner(loader: str, content: bytes, limits: ProcessLimits) -> Answer:
    """Return a function that answers requests with what the module `loader` loads from `content`.

    It runs in a process of its own, or in this one if this one is sandboxed already. Raises SandboxError, as does the function.
    """
    if is_sandboxed():
        loaded: Answer = importlib.import_module(loader).LOADER.load(content)
        return loaded
    return Runner(loader, content, limits).call


@dataclass(slots=True, weakref_slot=True)
class Runner:
    """Client of a sandboxed process, which starts at once, and again if it ended; thread-safe.

    A call takes at most `limits.seconds` and returns at most `limits.result_bytes`. The process ends with this object.
    """

    loader: str
    content: bytes
    limits: ProcessLimits
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connection: Connection | None = None
    _stop: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        with self._lock:
            self._start()

    def call(self, request: bytes) -> bytes:
        """Return the answer to one request. Raises SandboxError."""
        with self._lock:
            connection = self._connection or self._start()
            return _answer(self._exchange(connection, request, self.limits.seconds))

    def _start(self) -> Connection:
        process, socket = processes.start(__name__, self.loader)
        connection = Connection(socket.detach())
        self._stop = weakref.finalize(self, _end, process, connection)
        try:
            _answer(self._exchange(connection, pickle.dumps((self.content, self.limits)), START_SECONDS))
        except SandboxError:
            self._stop()
            raise
        self._connection = connection
        return connection

    def _exchange(self, connection: Connection, request: bytes, seconds: float) -> bytes:
        """Send a message and return the reply; stop the process if there is none. The caller holds the lock."""
        try:
            connection.send_bytes(request)
            if connection.poll(seconds):
                return connection.recv_bytes(self.limits.result_bytes + 1)
            raise SandboxError(f"did not finish within {seconds:g} s")
        except (OSError, EOFError, SandboxError) as error:
            self._connection = None
            if self._stop is not None:
                self._stop()
            raise error if isinstance(error, SandboxError) else SandboxError("ended without a result") from None


def _answer(reply: bytes) -> bytes:
    if reply[:1] == RESULT:
        return reply[1:]
    raise SandboxError(reply[1:].decode(errors="replace") if reply[:1] == FAILURE else "returned an invalid result")


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    processes.stop(process)


# --- the runner process ------------------------------------------------------------------------------------------------


def serve(loader: Loader, connection: Connection) -> None:
    """Load the model in the sandbox, then answer until the client closes the connection."""
    content, limits = pickle.loads(connection.recv_bytes())  # noqa: S301 - written by the client, which is trusted
    loader.import_libraries()
    enter_sandbox(limits, connection.fileno())
    answer = loader.load(content)
    reply = RESULT
    while True:
        connection.send_bytes(reply)
        request = connection.recv_bytes()
        try:
            reply = RESULT + answer(request)
        except Exception as error:
            reply = error_message(error, ())


def main(module: str, descriptor: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the runner ends with its client
    connection = Connection(int(descriptor))
    try:
        serve(importlib.import_module(module).LOADER, connection)
    except EOFError:
        os._exit(0)
    except BaseException as error:
        connection.send_bytes(error_message(error, ()))
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A server process with all libraries imported, which forks a sandboxed child for each request.

Run as `python -m podium.sandbox.fork_server MODULE DESCRIPTOR`, where the module defines WORKER.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from podium.sandbox import processes
from podium.sandbox.child_process import Expected, SandboxError, Work, error_message, message_from_child, unpack
from podium.sandbox.process_limits import ProcessLimits

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Worker:
    """The work of one kind of fork server.

    `warm_up` runs once in the server and `prepare` once per request, both outside the sandbox. `prepare` returns the function
    that runs in the sandbox. The caller receives the text of `expected` errors.
    """

    warm_up: Callable[[], None]
    prepare: Callable[[Any], Work]
    expected: Expected


class ForkServer:
    """Client of a fork server; thread-safe. The server starts on the first call, and again if it has exited.

    `worker` is the name of a module that defines WORKER. At most `max_concurrent` calls run at a time.
    """

    def __init__(self, worker: str, max_concurrent: int = 4) -> None:
        self._worker = worker
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(max_concurrent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server ahead of the first call."""
        with self._lock:
            self._running_control()

    def call(self, request: object, limits: ProcessLimits) -> str:
        """Return the result of one request. Raises WorkError, SandboxError."""
        payload = pickle.dumps((request, limits))
        with self._slots:
            connection, server_end = socket.socketpair()
            with connection:
                connection.settimeout(limits.seconds + START_SECONDS)
                try:
                    with server_end, self._lock:
                        socket.send_fds(self._running_control(), [b"x"], [server_end.fileno()])
                    connection.sendall(payload)
                    connection.shutdown(socket.SHUT_WR)
                    reply = connection.makefile("rb").read()
                except OSError:
                    reply = b""
        if not reply:
            raise SandboxError("ended without a result")
        return unpack(reply)

    def close(self) -> None:
        """Stop the server and all its children."""
        with self._lock:
            self._stop()

    def _running_control(self) -> socket.socket:
        """Return the control socket of a running server; the caller holds the lock."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._control is None:
            self._process, self._control = processes.start(__name__, self._worker)
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            processes.stop(self._process)
        self._control = self._process = None


# --- the server process ------------------------------------------------------------------------------------------------


def serve(worker: Worker, control: socket.socket) -> None:
    """Fork a process for each connection; when the client closes the control socket, exit and kill all children."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            message, received, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            message = b""
        if not message:
            os.killpg(0, signal.SIGKILL)
        connection = socket.socket(fileno=received[0])
        if os.fork() == 0:
            control.close()
            try:
                handle(worker, connection)
            finally:
                os._exit(0)
        connection.close()


def handle(worker: Worker, connection: socket.socket) -> None:
    """Read a request, run it in a sandboxed child and write the outcome."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, limits = pickle.loads(connection.makefile("rb").read())  # noqa: S301 - written by the client, which is trusted
    try:
        work = worker.prepare(request)
    except Exception as error:
        connection.sendall(error_message(error, worker.expected))
    else:
        connection.sendall(message_from_child(work, limits, worker.expected))


def main(module: str, descriptor: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server ends with its client
    worker: Worker = importlib.import_module(module).WORKER
    worker.warm_up()
    serve(worker, socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main(*sys.argv[1:])

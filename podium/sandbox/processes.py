"""Start a module of Podium as a process without secrets, connected by a socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from podium.sandbox.process_limits import clean_environment

ROOT = Path(__file__).resolve().parents[2]


def start(module: str, worker: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Run `python -m module worker DESCRIPTOR` in a session of its own; return the process and this end of the socket."""
    connection, other_end = socket.socketpair()
    with other_end:
        process = subprocess.Popen(
            [sys.executable, "-m", module, worker, str(other_end.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[other_end.fileno()],
            cwd=ROOT,
            env=clean_environment(),
            start_new_session=True,
        )
    return process, connection


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with all its children, and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

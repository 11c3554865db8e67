"""Child processes with log files, and free ports for them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

PORTS = range(10_000 + os.getpid() % 8, 16_000, 8)
"""The ports to choose from: below those of outgoing connections (16000 and up in gVisor), and different in most processes."""

_ports = itertools.cycle(random.SystemRandom().sample(PORTS, len(PORTS)))


class DidNotStart(Exception):
    """A child process exited or did not respond; the message names its log."""


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that are currently free; a process gets each port once before it gets one again."""
    return list(itertools.islice(filter(is_free, _ports), count))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        connections = process.net_connections("tcp")
        return any(item.status == psutil.CONN_LISTEN and item.laddr.port == port for item in connections)
    return False


class Process:
    """A child process in its own process group, with its output in a log file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.name = log, Path(command[0]).name
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def wait_for(self, url: str, seconds: float = 30) -> None:
        """Wait until the process responds to HTTP requests at `url`. Raises DidNotStart.

        Also checks that the process or one of its children listens on the port, because another program may be using it.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.running():
                raise DidNotStart(
                    f"{self.name} exited with code {self._child.returncode}; end of {self.log}:\n{self._log_tail()}"
                )
            if _responds(url) and self.listens(urlsplit(url).port or 80):
                return
            time.sleep(0.02)
        raise DidNotStart(f"no response from {url} within {seconds:g} s; see {self.log}")

    def listens(self, port: int) -> bool:
        """Return whether the process or one of its children listens on a port."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return any(_listens(member, port) for member in (process, *process.children(recursive=True)))
        return False

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self, seconds: float = 15) -> None:
        """Send SIGTERM, and kill the process group after `seconds`."""
        if self.running():
            self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

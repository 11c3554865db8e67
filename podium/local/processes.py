"""Child processes that end when their owner ends them, and free ports for them."""

from __future__ import annotations

import contextlib
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

PORTS = 12_000, 32_000


class DidNotStart(Exception):
    """A child process ended or stayed silent instead of serving; its log is named."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, and none of those that connections to elsewhere are given in the meantime."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(*PORTS)
        if is_free(port):
            found.add(port)
    return list(found)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(url: str) -> bool:
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
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)
    return False


class Process:
    """A child process in a group of its own, its output in a log file."""

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
        """Wait until this process, or one that it started, gives any HTTP answer at `url`; raises DidNotStart.

        Another program that has taken the port in the meantime may answer there, so who listens is looked at as well.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.running():
                raise DidNotStart(
                    f"{self.name} ended with code {self._child.returncode}; {self.log} ends with:\n{self._told()}"
                )
            if _answers(url) and self.listens(urlsplit(url).port or 80):
                return
            time.sleep(0.02)
        raise DidNotStart(f"nothing answers at {url}; see {self.log}")

    def listens(self, port: int) -> bool:
        """Whether this process or one that it started accepts connections on a port."""
        with contextlib.suppress(psutil.NoSuchProcess):
            owner = psutil.Process(self.pid)
            return any(_listens(process, port) for process in (owner, *owner.children(recursive=True)))
        return False

    def _told(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self, seconds: float = 15) -> None:
        """Ask it to end, and kill what is left of its group after a while."""
        if self.running():
            self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

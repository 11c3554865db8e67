"""Resource limits and privileges of a process that handles untrusted bytes."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

from podium.sandbox.seccomp import ARCHITECTURES, drop_capabilities, filter_system_calls

NOBODY = 65534
MAX_THREADS = 4096
"""RLIMIT_NPROC counts all processes of the user, so this only keeps threads from exhausting the process IDs."""

SAFE_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

_is_sandboxed = False


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one piece of sandboxed work; `memory_bytes` is in addition to what the process uses at the start.

    With `keeps_running`, `seconds` limits each answer of a process, which the client measures, but not its processor time.
    """

    seconds: float
    memory_bytes: int
    result_bytes: int = 1 << 20
    keeps_running: bool = False


def is_sandboxed() -> bool:
    """Return whether this process has entered the sandbox."""
    return _is_sandboxed


def clean_environment() -> dict[str, str]:
    """Return the environment without secrets. Libraries use one thread, because other threads do not survive a fork."""
    return {name: os.environ[name] for name in SAFE_VARIABLES if name in os.environ} | {"OMP_NUM_THREADS": "1"}


def enter_sandbox(limits: ProcessLimits, keep_open: int) -> None:
    """Restrict this process and all its threads permanently; only the descriptor `keep_open` stays open.

    No file can be opened afterwards, not even for reading, so every library must be imported before the call. A root
    process continues as the user nobody.
    """
    global _is_sandboxed
    _is_sandboxed = True
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _close_all_but(keep_open)
    max_memory, cpu_seconds = used + limits.memory_bytes, int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))
    if not limits.keeps_running:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))
    _lower(resource.RLIMIT_NPROC, MAX_THREADS)
    machine = platform.machine()
    if machine in ARCHITECTURES and platform.system() == "Linux":
        _become_nobody()
        drop_capabilities(machine)
        filter_system_calls(machine)


def _close_all_but(keep_open: int) -> None:
    """Close every other descriptor and connect the standard streams to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2} - {keep_open}:
        os.dup2(null, standard)
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor != keep_open:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is already closed
                os.close(descriptor)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (lower, lower))


def _become_nobody() -> None:
    """Drop root privileges. Some containers forbid this; only the other limits apply there."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
        with contextlib.suppress(OSError):
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)

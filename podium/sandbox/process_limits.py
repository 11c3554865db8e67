"""What a process that handles bytes of unknown origin may not do: eat memory, run on, read or write files, start others."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from pathlib import Path

from podium.sandbox.seccomp import ARCHITECTURES, drop_capabilities, filter_calls

NOBODY = 65534
MAX_THREADS = 4096
"""Of all processes of the user, so that threads cannot take all process ids."""

SAFE_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def clean_environment() -> dict[str, str]:
    """The environment without keys and passwords. Libraries compute in one thread: a fork has no others."""
    return {name: os.environ[name] for name in SAFE_ENVIRONMENT if name in os.environ} | {"OMP_NUM_THREADS": "1"}


def enter_sandbox(seconds: float, max_bytes: int, keep: int) -> None:
    """For this process and all its threads from now on; `max_bytes` is memory beyond what it has.

    `keep` is the one descriptor that stays open. Nothing more can be opened, not even for reading: whatever will be imported
    must have been. A process of root becomes one of nobody.
    """
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _close_all_but(keep)
    resource.setrlimit(resource.RLIMIT_AS, (now + max_bytes, now + max_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 0)):
        resource.setrlimit(limit, (value, value))
    _lower(resource.RLIMIT_NPROC, MAX_THREADS)
    machine = platform.machine()
    if machine in ARCHITECTURES and platform.system() == "Linux":
        _become_nobody()
        drop_capabilities(machine)
        filter_calls(machine)


def _close_all_but(keep: int) -> None:
    """Standard streams lead nowhere afterwards."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2} - {keep}:
        os.dup2(nowhere, standard)
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor != keep:
            with contextlib.suppress(OSError):  # the one that listed them is closed already
                os.close(descriptor)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (lower, lower))


def _become_nobody() -> None:
    """Where it is not allowed, as in some containers, the other limits hold alone."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
        with contextlib.suppress(OSError):
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)

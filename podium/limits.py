"""What a process that handles bytes of unknown origin may not do: eat memory, run on, write, start others, reach a network.

The system calls are refused by seccomp, which needs no privilege (Linux on x86-64 and arm64, see seccomp(2)); elsewhere the
limits on memory, time and file size remain.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path

NEVER = {
    "x86_64": {
        "socket": 41, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "truncate": 76, "ftruncate": 77, "rename": 82,
        "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "chown": 92, "ptrace": 101,
        "mknod": 133, "mkdirat": 258, "mknodat": 259, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fchmodat": 268, "renameat2": 316, "execveat": 322, "io_uring_setup": 425, "openat2": 437,
    },
    "aarch64": {
        "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45,
        "ftruncate": 46, "fchmodat": 53, "ptrace": 117, "kill": 129, "socket": 198, "execve": 221, "renameat2": 276,
        "execveat": 281, "io_uring_setup": 425, "openat2": 437,
    },
}  # fmt: skip
"""Refused by number; on both systems these are all ways to change files by name, to start programs and to reach a network."""

OPENS = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
"""open and openat with the place of their flags: refused when they would write."""

CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
"""Threads may be started, processes not; clone3, whose flags cannot be seen, is said not to exist, so that clone is used."""

THREAD = 0x00010000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2


def restrict(seconds: float, most_bytes: int) -> None:
    """For this process from now on; `most_bytes` is memory beyond what it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, now + most_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if platform.system() == "Linux" and platform.machine() in MACHINES:
        _filter_calls(platform.machine())


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


def _filter_calls(machine: str) -> None:
    """Raises OSError."""
    steps = _steps(machine)
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the system calls of a child could not be restricted")


def _steps(machine: str) -> Sequence[tuple[int, int, int, int]]:
    """The filter as (code, jump if so, jump if not, value); the call lies at 0, the machine at 4, the arguments at 16."""
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, MACHINES[machine]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for number in NEVER[machine].values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    for number, place in OPENS[machine]:
        steps += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, 16 + 8 * place),
            (ANY_BIT, 0, 1, WRITING),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]
    steps += [(EQUAL, 0, 3, CLONE[machine]), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, THREAD), (RETURN, 0, 0, REFUSE)]
    return [*steps, (RETURN, 0, 0, ALLOW)]

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
        "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59,
        "kill": 62, "semget": 64, "msgget": 68, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84,
        "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93,
        "lchown": 94, "ptrace": 101, "rt_sigqueueinfo": 129, "utime": 132, "mknod": 133, "pivot_root": 155, "chroot": 161,
        "mount": 165, "umount2": 166, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
        "lremovexattr": 198,
        "fremovexattr": 199, "tkill": 200, "utimes": 235, "mq_open": 240, "add_key": 248, "keyctl": 250, "mkdirat": 258,
        "mknodat": 259, "fchownat": 260, "futimesat": 261, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fchmodat": 268, "unshare": 272, "utimensat": 280, "rt_tgsigqueueinfo": 297, "perf_event_open": 298, "prlimit64": 302,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "renameat2": 316, "memfd_create": 319, "bpf": 321,
        "execveat": 322, "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434,
        "openat2": 437, "pidfd_getfd": 438, "fchmodat2": 452,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "mknodat": 33,
        "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "umount2": 39, "mount": 40,
        "pivot_root": 41, "truncate": 45, "ftruncate": 46, "chroot": 51, "fchmod": 52, "fchmodat": 53, "fchownat": 54,
        "fchown": 55, "utimensat": 88, "unshare": 97, "ptrace": 117, "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138,
        "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "shmctl": 195, "shmat": 196, "socket": 198,
        "socketpair": 199, "add_key": 217, "keyctl": 219, "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241,
        "prlimit64": 261, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "renameat2": 276,
        "memfd_create": 279, "bpf": 280, "execveat": 281, "userfaultfd": 282, "pidfd_send_signal": 424, "io_uring_setup": 425,
        "pidfd_open": 434, "openat2": 437, "pidfd_getfd": 438, "fchmodat2": 452,
    },
}  # fmt: skip
"""Refused by number: ways to change files, to start programs, to reach a network or another process."""

OPENS = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
"""open and openat with the place of their flags: refused when they would write."""

CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
"""Threads may be started, processes not; clone3, whose flags cannot be seen, is said not to exist, so that clone is used."""

TGKILL = {"x86_64": 234, "aarch64": 131}
"""A signal to a thread: only to one of the process's own, as abort(3) sends it."""

SECCOMP = {"x86_64": 317, "aarch64": 277}
THREAD = 0x00010000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
NO_NEW_PRIVILEGES, FILTER, ALL_THREADS = 38, 1, 1


def restrict(seconds: float, most_bytes: int, *, no_files: bool = False) -> None:
    """For this process and all its threads from now on; `most_bytes` is memory beyond what it has.

    `no_files`: nothing more can be opened, not even for reading; whatever will be imported must have been.
    """
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, now + most_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if no_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
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
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(SECCOMP[machine], FILTER, ALL_THREADS, ctypes.byref(program)):
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
    steps += [(EQUAL, 0, 3, TGKILL[machine]), (LOAD, 0, 0, 16), (EQUAL, 1, 0, os.getpid()), (RETURN, 0, 0, REFUSE)]
    return [*steps, (RETURN, 0, 0, ALLOW)]

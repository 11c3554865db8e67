"""An allow-list of system calls for processes that handle bytes of unknown origin: they may count and answer, no more.

It needs no privilege (Linux on x86-64 and arm64, see seccomp(2)). Files can be neither opened nor changed, no process can be
started or reached, and no limit can be raised.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "futex": (202, 98), "read": (0, 63), "write": (1, 64), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214),
    "madvise": (28, 233), "mprotect": (10, 226), "mremap": (25, 216), "clock_gettime": (228, 113), "sched_yield": (24, 124),
    "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79), "lseek": (8, 62), "readv": (19, 65), "writev": (20, 66),
    "pread64": (17, 67), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrusage": (98, 165), "times": (100, 153), "sysinfo": (99, 179),
    "uname": (63, 160), "getcpu": (309, 168), "getrandom": (318, 278), "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99), "rseq": (334, 293), "membarrier": (324, 283), "restart_syscall": (219, 128),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Numbers on x86-64 and on arm64 of the calls that may have any arguments."""

PRCTL, FCNTL, PRLIMIT, TGKILL, CLONE = (157, 167), (72, 25), (302, 261), (234, 131), (56, 220)
ABSENT, NO_TERMINAL = (435, 435), (16, 29)
"""clone3, whose arguments cannot be seen, does not exist, so that clone is used; and ioctl finds no terminal."""

NAME_OF_A_THREAD, FLAGS_OF_A_DESCRIPTOR = (15, 16), (1, 3)
THREADS = (0x3D0F00, 0x7D0F00)
"""The flags with which glibc and musl start a thread."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}
CAPSET = {"x86_64": 126, "aarch64": 91}

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
FILTER, ALL_THREADS = 1, 1
NO_NEW_PRIVILEGES, DUMPABLE = 38, 4
VERSION_3 = 0x20080522

Step = tuple[int, int, int, int]


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


_LIBC = ctypes.CDLL(None, use_errno=True)


def drop_capabilities(machine: str) -> None:
    """Give up every capability; where there are none nothing happens."""
    _LIBC.syscall(CAPSET[machine], (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)())


def filter_calls(machine: str) -> None:
    """For this process and all its threads, from now on. Raises OSError."""
    steps = _steps(list(ARCHITECTURES).index(machine))
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    _LIBC.prctl(DUMPABLE, 0, 0, 0, 0)
    if _LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or _LIBC.syscall(
        SECCOMP[machine], FILTER, ALL_THREADS, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), "the system calls of a child could not be restricted")


def _steps(column: int) -> Sequence[Step]:
    """The filter as (code, jump if so, jump if not, value); the call is at 0, the architecture at 4, the arguments at 16.

    Calls of the x32 ABI have numbers of their own, which are not in the list.
    """
    steps: list[Step] = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, list(ARCHITECTURES.values())[column]), (RETURN, 0, 0, KILL)]
    steps.append((LOAD, 0, 0, 0))
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps += _one_of(PRCTL[column], 0, NAME_OF_A_THREAD)
    steps += _one_of(FCNTL[column], 1, FLAGS_OF_A_DESCRIPTOR)
    steps += _one_of(CLONE[column], 0, THREADS)
    steps += _one_of(TGKILL[column], 0, (os.getpid(),))  # abort(3) sends its signal so
    no_new_limit: list[Step] = [(LOAD, 0, 0, 32), (EQUAL, 0, 3, 0), (LOAD, 0, 0, 36), (EQUAL, 0, 1, 0), (RETURN, 0, 0, ALLOW)]
    steps += [(EQUAL, 0, len(no_new_limit) + 1, PRLIMIT[column]), *no_new_limit, (RETURN, 0, 0, REFUSE | errno.EPERM)]
    for number, error in ((ABSENT[column], errno.ENOSYS), (NO_TERMINAL[column], errno.ENOTTY)):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | error)]
    return [*steps, (RETURN, 0, 0, REFUSE | errno.EPERM)]


def _one_of(number: int, argument: int, values: Sequence[int]) -> Sequence[Step]:
    """Allow a call whose argument, an int, is one of these values."""
    steps: list[Step] = [(LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(steps) + 1, number), *steps, (RETURN, 0, 0, REFUSE | errno.EPERM)]

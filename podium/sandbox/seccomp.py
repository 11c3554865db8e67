"""An allow-list of system calls for processes that only compute and write to open descriptors.

It needs no privileges (Linux on x86-64 and arm64; seccomp(2)). A restricted process can neither open nor change files, start
or reach other processes, or raise its limits.
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
"""Calls that are allowed with any arguments, with their numbers on x86-64 and arm64."""

PRCTL, FCNTL, PRLIMIT, TGKILL, CLONE = (157, 167), (72, 25), (302, 261), (234, 131), (56, 220)
CLONE3, IOCTL = (435, 435), (16, 29)
"""clone3 returns ENOSYS because a filter cannot inspect its flags; libc then uses clone. ioctl returns ENOTTY."""

PR_SET_NAME_AND_PR_GET_NAME, F_GETFD_AND_F_GETFL = (15, 16), (1, 3)
THREAD_FLAGS = (0x3D0F00, 0x7D0F00)
"""The flags with which glibc and musl call clone to start a thread."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}
CAPSET = {"x86_64": 126, "aarch64": 91}

BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
RET_ALLOW, RET_KILL, RET_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 38, 4
CAPABILITY_VERSION_3 = 0x20080522

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, value."""


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


_LIBC = ctypes.CDLL(None, use_errno=True)


def drop_capabilities(machine: str) -> None:
    """Drop every capability of this process, if it has any."""
    _LIBC.syscall(CAPSET[machine], (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())


def filter_system_calls(machine: str) -> None:
    """Restrict this process and all its threads permanently. Raises OSError."""
    instructions = _instructions(list(ARCHITECTURES).index(machine))
    array = (_Instruction * len(instructions))(*(_Instruction(*instruction) for instruction in instructions))
    program = _Program(len(instructions), array)
    _LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _LIBC.syscall(
        SECCOMP[machine], SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), "cannot restrict the system calls of a child process")


def _instructions(column: int) -> Sequence[Instruction]:
    """Return the filter program. In its input, the call is at offset 0, the architecture at 4, and the arguments start at 16.

    x32 ABI calls have other numbers, so they are not in the list.
    """
    architecture = list(ARCHITECTURES.values())[column]
    program: list[Instruction] = [(BPF_LOAD, 0, 0, 4), (BPF_JUMP_IF_EQUAL, 1, 0, architecture), (BPF_RETURN, 0, 0, RET_KILL)]
    program.append((BPF_LOAD, 0, 0, 0))
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            program += [(BPF_JUMP_IF_EQUAL, 0, 1, number), (BPF_RETURN, 0, 0, RET_ALLOW)]
    program += _allow_argument(PRCTL[column], 0, PR_SET_NAME_AND_PR_GET_NAME)
    program += _allow_argument(FCNTL[column], 1, F_GETFD_AND_F_GETFL)
    program += _allow_argument(CLONE[column], 0, THREAD_FLAGS)
    program += _allow_argument(TGKILL[column], 0, (os.getpid(),))  # abort(3) sends its signal this way
    program += _allow_reading_limits(PRLIMIT[column])
    for number, error in ((CLONE3[column], errno.ENOSYS), (IOCTL[column], errno.ENOTTY)):
        program += [(BPF_JUMP_IF_EQUAL, 0, 1, number), (BPF_RETURN, 0, 0, RET_ERRNO | error)]
    return [*program, (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM)]


def _allow_reading_limits(number: int) -> Sequence[Instruction]:
    """Allow prlimit if its pointer to new limits, a 64-bit argument, is NULL."""
    checks: list[Instruction] = [
        (BPF_LOAD, 0, 0, 32),
        (BPF_JUMP_IF_EQUAL, 0, 3, 0),
        (BPF_LOAD, 0, 0, 36),
        (BPF_JUMP_IF_EQUAL, 0, 1, 0),
        (BPF_RETURN, 0, 0, RET_ALLOW),
    ]
    return [(BPF_JUMP_IF_EQUAL, 0, len(checks) + 1, number), *checks, (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM)]


def _allow_argument(number: int, argument: int, values: Sequence[int]) -> Sequence[Instruction]:
    """Allow a call if one argument, a 32-bit integer, has one of these values."""
    checks: list[Instruction] = [(BPF_LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        checks += [(BPF_JUMP_IF_EQUAL, 0, 1, value), (BPF_RETURN, 0, 0, RET_ALLOW)]
    return [(BPF_JUMP_IF_EQUAL, 0, len(checks) + 1, number), *checks, (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM)]

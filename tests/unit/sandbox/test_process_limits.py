"""A restricted process can do nothing but count and answer, in none of its threads."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import ctypes, errno, fcntl, json, mmap, os, signal, socket, subprocess, sys, threading
from podium.sandbox.process_limits import enter_sandbox

folder, answers, owner = sys.argv[1], int(sys.argv[2]), os.getppid()
open(folder + "/there", "w").close()
held = os.open(folder + "/there", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
go, done, found = threading.Event(), threading.Event(), {}
room = ctypes.create_string_buffer(4096)
X32 = 0x40000000

def call(number, *arguments):
    def act():
        result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
        if result == -1 and ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.ENOTTY, errno.EBADF):
            return f"got as far as {errno.errorcode[ctypes.get_errno()]}"
        return result
    return act

def attempt(name, act):
    try:
        result = act()
        found[name] = result == -1 or result
    except (OSError, RuntimeError, MemoryError):
        found[name] = True

ACTS = {
    "write": lambda: bool(open(folder + "/marker", "w")) - 2,
    "read": lambda: bool(open("/etc/passwd")) - 2,
    "read the owner's environment": lambda: bool(open(f"/proc/{owner}/environ", "rb").read()) - 2,
    "read the owner's memory": lambda: bool(open(f"/proc/{owner}/mem", "rb")) - 2,
    "list": lambda: bool(os.listdir("/")) - 2,
    "mkdir": lambda: os.mkdir(folder + "/marker"),
    "unlink": lambda: os.unlink(folder + "/there"),
    "chmod": lambda: os.chmod(folder + "/there", 0o777),
    "write to an open file": lambda: os.write(held, b"x"),
    "utime": lambda: os.utime(folder + "/there", (1, 1)),
    "setxattr": lambda: os.setxattr(folder + "/there", "user.a", b"1"),
    "socket": socket.socket,
    "socketpair": socket.socketpair,
    "pipe": os.pipe,
    "dup": lambda: os.dup(answers),
    "fork": os.fork,
    "system": lambda: -1 if os.system("true") else 0,
    "subprocess": lambda: subprocess.run(["true"]),
    "kill": lambda: os.kill(owner, 0),
    "own the signals of a pipe": lambda: fcntl.fcntl(answers, fcntl.F_SETOWN, owner),
    "choose the signal of a pipe": lambda: fcntl.fcntl(answers, fcntl.F_SETSIG, signal.SIGKILL),
    "be sent signals": lambda: fcntl.fcntl(answers, fcntl.F_SETFL, os.O_ASYNC),
    "lease": lambda: fcntl.fcntl(answers, fcntl.F_SETLEASE, 0),
    "be sent signals by ioctl": lambda: fcntl.ioctl(answers, 0x5452, b"\\1\\0\\0\\0"),
    "memory": lambda: len(bytearray(1 << 33)),
    "more memory": call(160, 9, room),
    "more memory by prlimit": call(302, 0, 9, room, 0),
    "limits of another": call(302, owner, 9, room, 0),
    "signal a thread of another": call(234, owner, owner, 0),
    "read another's memory": call(310, owner, 0, 0, 0, 0, 0),
    "write another's memory": call(311, owner, 0, 0, 0, 0, 0),
    "ptrace": call(101, 16, owner, 0, 0),
    "shared memory": call(29, 4711, 4096, 0o1600),
    "a file in memory": call(319, room, 0),
    "a file by its handle": call(304, -100, room, 0),
    "open a tree": call(428, -100, room, 0),
    "open a file system": call(430, room, 0),
    "openat2": call(437, -100, room, room, 24),
    "mount": call(165, room, room, room, 0, 0),
    "name spaces": call(272, 0x10000000),
    "clone a process": call(56, 17, 0, 0, 0, 0),
    "clone3": call(435, room, 88),
    "execveat": call(322, -100, room, 0, 0, 0),
    "io_uring": call(425, 8, room),
    "pidfd_open": call(434, owner, 0),
    "pidfd_getfd": call(438, 1, 1, 0),
    "userfaultfd": call(323, 0),
    "keyctl": call(250, 0, -3, 0),
    "add_key": call(248, room, room, room, 1, -3),
    "bpf": call(321, 0, room, 8),
    "perf": call(298, room, 0, -1, -1, 0),
    "another filter": call(317, 1, 0, room),
    "be dumpable": call(157, 4, 1, 0, 0, 0),
    "another user": call(117, 0, 0, 0),
    "timers": call(38, 0, room, 0),
    "getpid of x32": call(X32 | 39),
    "open of x32": call(X32 | 2, room, 0),
}

def attempts(where):
    for name, act in ACTS.items():
        attempt(f"{where}: {name}", act)

def waits():
    go.wait()
    attempts("a thread from before")
    done.set()

os.environ.clear()
threading.Thread(target=waits, daemon=True).start()
enter_sandbox(20, 1 << 30, answers)
attempts("main")
go.set()
done.wait(20)
found["more threads work"] = True
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
os.write(answers, json.dumps({"acts": len(ACTS), "found": found, "user": os.getuid()}).encode())
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe speaks in numbers of x86-64")
def test_a_restricted_process_reaches_nothing(tmp_path: Path) -> None:
    """Every attempt ends at the filter: none gets as far as an error of the call itself."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", PROBE, str(tmp_path), str(writing)]
    result = subprocess.run(command, capture_output=True, timeout=60, pass_fds=[writing], check=False)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read() or "null")
    assert answer, result.stderr
    assert len(answer["found"]) == 2 * answer["acts"] + 1
    assert {name: got for name, got in answer["found"].items() if got is not True} == {}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (result.stdout, result.stderr) == (b"", b"")
    assert answer["user"] != 0


KEYS = """
import os, sys
from podium.sandbox.process_limits import clean_environment
print(sorted(clean_environment()))
"""


def test_the_environment_of_a_child_has_no_keys() -> None:
    secrets = {"PODIUM_SIGNING_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "s", "DATABASE_PASSWORD": "s"}
    command = [sys.executable, "-c", KEYS]
    found = subprocess.run(command, capture_output=True, env={**os.environ, **secrets}, check=True, text=True).stdout
    assert not [name for name in secrets if name in found]
    assert "'PATH'" in found

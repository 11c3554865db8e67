"""A sandboxed process can only compute and write to its one descriptor, in all of its threads."""

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
from podium.sandbox.process_limits import ProcessLimits, enter_sandbox

folder, output, parent = sys.argv[1], int(sys.argv[2]), os.getppid()
open(folder + "/existing", "w").close()
open_file = os.open(folder + "/existing", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
start, done, results = threading.Event(), threading.Event(), {}
buffer = ctypes.create_string_buffer(4096)
X32 = 0x40000000

def call(number, *arguments):
    def attempt():
        result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
        if result == -1 and ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.ENOTTY, errno.EBADF):
            return f"got as far as {errno.errorcode[ctypes.get_errno()]}"
        return result
    return attempt

def record(name, attempt):
    try:
        result = attempt()
        results[name] = result == -1 or result
    except (OSError, RuntimeError, MemoryError):
        results[name] = True

ATTEMPTS = {
    "write": lambda: bool(open(folder + "/marker", "w")) - 2,
    "read": lambda: bool(open("/etc/passwd")) - 2,
    "read the parent's environment": lambda: bool(open(f"/proc/{parent}/environ", "rb").read()) - 2,
    "read the parent's memory": lambda: bool(open(f"/proc/{parent}/mem", "rb")) - 2,
    "list": lambda: bool(os.listdir("/")) - 2,
    "mkdir": lambda: os.mkdir(folder + "/marker"),
    "unlink": lambda: os.unlink(folder + "/existing"),
    "chmod": lambda: os.chmod(folder + "/existing", 0o777),
    "write to an open file": lambda: os.write(open_file, b"x"),
    "utime": lambda: os.utime(folder + "/existing", (1, 1)),
    "setxattr": lambda: os.setxattr(folder + "/existing", "user.a", b"1"),
    "socket": socket.socket,
    "socketpair": socket.socketpair,
    "pipe": os.pipe,
    "dup": lambda: os.dup(output),
    "fork": os.fork,
    "system": lambda: -1 if os.system("true") else 0,
    "subprocess": lambda: subprocess.run(["true"]),
    "kill": lambda: os.kill(parent, 0),
    "set the owner of a pipe": lambda: fcntl.fcntl(output, fcntl.F_SETOWN, parent),
    "choose the signal of a pipe": lambda: fcntl.fcntl(output, fcntl.F_SETSIG, signal.SIGKILL),
    "request signals": lambda: fcntl.fcntl(output, fcntl.F_SETFL, os.O_ASYNC),
    "lease": lambda: fcntl.fcntl(output, fcntl.F_SETLEASE, 0),
    "request signals by ioctl": lambda: fcntl.ioctl(output, 0x5452, b"\\1\\0\\0\\0"),
    "memory": lambda: len(bytearray(1 << 33)),
    "more memory": call(160, 9, buffer),
    "more memory by prlimit": call(302, 0, 9, buffer, 0),
    "limits of another": call(302, parent, 9, buffer, 0),
    "signal a thread of another": call(234, parent, parent, 0),
    "read another's memory": call(310, parent, 0, 0, 0, 0, 0),
    "write another's memory": call(311, parent, 0, 0, 0, 0, 0),
    "ptrace": call(101, 16, parent, 0, 0),
    "shared memory": call(29, 4711, 4096, 0o1600),
    "a file in memory": call(319, buffer, 0),
    "a file by its handle": call(304, -100, buffer, 0),
    "open a tree": call(428, -100, buffer, 0),
    "open a file system": call(430, buffer, 0),
    "openat2": call(437, -100, buffer, buffer, 24),
    "mount": call(165, buffer, buffer, buffer, 0, 0),
    "name spaces": call(272, 0x10000000),
    "clone a process": call(56, 17, 0, 0, 0, 0),
    "clone3": call(435, buffer, 88),
    "execveat": call(322, -100, buffer, 0, 0, 0),
    "io_uring": call(425, 8, buffer),
    "pidfd_open": call(434, parent, 0),
    "pidfd_getfd": call(438, 1, 1, 0),
    "userfaultfd": call(323, 0),
    "keyctl": call(250, 0, -3, 0),
    "add_key": call(248, buffer, buffer, buffer, 1, -3),
    "bpf": call(321, 0, buffer, 8),
    "perf": call(298, buffer, 0, -1, -1, 0),
    "another filter": call(317, 1, 0, buffer),
    "be dumpable": call(157, 4, 1, 0, 0, 0),
    "another user": call(117, 0, 0, 0),
    "timers": call(38, 0, buffer, 0),
    "getpid of x32": call(X32 | 39),
    "open of x32": call(X32 | 2, buffer, 0),
}

def attempt_all(where):
    for name, attempt in ATTEMPTS.items():
        record(f"{where}: {name}", attempt)

def wait_and_attempt():
    start.wait()
    attempt_all("an earlier thread")
    done.set()

os.environ.clear()
threading.Thread(target=wait_and_attempt, daemon=True).start()
enter_sandbox(ProcessLimits(20, 1 << 30), output)
attempt_all("main")
start.set()
done.wait(20)
results["more threads work"] = True
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
os.write(output, json.dumps({"attempts": len(ATTEMPTS), "results": results, "user": os.getuid()}).encode())
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe uses system call numbers of x86-64")
def test_a_sandboxed_process_has_no_access(tmp_path: Path) -> None:
    """The filter rejects every attempt; none reaches the system call itself."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", PROBE, str(tmp_path), str(writing)]
    result = subprocess.run(command, capture_output=True, timeout=60, pass_fds=[writing], check=False)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        report = json.loads(pipe.read() or "null")
    assert report, result.stderr
    assert len(report["results"]) == 2 * report["attempts"] + 1
    assert {name: result for name, result in report["results"].items() if result is not True} == {}
    assert [path.name for path in tmp_path.iterdir()] == ["existing"]
    assert (result.stdout, result.stderr) == (b"", b"")
    assert report["user"] != 0


VARIABLES = """
import os, sys
from podium.sandbox.process_limits import clean_environment
print(sorted(clean_environment()))
"""


def test_the_environment_of_a_child_has_no_secrets() -> None:
    secrets = {"PODIUM_SIGNING_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "s", "DATABASE_PASSWORD": "s"}
    command = [sys.executable, "-c", VARIABLES]
    output = subprocess.run(command, capture_output=True, env={**os.environ, **secrets}, check=True, text=True).stdout
    assert not [name for name in secrets if name in output]
    assert "'PATH'" in output

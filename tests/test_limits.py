"""A restricted process can do nothing but count and answer, in none of its threads."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import ctypes, json, os, signal, socket, subprocess, sys, threading
from podium.limits import restrict

folder = sys.argv[1]
open(folder + "/there", "w").close()
held = os.open(folder + "/there", os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
go, done, found = threading.Event(), threading.Event(), {}

def attempt(name, act):
    try:
        found[name] = bool(act() == -1)
    except (OSError, RuntimeError, MemoryError):
        found[name] = True

def attempts(where):
    acts = {
        "write": lambda: open(folder + "/marker", "w"),
        "mkdir": lambda: os.mkdir(folder + "/marker"),
        "unlink": lambda: os.unlink(folder + "/there"),
        "chmod": lambda: os.chmod(folder + "/there", 0o777),
        "fchmod": lambda: os.fchmod(held, 0o777),
        "utime": lambda: os.utime(folder + "/there", (1, 1)),
        "setxattr": lambda: os.setxattr(folder + "/there", "user.a", b"1"),
        "socket": socket.socket,
        "socketpair": socket.socketpair,
        "fork": os.fork,
        "system": lambda: -1 if os.system("true") else 0,
        "subprocess": lambda: subprocess.run(["true"]),
        "kill": lambda: os.kill(os.getppid(), 0),
        "signal a thread of another": lambda: libc.syscall(234, os.getppid(), os.getppid(), 0),
        "read another's memory": lambda: libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0),
        "shared memory": lambda: libc.syscall(29, 4711, 4096, 0o1600),
        "a file in memory": lambda: libc.syscall(319, b"x", 0),
        "memory": lambda: bytearray(1 << 33),
        "limits": lambda: libc.syscall(302, 0, 4, 0, 0),
        "read": lambda: open("/etc/passwd"),
    }
    for name, act in acts.items():
        attempt(f"{where}: {name}", act)

def waits():
    go.wait()
    attempts("a thread from before")
    done.set()

threading.Thread(target=waits, daemon=True).start()
restrict(20, 1 << 30, no_files=True)
attempts("main")
go.set()
done.wait(20)
os.write(1, json.dumps(found).encode())
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe speaks in numbers of x86-64")
def test_a_restricted_process_reaches_nothing(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path)], capture_output=True, timeout=60, check=True)
    found = json.loads(result.stdout)
    assert len(found) == 40, result.stderr
    assert [name for name, refused in found.items() if not refused] == []
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

"""Versions are loaded and proved in a child process with limits before any process that serves touches them.

A damaged model may crash, hang or eat all memory instead of raising. So a helper, started once with everything imported, forks
a child for each proof; the child gets the very bytes that will be loaded, and no way to fetch others.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from podium.limits import restrict
from podium.loading import Loaded, Proof, Unloadable, load_manifest, load_proved, prove_version
from podium.settings import ROOT
from podium.store.cache import alone, write_whole
from podium.store.s3 import StoreError
from podium.store.signing import Keys
from podium.store.versions import GOLDEN_FILE, Fetch, Manifest, model_file, read_file, version_prefix

LENGTH = struct.Struct("!Q")
MOST_BYTES = 2 << 30
"""What a proof may need of memory beyond the helper itself."""


class Prover:
    """Loads versions after a child has shown that it can; thread-safe, one proof at a time.

    With `notes`, a folder that only processes of one service can write, what one proved the others need not prove again.
    """

    def __init__(self, seconds: float = 30.0, most_bytes: int = MOST_BYTES, notes: Path | None = None) -> None:
        self._seconds, self._most, self._notes = seconds, most_bytes, notes
        self._helper: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def load(self, project: str, version: str, sha256: str, fetch: Fetch, trainers: Keys) -> Loaded:
        """The models of a version, proved in a child and loaded from the same bytes. Raises StoreError."""
        manifest = load_manifest(project, version, sha256, fetch, trainers)
        if (size := sum(file.size for file in manifest.files.values())) > self._most:
            raise Unloadable(f"{project} {version}: its files are said to take {size} bytes, more than a proof may have")
        files = _files(manifest, fetch)
        with self._noted(sha256) as note:
            reply = note or self._ask(
                {"manifest": manifest, "files": files, "seconds": self._seconds, "most_bytes": self._most}
            )
            if isinstance(reply, str):
                raise Unloadable(reply)
            if self._notes and not note:
                with contextlib.suppress(OSError):  # a full disk costs the others a proof, no more
                    write_whole(self._notes / f"{sha256}.json", json.dumps(reply).encode())
        return load_proved(manifest, Proof(reply["largest_difference"], tuple(reply["fast"])), lambda key, *_: files[key])

    @contextlib.contextmanager
    def _noted(self, sha256: str) -> Iterator[dict[str, Any] | None]:
        """What another process of this service proved of the same manifest, which binds every byte; others wait meanwhile."""
        if not self._notes:
            yield None
            return
        with alone(self._notes / f"{sha256}.lock"):
            try:
                note: dict[str, Any] | None = json.loads((self._notes / f"{sha256}.json").read_bytes())
            except (OSError, ValueError):
                note = None
            yield note

    def start(self) -> None:
        """Start the helper ahead of the first proof."""
        if self._helper is not None and self._helper.poll() is not None:
            self._end()
        if self._helper is None:
            command = [sys.executable, "-m", "podium.prover"]
            self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def _ask(self, request: dict[str, Any]) -> str | dict[str, Any]:
        """What is wrong in words, or what was proved."""
        payload = pickle.dumps(request)
        with self._one_at_a_time:
            self.start()
            assert self._helper and self._helper.stdin and self._helper.stdout
            try:
                self._helper.stdin.write(LENGTH.pack(len(payload)) + payload)
                self._helper.stdin.flush()
                reply = self._helper.stdout.readline()
            except OSError:
                reply = b""
            if not reply:
                self._end()
                raise Unloadable("the process that proves models has ended; it is started again for the next try")
            found: str | dict[str, Any] = json.loads(reply)
            return found

    def _end(self) -> None:
        if self._helper:
            for pipe in (self._helper.stdin, self._helper.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._helper.kill()
            self._helper.wait()
            self._helper = None

    def close(self) -> None:
        with self._one_at_a_time:
            self._end()


def _files(manifest: Manifest, fetch: Fetch) -> dict[str, bytes]:
    """The verified bytes of everything that a proof needs, by key."""
    names = [GOLDEN_FILE, *map(model_file, manifest.families)]
    return {version_prefix(manifest.project, manifest.version) + name: read_file(manifest, name, fetch) for name in names}


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """The helper's loop: a request, a forked child, a reply; ends when nobody asks any more."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        request = pickle.loads(requests.read(*LENGTH.unpack(head)))  # noqa: S301 - what the owner wrote
        found = _in_a_child(functools.partial(_prove, request), request["seconds"], request["most_bytes"])
        replies.write(json.dumps(found).encode() + b"\n")
        replies.flush()


def _prove(request: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, bytes] = request["files"]
    return asdict(prove_version(request["manifest"], lambda key, *_: files[key]))


def _in_a_child(work: Callable[[], dict[str, Any]], seconds: float, most_bytes: int) -> str | dict[str, Any]:
    """What `work` found, or in words what became of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            restrict(seconds, most_bytes)
            os.write(writing, json.dumps(work()).encode())
        except MemoryError:
            os.write(writing, b'"needs more memory than a proof may have"')
        except Exception as error:
            words = str(error) if isinstance(error, StoreError) else f"{type(error).__name__} while it was loaded"
            os.write(writing, json.dumps(words).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        return _outcome(child, reading, time.monotonic() + seconds, seconds)
    finally:
        os.close(reading)


def _outcome(child: int, reading: int, end: float, seconds: float) -> str | dict[str, Any]:
    """What the child wrote, or how it ended without a word."""
    words = b""
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reading, 4096)
        if not piece:
            break
        words += piece
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return f"did not load within {seconds:g} s"
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if words:
        found: str | dict[str, Any] = json.loads(words)
        return found
    return f"crashed while it was loaded ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with its owner
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not lie between the answers
    serve(sys.stdin.buffer, answers)

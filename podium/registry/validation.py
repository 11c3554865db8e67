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
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from podium.models.onnx_scorer import OnnxScorer
from podium.registry.library_warm_up import warm_up_libraries, warm_up_onnx
from podium.registry.loading import (
    LoadedVersion,
    ModelLoadError,
    ValidationResult,
    load_manifest,
    load_validated,
    validate_version,
)
from podium.registry.signing import VerifyingKeys
from podium.registry.versions import GOLDEN_FILE, Fetch, Manifest, model_file, read_file, version_prefix
from podium.sandbox.child_process import NO_ANSWER, run_in_child
from podium.sandbox.process_limits import clean_environment
from podium.settings import ROOT
from podium.storage.files import atomic_write, file_lock

MAX_MEMORY = 2 << 30
"""What a proof may need of memory beyond the helper itself."""

MAX_CONCURRENT, START_SECONDS = 4, 60.0
RESULT = TypeAdapter(ValidationResult)


class Validator:
    """Loads versions after a child has shown that it can; thread-safe, with up to `max_concurrent` proofs at a time.

    With `notes`, a folder that only processes of one service can write, what one proved the others need not prove again.
    """

    def __init__(
        self,
        seconds: float = 30.0,
        max_bytes: int = MAX_MEMORY,
        notes: Path | None = None,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        self._seconds, self._most, self._notes = seconds, max_bytes, notes
        self._helper: _ForkServer | None = None
        self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(max_concurrent)

    def load(self, project: str, version: str, sha256: str, fetch: Fetch, trainers: VerifyingKeys) -> LoadedVersion:
        """The models of a version, proved in a child and loaded from the same bytes. Raises StoreError."""
        manifest = load_manifest(project, version, sha256, fetch, trainers)
        if (size := sum(file.size for file in manifest.files.values())) > self._most:
            raise ModelLoadError(f"{project} {version}: its files are said to take {size} bytes, more than a proof may have")
        files = _files(manifest, fetch)
        with self._noted(sha256) as note:
            proof = note or self._ask({"manifest": manifest, "files": files, "seconds": self._seconds, "max_bytes": self._most})
            if self._notes and not note:
                with contextlib.suppress(OSError):  # a full disk costs the others a proof, no more
                    atomic_write(self._notes / f"{sha256}.json", RESULT.dump_json(proof))
        return load_validated(manifest, proof, lambda key, *_: files[key])

    @contextlib.contextmanager
    def _noted(self, sha256: str) -> Iterator[ValidationResult | None]:
        """What another process of this service proved of the same manifest, which binds every byte; others wait meanwhile."""
        if not self._notes:
            yield None
            return
        with file_lock(self._notes / f"{sha256}.lock"):
            try:
                note: ValidationResult | None = RESULT.validate_json((self._notes / f"{sha256}.json").read_bytes())
            except (OSError, ValueError):
                note = None
            yield note

    def start(self) -> None:
        """Start the helper ahead of the first proof."""
        with self._lock:
            self._running()

    def _running(self) -> _ForkServer:
        """Under the lock: the helper, a new one if it has ended."""
        if self._helper is not None and self._helper.process.poll() is not None:
            self._end()
        if self._helper is None:
            self._helper = _ForkServer()
        return self._helper

    def _ask(self, request: dict[str, Any]) -> ValidationResult:
        """What was proved. Raises Unloadable."""
        payload = pickle.dumps(request)
        with self._slots:
            mine, theirs = socket.socketpair()
            with mine:
                mine.settimeout(self._seconds + START_SECONDS)
                try:
                    with theirs, self._lock:
                        self._running().hand_over(theirs)
                    mine.sendall(payload)
                    mine.shutdown(socket.SHUT_WR)
                    reply = mine.makefile("rb").read()
                except OSError:
                    reply = b""
        if not reply:
            raise ModelLoadError("the process that proves models has ended; it is started again for the next try")
        return _result(json.loads(reply))

    def _end(self) -> None:
        if self._helper:
            self._helper.end()
            self._helper = None

    def close(self) -> None:
        with self._lock:
            self._end()


def _result(found: object) -> ValidationResult:
    """Raises Unloadable with what was said of the version, or for an answer of another form."""
    if isinstance(found, str):
        raise ModelLoadError(found)
    try:
        return RESULT.validate_python(found)
    except ValidationError:
        raise ModelLoadError(NO_ANSWER) from None


class _ForkServer:
    """A process with everything imported, in a session of its own; each request comes by a socket of its own."""

    def __init__(self) -> None:
        self._owner, other = socket.socketpair()
        command = [sys.executable, "-m", "podium.registry.validation", str(other.fileno())]
        with other:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                cwd=ROOT,
                env=clean_environment(),
                start_new_session=True,
            )

    def hand_over(self, request: socket.socket) -> None:
        socket.send_fds(self._owner, [b"x"], [request.fileno()])

    def end(self) -> None:
        """The helper and every child of it."""
        self._owner.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _files(manifest: Manifest, fetch: Fetch) -> dict[str, bytes]:
    """The verified bytes of everything that a proof needs, by key."""
    names = [GOLDEN_FILE, *map(model_file, manifest.families)]
    return {version_prefix(manifest.project, manifest.version) + name: read_file(manifest, name, fetch) for name in names}


# --- the helper --------------------------------------------------------------------------------------------------------


def serve(owner: socket.socket) -> None:
    """The helper's loop: a forked process for each request; ends, with all of them, when nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            message, received, _, _ = socket.recv_fds(owner, 1, 1)
        except OSError:
            message = b""
        if not message:
            os.killpg(0, signal.SIGKILL)
        request = socket.socket(fileno=received[0])
        if os.fork() == 0:
            owner.close()
            try:
                answer(request)
            finally:
                os._exit(0)
        request.close()


def answer(connection: socket.socket) -> None:
    """Read a request, have a restricted child prove it, and write what it found."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = pickle.loads(connection.makefile("rb").read())  # noqa: S301 - what the owner wrote
    if any(OnnxScorer.__module__.encode() in data for data in request["files"].values()):
        warm_up_onnx()
    found = run_in_child(functools.partial(_validate, request), request["seconds"], request["max_bytes"])
    connection.sendall(json.dumps(found).encode())


def _validate(request: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, bytes] = request["files"]
    return RESULT.dump_python(validate_version(request["manifest"], lambda key, *_: files[key]), mode="json")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with its owner
    warm_up_libraries()
    serve(socket.socket(fileno=int(sys.argv[1])))

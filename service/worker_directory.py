"""The folder that the workers of a host share: results, the state of jobs, and what each worker serves."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from podium.registry.provenance import code_digest, libraries
from podium.storage.files import atomic_write
from service.problems import StorageFull, UnknownResult

NAME = re.compile(r"[A-Za-z0-9_-]{24}")
MAX_RESULTS, MAX_JOBS = 50, 50
"""Of one caller; the oldest make room."""
MAX_FOLDER_BYTES = 4_000_000_000
"""Of the results or jobs of one caller."""
PREFIX, LOCK = "podium-shared-", "lock"
SILENT_SECONDS = 15.0
"""A worker that has not told of itself for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a result or a job: the headers of its answer, further facts, and what another process needs for it."""

    headers: dict[str, str]
    facts: dict[str, Any]
    work: dict[str, Any] = field(default_factory=dict)


class WorkerDirectory:
    """Files of each caller with a note beside each, the oldest making room; and a note of each worker."""

    def __init__(self, folder: Path | None) -> None:
        release = hashlib.sha256(json.dumps([libraries(), code_digest()]).encode()).hexdigest()[:16]
        self._own = None if folder else OwnFolder()
        self.folder = self._own.path if self._own else folder or Path()
        self.results, self.jobs, self._workers = (self.folder / name for name in ("results", "jobs", "workers"))
        for each in (self.results, self.jobs, self._workers):
            each.mkdir(parents=True, exist_ok=True)
        self.proofs = self.folder / f"proofs-{release}" if folder else None
        self._me = self._workers / f"{os.getpid()}-{secrets.token_hex(4)}.json"

    def new_path(self, root: Path, owner: str, ending: str) -> Path:
        """A file in the caller's own folder, with a name that cannot be guessed. Raises StorageFull."""
        folder = root / _folder_name(owner)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            raise StorageFull("the file cannot be kept now") from None
        return folder / f"{secrets.token_urlsafe(18)}{ending}"

    def keep_result(self, data: bytes, headers: dict[str, str], owner: str) -> str:
        """Keep a file for download; returns its name. Raises StorageFull."""
        path = self.new_path(self.results, owner, ".csv")
        try:
            path.write_bytes(data)
            write_record(path, JobRecord(headers, {}))
        except OSError:
            remove_files(path)
            raise StorageFull("the result cannot be kept now") from None
        delete_oldest(path.parent, MAX_RESULTS)
        return path.stem

    def find(self, root: Path, name: str, owner: str) -> Path:
        """The note of a caller's own result or job. Raises UnknownResult, for another caller's too."""
        path = root / _folder_name(owner) / f"{name}.json"
        if not NAME.fullmatch(name) or not path.exists():
            raise UnknownResult("there is nothing of that name, or it made room for newer ones")
        return path

    def result(self, name: str, owner: str) -> tuple[Path, dict[str, str]]:
        """A kept result and the headers of its answer. Raises UnknownResult."""
        note = self.find(self.results, name, owner)
        return note.with_suffix(".csv"), read_record(note).headers

    def publish_status(self, facts: Mapping[str, Any]) -> None:
        """What this worker serves and has counted, for the others."""
        with suppress(OSError):
            atomic_write(self._me, json.dumps({"pid": os.getpid(), **facts}).encode())

    def peer_status(self) -> list[dict[str, Any]]:
        """What the other workers told last, dead ones too, whose counts stay; `alive` says which are not."""
        found = []
        for path in sorted(self._workers.glob("*.json")):
            with suppress(OSError):
                if path != self._me:
                    told = json.loads(path.read_bytes())
                    alive = _is_alive(told["pid"]) and time.time() - path.stat().st_mtime < SILENT_SECONDS
                    found.append({**told, "alive": alive})
        return found

    def close(self) -> None:
        if self._own:
            self._own.close()


class OwnFolder:
    """A temporary folder with a lock that ends with the process, so that what a killed process left behind is removed."""

    def __init__(self) -> None:
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError), (path / LOCK).open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = (self.path / LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def read_record(path: Path) -> JobRecord:
    """Raises UnknownResult."""
    try:
        found = json.loads(path.read_bytes())
        return JobRecord(found["headers"], found["facts"], found["work"])
    except (OSError, ValueError, KeyError):
        raise UnknownResult("there is nothing of that name, or it made room for newer ones") from None


def write_record(path: Path, note: JobRecord) -> None:
    """Write or replace the note beside a file. Raises OSError."""
    document = {"headers": note.headers, "facts": note.facts, "work": note.work, "process": _process(os.getpid())}
    atomic_write(path.with_suffix(".json"), json.dumps(document).encode())


def is_abandoned(path: Path) -> bool:
    """Whether the process that wrote a note of an unfinished job has ended."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_bytes())
        pid, started = found["process"]
        return found["facts"].get("state") in UNFINISHED and _process(pid) != [pid, started]
    return False


def remove_files(path: Path) -> None:
    """A result or a job with everything that belongs to it."""
    for ending in (".csv", ".upload", ".cancel", ".json"):
        with suppress(OSError):
            path.with_suffix(ending).unlink(missing_ok=True)


def delete_oldest(folder: Path, maximum: int) -> None:
    """Remove the oldest files over the maximum or over MAX_FOLDER_BYTES, but no unfinished job."""
    size = 0
    for place, path in enumerate(sorted(folder.glob("*.json"), key=_written, reverse=True)):
        size += _size(path.with_suffix(".csv"))
        if place == 0 or (place < maximum and size <= MAX_FOLDER_BYTES):
            continue
        with suppress(UnknownResult):
            if read_record(path).facts.get("state") not in UNFINISHED or is_abandoned(path):
                remove_files(path)


UNFINISHED = ("waiting", "running")


def _folder_name(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _process(pid: int) -> list[float] | None:
    """A process by its number and start, as numbers come again."""
    try:
        process = psutil.Process(pid)
        return [pid, process.create_time()] if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another worker was faster
        return 0.0

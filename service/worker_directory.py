"""The folder that the workers of a host share: results, jobs, and the status of each worker."""

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
from service.errors import StorageFull, UnknownResult

RESULT_ID = re.compile(r"[A-Za-z0-9_-]{24}")
MAX_RESULTS, MAX_JOBS = 50, 50
"""Maximum files per caller; the oldest are deleted."""
MAX_FOLDER_BYTES = 4_000_000_000
"""Maximum size of the results or jobs of one caller."""
PREFIX, LOCK = "podium-shared-", "lock"
UNFINISHED = ("waiting", "running")
SILENT_SECONDS = 15.0
"""A worker that has not published its status for this long counts as dead."""
NOT_FOUND = "job not found or expired"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The stored state of a result or a job: response headers, public facts, and what a restart needs."""

    headers: dict[str, str]
    facts: dict[str, Any]
    work: dict[str, Any] = field(default_factory=dict)


class WorkerDirectory:
    """The files of each caller, each with a JSON record, and a status file per worker."""

    def __init__(self, folder: Path | None) -> None:
        release = hashlib.sha256(json.dumps([libraries(), code_digest()]).encode()).hexdigest()[:16]
        self._temporary = None if folder else TemporaryFolder()
        self.folder = self._temporary.path if self._temporary else folder or Path()
        self.results, self.jobs, self._workers = (self.folder / name for name in ("results", "jobs", "workers"))
        for subfolder in (self.results, self.jobs, self._workers):
            subfolder.mkdir(parents=True, exist_ok=True)
        self.validations = self.folder / f"validations-{release}" if folder else None
        self._status_file = self._workers / f"{os.getpid()}-{secrets.token_hex(4)}.json"

    def new_path(self, root: Path, owner: str, suffix: str) -> Path:
        """Return a path in the caller's folder with an unguessable name. Raises StorageFull."""
        folder = root / _folder_name(owner)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            raise StorageFull("the file cannot be stored") from None
        return folder / f"{secrets.token_urlsafe(18)}{suffix}"

    def store_result(self, data: bytes, headers: dict[str, str], owner: str) -> str:
        """Store a file for download and return its id. Raises StorageFull."""
        path = self.new_path(self.results, owner, ".csv")
        try:
            path.write_bytes(data)
            write_record(path, JobRecord(headers, {}))
        except OSError:
            remove_files(path)
            raise StorageFull("the result cannot be stored") from None
        delete_oldest(path.parent, MAX_RESULTS)
        return path.stem

    def find(self, root: Path, name: str, owner: str) -> Path:
        """Return the record path of a caller's result or job. Raises UnknownResult, including for those of other callers."""
        path = root / _folder_name(owner) / f"{name}.json"
        if not RESULT_ID.fullmatch(name) or not path.exists():
            raise UnknownResult(NOT_FOUND)
        return path

    def result(self, name: str, owner: str) -> tuple[Path, dict[str, str]]:
        """Return the path of a stored result and its response headers. Raises UnknownResult."""
        record = self.find(self.results, name, owner)
        return record.with_suffix(".csv"), read_record(record).headers

    def publish_status(self, status: Mapping[str, Any]) -> None:
        """Write the status of this worker for the other workers."""
        with suppress(OSError):
            atomic_write(self._status_file, json.dumps({"pid": os.getpid(), **status}).encode())

    def peer_status(self) -> list[dict[str, Any]]:
        """Return the last status of each other worker, with `alive`; dead workers are included: their counters stay valid."""
        peers = []
        for path in sorted(self._workers.glob("*.json")):
            with suppress(OSError):
                if path != self._status_file:
                    status = json.loads(path.read_bytes())
                    alive = psutil.pid_exists(status["pid"]) and time.time() - path.stat().st_mtime < SILENT_SECONDS
                    peers.append({**status, "alive": alive})
        return peers

    def close(self) -> None:
        if self._temporary:
            self._temporary.close()


class TemporaryFolder:
    """A temporary folder with a lock held by the process; creating one deletes the folders of killed processes."""

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
    """Read the record of a job or result. Raises UnknownResult."""
    try:
        document = json.loads(path.read_bytes())
        return JobRecord(document["headers"], document["facts"], document["work"])
    except (OSError, ValueError, KeyError):
        raise UnknownResult(NOT_FOUND) from None


def write_record(path: Path, record: JobRecord) -> None:
    """Write or replace the record of a file. Raises OSError."""
    document = {"headers": record.headers, "facts": record.facts, "work": record.work, "process": _process(os.getpid())}
    atomic_write(path.with_suffix(".json"), json.dumps(document).encode())


def is_abandoned(path: Path) -> bool:
    """Return whether a record belongs to an unfinished job whose process has ended."""
    with suppress(OSError, ValueError, KeyError):
        document = json.loads(path.read_bytes())
        pid, started = document["process"]
        return document["facts"].get("state") in UNFINISHED and _process(pid) != [pid, started]
    return False


def remove_files(path: Path) -> None:
    """Delete a result or a job with its record, upload and cancellation marker."""
    for ending in (".csv", ".upload", ".cancel", ".json"):
        with suppress(OSError):
            path.with_suffix(ending).unlink(missing_ok=True)


def delete_oldest(folder: Path, max_files: int) -> None:
    """Delete the oldest files beyond `max_files` or MAX_FOLDER_BYTES, but keep unfinished jobs."""
    size = 0
    for position, path in enumerate(sorted(folder.glob("*.json"), key=_modified, reverse=True)):
        size += _size(path.with_suffix(".csv"))
        if position == 0 or (position < max_files and size <= MAX_FOLDER_BYTES):
            continue
        with suppress(UnknownResult):
            if read_record(path).facts.get("state") not in UNFINISHED or is_abandoned(path):
                remove_files(path)


def _folder_name(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _process(pid: int) -> list[float] | None:
    """Identify a process by id and start time, as ids are reused."""
    try:
        process = psutil.Process(pid)
        return [pid, process.create_time()] if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another worker deleted it
        return 0.0

"""The folder that the workers of a host share: results, the state of jobs, and what each worker serves."""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.provenance import code_digest, libraries
from podium.store.cache import write_whole
from service.problems import StorageFull, UnknownResult

NAME = re.compile(r"[A-Za-z0-9_-]{24}")
MOST_RESULTS, MOST_JOBS = 100, 50
LOST = "the process that worked on it has ended: send it again"
SILENT_SECONDS = 15.0
"""A worker that has not told of itself for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a result or a job: whose it is, the headers of its answer, and further facts."""

    owner: str
    headers: dict[str, str]
    facts: dict[str, Any]


class Shared:
    """Files with a note beside each, the oldest making room; and a note of each worker."""

    def __init__(self, folder: Path | None) -> None:
        self._own = folder is None
        release = hashlib.sha256(json.dumps([libraries(), code_digest()]).encode()).hexdigest()[:16]
        self.folder = folder or Path(tempfile.mkdtemp(prefix="podium-shared-"))
        self.results, self.jobs, self._workers = (self.folder / name for name in ("results", "jobs", "workers"))
        for each in (self.results, self.jobs, self._workers):
            each.mkdir(parents=True, exist_ok=True)
        self.proofs = self.folder / f"proofs-{release}" if folder else None
        self._me = self._workers / f"{os.getpid()}-{secrets.token_hex(4)}.json"

    def new_name(self) -> str:
        """One that cannot be guessed."""
        return secrets.token_urlsafe(18)

    def keep_result(self, data: bytes, headers: dict[str, str], owner: str) -> str:
        """Keep a file for download; returns its name. Raises StorageFull."""
        name = self.new_name()
        path = self.results / f"{name}.csv"
        try:
            path.write_bytes(data)
            self.note(self.results, name, Note(owner, headers, {}))
        except OSError:
            path.unlink(missing_ok=True)
            raise StorageFull("the result cannot be kept now") from None
        _make_room(self.results, MOST_RESULTS)
        return name

    def note(self, folder: Path, name: str, note: Note) -> None:
        """Write or replace a note. Raises OSError."""
        document = {"owner": note.owner, "headers": note.headers, "facts": note.facts, "pid": os.getpid()}
        write_whole(folder / f"{name}.json", json.dumps(document).encode())

    def read(self, folder: Path, name: str, owner: str) -> Note:
        """Raises UnknownResult, for somebody else's too."""
        if NAME.fullmatch(name):
            with suppress(OSError):
                found = json.loads((folder / f"{name}.json").read_bytes())
                if found["owner"] == owner:
                    facts = found["facts"]
                    if facts.get("state") in ("waiting", "running") and not _lives(found["pid"]):
                        facts |= {
                            "state": "failed",
                            "reason": LOST,
                            "errors": [],
                        }
                    return Note(owner, found["headers"], facts)
        raise UnknownResult("there is nothing of that name, or it made room for newer ones")

    def make_room_for_jobs(self) -> None:
        _make_room(self.jobs, MOST_JOBS)

    def tell(self, facts: Mapping[str, Any]) -> None:
        """What this worker serves and has counted, for the others."""
        with suppress(OSError):
            write_whole(self._me, json.dumps({"pid": os.getpid(), **facts}).encode())

    def others(self) -> list[dict[str, Any]]:
        """What the other workers told last, dead ones too, whose counts stay; `alive` says which are not."""
        found = []
        for path in sorted(self._workers.glob("*.json")):
            with suppress(OSError):
                if path != self._me:
                    told = json.loads(path.read_bytes())
                    alive = _lives(told["pid"]) and time.time() - path.stat().st_mtime < SILENT_SECONDS
                    found.append({**told, "alive": alive})
        return found

    def close(self) -> None:
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another worker was faster
        return 0.0


def _make_room(folder: Path, most: int) -> None:
    """The oldest notes go with their files, but none of a job that is not done."""
    notes = sorted(folder.glob("*.json"), key=_written)
    for note in notes[: max(0, len(notes) - most)]:
        with suppress(OSError):
            told = json.loads(note.read_bytes())
            if told["facts"].get("state") in ("waiting", "running") and _lives(told["pid"]):
                continue
            for ending in (".csv", ".upload", ".json"):
                note.with_suffix(ending).unlink(missing_ok=True)

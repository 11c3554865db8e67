"""Files by their digest on the local disk, so that they are fetched once a host and are there when S3 is not."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from podium.store.s3 import Store
from podium.store.versions import digest

log = logging.getLogger(__name__)


class Cache:
    """A folder shared by the processes of a host: files named by their sha256, and the last entry that served of each project.

    What is written is there whole or not at all, and is verified again whenever it is read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, store: Store, key: str, sha256: str, max_bytes: int | None = None) -> bytes:
        """The bytes from here, or else from the store, and then from here the next time; one process fetches, others wait.

        Raises TooLarge if the object in the store has more than `max_bytes`.
        """
        path = self.folder / sha256
        found = _whole(path, sha256)
        if found is not None:
            return found
        with alone(self.folder / f".lock-{sha256[:2]}"):
            found = _whole(path, sha256)
            if found is not None:
                return found
            data = store.read(key, max_bytes=max_bytes).data
            if digest(data) == sha256:
                self._keep(path, data)
        return data

    def keep_entry(self, place: str, project: str, data: bytes) -> None:
        """Remember what served last; `place` says of which store."""
        self._keep(self._entries(place) / f"{project}.json", data)

    def confirm_entries(self, place: str) -> None:
        """The store was asked, and these entries are still its last ones."""
        with suppress(OSError):
            for path in self._entries(place).glob("*.json"):
                os.utime(path)

    def entries(self, place: str) -> dict[str, tuple[bytes, float]]:
        """What served last, by project, and when the store last said so (seconds since 1970)."""
        with suppress(OSError):
            paths = sorted(self._entries(place).glob("*.json"))
            return {path.stem: (path.read_bytes(), path.stat().st_mtime) for path in paths}
        return {}

    def _entries(self, place: str) -> Path:
        return self.folder / "entries" / hashlib.sha256(place.encode()).hexdigest()[:16]

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            write_whole(path, data)
        except OSError:  # a full or vanished disk costs a fetch the next time, no more
            log.warning("%s cannot be written", path, exc_info=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While other processes of this host wait at the same path; without a disk that can be written, nobody waits."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _whole(path: Path, sha256: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if digest(data) == sha256 else None


class Bell:
    """A file by which the processes of a host wake each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard = self._last()

    def ring(self) -> None:
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(time.time_ns()))
        self._heard = self._last()

    def rang(self) -> bool:
        """Whether another process rang since this was asked last."""
        last = self._last()
        rang, self._heard = last != self._heard, last
        return rang

    def _last(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0


def write_whole(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename: a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise

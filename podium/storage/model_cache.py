"""A local disk cache: model files by digest, and the last known champion of each project."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from podium.storage.files import atomic_write, file_lock
from podium.storage.object_store import Store, digest

log = logging.getLogger(__name__)


class ModelCache:
    """A folder that the processes of a host share. Writes are atomic, and files are verified on every read.

    The cache lets a host download each file only once and keep serving while S3 is unavailable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, store: Store, key: str, sha256: str, max_bytes: int | None = None) -> bytes:
        """Return a file from the cache, or download and cache it; one process downloads while others wait.

        Raises TooLarge if the object in the store has more than `max_bytes`.
        """
        path = self.folder / sha256
        cached = _read_verified(path, sha256)
        if cached is not None:
            return cached
        with file_lock(self.folder / f".lock-{sha256[:2]}"):
            cached = _read_verified(path, sha256)
            if cached is not None:
                return cached
            data = store.read(key, max_bytes=max_bytes).data
            if digest(data) == sha256:
                self._write(path, data)
        return data

    def remember_alias(self, location: str, project: str, data: bytes) -> None:
        """Cache the alias of a project; `location` identifies the store."""
        self._write(self._alias_folder(location) / f"{project}.json", data)

    def touch_aliases(self, location: str) -> None:
        """Record that the store has just been read and that all its cached aliases are current."""
        with suppress(OSError):
            for path in self._alias_folder(location).glob("*.json"):
                os.utime(path)

    def aliases(self, location: str) -> dict[str, tuple[bytes, float]]:
        """Return the cached alias of each project, and when the store last confirmed it (seconds since 1970)."""
        with suppress(OSError):
            paths = sorted(self._alias_folder(location).glob("*.json"))
            return {path.stem: (path.read_bytes(), path.stat().st_mtime) for path in paths}
        return {}

    def _alias_folder(self, location: str) -> Path:
        return self.folder / "aliases" / digest(location.encode())[:16]

    def _write(self, path: Path, data: bytes) -> None:
        try:
            atomic_write(path, data)
        except OSError:  # a full or missing disk only means another download next time
            log.warning("cannot write %s", path, exc_info=True)


def _read_verified(path: Path, sha256: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if digest(data) == sha256 else None

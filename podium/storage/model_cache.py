"""Files by their digest on the local disk, so that they are fetched once a host and are there when S3 is not."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from podium.storage.files import _whole, atomic_write, file_lock
from podium.storage.object_store import Store, digest

log = logging.getLogger(__name__)


class ModelCache:
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
        with file_lock(self.folder / f".lock-{sha256[:2]}"):
            found = _whole(path, sha256)
            if found is not None:
                return found
            data = store.read(key, max_bytes=max_bytes).data
            if digest(data) == sha256:
                self._keep(path, data)
        return data

    def remember_alias(self, place: str, project: str, data: bytes) -> None:
        """Remember what served last; `place` says of which store."""
        self._keep(self._entries(place) / f"{project}.json", data)

    def touch_aliases(self, place: str) -> None:
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
            atomic_write(path, data)
        except OSError:  # a full or vanished disk costs a fetch the next time, no more
            log.warning("%s cannot be written", path, exc_info=True)

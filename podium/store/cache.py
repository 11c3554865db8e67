"""Files by their digest on the local disk, so that they are fetched once and are there when S3 is not."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from podium.store.s3 import Store
from podium.store.versions import digest

log = logging.getLogger(__name__)


class Cache:
    """A folder of files named by their sha256, shared by the processes of a host; written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, store: Store, key: str, sha256: str) -> bytes:
        """The bytes from here, or else from the store, and then from here the next time."""
        path = self.folder / sha256
        if path.exists() and digest(data := path.read_bytes()) == sha256:
            return data
        data = store.read(key).data
        if digest(data) == sha256:
            try:
                write_whole(path, data)
            except OSError:  # a full or vanished disk costs a fetch the next time, no more
                log.warning("%s cannot be written", path, exc_info=True)
        return data


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

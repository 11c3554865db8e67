"""File locks, atomic writes and change signals between the processes of a host."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from podium.storage.object_store import digest

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
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


class ChangeSignal:
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


def atomic_write(path: Path, data: bytes) -> None:
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

"""File locks, atomic writes and change signals between the processes of a host."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive host-wide file lock; a no-op if the file cannot be created."""
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


class ChangeSignal:
    """A file through which the processes of a host notify each other of a change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_seen = self._modified()

    def notify(self) -> None:
        """Signal the other processes; this one does not receive its own signal."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(time.time_ns()))
        self._last_seen = self._modified()

    def was_notified(self) -> bool:
        """Return whether another process has signalled since the last call."""
        modified = self._modified()
        notified, self._last_seen = modified != self._last_seen, modified
        return notified

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0


def atomic_write(path: Path, data: bytes) -> None:
    """Write a temporary file, flush it to disk and rename it, so that readers see all of it or nothing."""
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

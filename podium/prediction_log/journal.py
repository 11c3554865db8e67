"""The local journal of answered requests, which are written to it before the answers leave.

Each process appends to a file of its own that is mapped into memory, so that an entry costs no system call and survives the
end of the process. After a crash of the machine, the entries of the last FLUSH_SECONDS may be missing. A file holds its
entries one after another, each with its length and its CRC-32. Full files are shipped to the object store by another process.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

FLUSH_SECONDS = 1.0
SEGMENT_BYTES = 4 << 20
NEW, OPEN, SEALED = ".new", ".open", ".sealed"
"""Endings of files: not yet locked, being written, and finished."""
HEADER = struct.Struct("<II")


class JournalFull(Exception):
    """The entry was not written: the journal has reached its limit, or the disk is full."""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """An answered request.

    `version` has the project, the version, the digest of its manifest and the audit-log entry that made it the champion.
    `scores` are the scores of each row by model family. The typed cells of the rows are in `rows`, or for many rows and for
    panels as an Arrow stream in `table`, together with the scores. `row_numbers` are set if some rows of the request were
    invalid.
    """

    number: int
    at: float
    version: tuple[str, str, str, int]
    caller: str
    request: bytes
    scores: dict[str, list[list[float]]]
    rows: list[list[float | bool | str | None]]
    table: bytes = b""
    row_numbers: list[int] | None = None


_decoder = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode


class Journal:
    """The files of this process in `folder`, whose files of all processes may have `max_bytes`. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._segment: _Segment | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, *fields: object) -> str:
        """Append an entry with the fields of `Entry` after `at`, and return its prediction id. Raises JournalFull."""
        with self._lock:
            if self._segment and (prediction_id := self._segment.append(fields)):
                return prediction_id
            self._seal()
            needed = len(_encode((0, time.time(), *fields))) + 2 * HEADER.size
            self._segment = _Segment(self._folder, max(SEGMENT_BYTES, needed), self._max_bytes)
            return self._segment.append(fields)

    def shortage(self) -> str:
        """Return why the next entry cannot be written; empty if it can."""
        return "" if self._segment else _shortage(self._folder, SEGMENT_BYTES, self._max_bytes)

    def flush(self) -> None:
        """Write the entries to the disk."""
        if segment := self._segment:
            with suppress(ValueError):  # it was sealed meanwhile, and so flushed
                segment.flush()

    def seal(self) -> None:
        """End the current file, so that its entries are shipped."""
        with self._lock:
            self._seal()

    def _seal(self) -> None:
        if self._segment:
            self._segment.seal()
            self._segment = None


def waiting_bytes(folder: Path) -> int:
    """Return the bytes of all files, without those that are being deleted."""
    total = 0
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def _shortage(folder: Path, size: int, max_bytes: int) -> str:
    used = waiting_bytes(folder)
    if used + size > max_bytes:
        return f"{used:,} bytes wait to be written to the object store"
    return f"no space in {folder}" if shutil.disk_usage(folder).free < size else ""


class _Segment:
    """A file of a fixed size, locked by its process."""

    __slots__ = ("_end", "_file", "_limit", "_map", "_path", "count", "name")

    def __init__(self, folder: Path, size: int, max_bytes: int) -> None:
        if shortage := _shortage(folder, size, max_bytes):
            raise JournalFull(shortage)
        self.name = f"{datetime.now(UTC):%Y%m%d}{secrets.token_hex(6)}"
        self._path = folder / f"{self.name}{NEW}"  # a file that is open and not locked would be taken for an abandoned one
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.posix_fallocate(self._file, 0, size)  # without it, a full disk would kill the process at a later write
        except OSError as error:
            self._path.unlink()
            os.close(self._file)
            raise JournalFull(f"no space in {folder}: {error.strerror}") from None
        self._map = mmap.mmap(self._file, size)
        self._path = self._path.rename(self._path.with_suffix(OPEN))
        self._end, self.count = 0, 0
        self._limit = size - HEADER.size  # zeros follow the last entry

    def append(self, fields: tuple[object, ...]) -> str:
        """Append an entry and return its prediction id; empty if there is no room."""
        number, start = self.count, self._end
        data = _encode((number, time.time(), *fields))
        end = start + HEADER.size + len(data)
        if end > self._limit:
            return ""
        self._map[start:end] = HEADER.pack(len(data), zlib.crc32(data)) + data
        self._end, self.count = end, number + 1
        return f"{self.name}-{number:x}"

    def flush(self) -> None:
        self._map.flush()

    def seal(self) -> None:
        self._map.flush()
        self._map.close()
        if self.count:
            os.truncate(self._file, self._end)
            self._path.rename(self._path.with_suffix(SEALED))
        else:
            self._path.unlink()
        os.close(self._file)


def finished_segments(folder: Path) -> Iterator[Path]:
    """Yield the files that no process writes any more, the oldest first."""
    for path in sorted(folder.iterdir()):
        if path.suffix == SEALED or (path.suffix == OPEN and _is_abandoned(path)):
            yield path


def _is_abandoned(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # it was sealed meanwhile
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def read_segment(path: Path) -> list[Entry]:
    """Return the complete entries of a file."""
    data, entries, start = path.read_bytes(), list[Entry](), 0
    while start + HEADER.size <= len(data):
        length, crc = HEADER.unpack_from(data, start)
        content = data[start + HEADER.size : start + HEADER.size + length]
        if not length or len(content) < length or zlib.crc32(content) != crc:
            break
        entries.append(_decoder.decode(content))
        start += HEADER.size + length
    return entries

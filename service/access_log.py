"""A line for each request, written by a thread: a reader that does not keep up delays no answer."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque

PIPE_BYTES = 4096
"""Up to here a write to a pipe is not mixed with those of other processes (POSIX: PIPE_BUF)."""
MAX_LINES = 50_000
INTERVAL_SECONDS = 0.02


class AccessLog:
    """Gathers lines and writes them to a descriptor; drops and counts them when too many wait."""

    def __init__(self, counts: Counter[str], descriptor: int = 2) -> None:
        self._counts, self._descriptor = counts, descriptor
        self._lines: deque[bytes] = deque()
        self._waiting, self._ended = threading.Event(), False
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Take a line, with its line feed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        if len(self._lines) >= MAX_LINES:
            self._counts["dropped"] += 1
            return
        self._lines.append(line)
        if not self._waiting.is_set():
            self._waiting.set()

    def close(self) -> None:
        """Write what waits, unless the reader is stuck."""
        self._ended = True
        self._waiting.set()
        if self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._ended:
            self._waiting.wait()
            if not self._ended:
                time.sleep(INTERVAL_SECONDS)
            self._waiting.clear()
            self._flush()

    def _flush(self) -> None:
        while self._lines:
            piece = self._lines.popleft()
            while self._lines and len(piece) + len(self._lines[0]) <= PIPE_BYTES:
                piece += self._lines.popleft()
            try:
                while piece:
                    piece = piece[os.write(self._descriptor, piece) :]
            except OSError:  # nobody reads any more
                self._counts["dropped"] += 1

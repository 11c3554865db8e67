"""The access log, written by a thread so that a slow reader does not delay responses."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import Counter, deque

PIPE_BYTES, FILE_BYTES = 4096, 1 << 16
"""Maximum bytes per write; other processes cannot interleave output with a pipe write of at most PIPE_BUF bytes."""
MAX_LINES = 50_000
FLUSH_SECONDS = 0.1


class AccessLog:
    """Buffers lines and writes them to a file descriptor; drops and counts lines when the buffer is full."""

    def __init__(self, counts: Counter[str], descriptor: int = 2) -> None:
        self._counts, self._descriptor = counts, descriptor
        self._max_bytes = FILE_BYTES if stat.S_ISREG(os.fstat(descriptor).st_mode) else PIPE_BYTES
        self._lines: deque[bytes] = deque()
        self._has_lines, self._closed = threading.Event(), False
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Buffer a line, which must end with a line feed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        if len(self._lines) >= MAX_LINES:
            self._counts["dropped"] += 1
            return
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Flush the buffer; give up after a second if the reader blocks."""
        self._closed = True
        self._has_lines.set()
        if self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._closed:
            self._has_lines.wait()
            if not self._closed:
                time.sleep(FLUSH_SECONDS)
            self._has_lines.clear()
            self._flush()

    def _flush(self) -> None:
        while self._lines:
            lines = [self._lines.popleft()]
            size = len(lines[0])
            while self._lines and (size := size + len(self._lines[0])) <= self._max_bytes:
                lines.append(self._lines.popleft())
            chunk = b"".join(lines)
            try:
                while chunk:
                    chunk = chunk[os.write(self._descriptor, chunk) :]
            except OSError:  # the reader closed the pipe
                self._counts["dropped"] += 1

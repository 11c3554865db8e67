"""The prediction log of a worker: each answered request is in the local journal before its answer leaves."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from podium.inference.panel import Scores
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.monitoring.journal import FLUSH_SECONDS, Journal, JournalFull
from podium.monitoring.prediction_table import rows_table, to_bytes
from podium.monitoring.shipping import STATE
from podium.schema.columns import Value
from podium.tables.frames import columns_of
from podium.tables.panel import take
from service.errors import PredictionLogFull
from service.metrics import Metrics
from service.responses import new_prediction_id

log = logging.getLogger(__name__)

PREPARED_KEY = "logged version"
MAX_ROWS_AS_LISTS = 100
"""More rows are written as an Arrow table."""
STOP_SECONDS = 10.0


class PredictionLog:
    """Writes answered requests to the journal, if there is one, and gives each its prediction id."""

    def __init__(self, journal: Journal | None, metrics: Metrics, *, refuses_when_full: bool) -> None:
        self._journal, self._metrics, self._refuses = journal, metrics, refuses_when_full

    @property
    def is_on(self) -> bool:
        return self._journal is not None

    def record(
        self, served: ServedModel, caller: str, request: bytes, scores: Mapping[str, object], rows: Sequence[Sequence[Value]]
    ) -> str:
        """Log typed rows with the lists of their scores. Raises PredictionLogFull."""
        if self._journal is None:
            return new_prediction_id()
        return self._append(_version(served), caller, hashlib.sha256(request).digest(), scores, rows)

    def record_rows(self, served: ServedModel, caller: str, request: bytes, scores: Scores, rows: ParsedRows) -> str:
        """Log the valid rows of a request in any format. Raises PredictionLogFull."""
        if self._journal is None or not rows.count:
            return new_prediction_id()
        request = hashlib.sha256(request).digest()
        numbers = [row + 1 for row in range(rows.total) if row not in rows.invalid_rows] if rows.invalid_rows else None
        if rows.keys is None and rows.count <= MAX_ROWS_AS_LISTS:
            lists = {family: np.asarray(each, dtype=float).tolist() for family, each in scores.items()}
            return self._append(_version(served), caller, request, lists, rows.as_rows(), b"", numbers)
        keys = rows.keys
        if keys is not None and numbers:
            keys = take(keys, np.array(numbers) - 1)
        table = rows_table(served.signature, served.manifest.families, columns_of(rows.as_frame()), scores, keys)
        return self._append(_version(served), caller, request, dict.fromkeys(scores, ()), (), to_bytes(table), numbers)

    def record_labels(self, project: str, caller: str, request: bytes, labels: pa.Table) -> None:
        """Write labels of a project's predictions to the journal. Raises PredictionLogFull."""
        assert self._journal
        version = msgspec.Raw(msgspec.msgpack.encode((project, "", "", 0)))
        try:
            self._journal.append(version, caller, hashlib.sha256(request).digest(), {}, (), to_bytes(labels), None)
        except JournalFull as error:
            raise PredictionLogFull(f"the labels cannot be stored: {error}") from None

    def _append(self, *fields: object) -> str:
        assert self._journal
        try:
            prediction_id = self._journal.append(*fields)
        except JournalFull as error:
            self._metrics.predictions_logged["refused" if self._refuses else "not logged"] += 1
            if self._refuses:
                raise PredictionLogFull(f"the prediction cannot be logged: {error}") from None
            return new_prediction_id()
        self._metrics.predictions_logged["logged"] += 1
        return prediction_id

    def flush(self) -> None:
        if self._journal:
            self._journal.flush()

    def seal(self) -> None:
        if self._journal:
            self._journal.seal()


def _version(served: ServedModel) -> msgspec.Raw:
    """Return what identifies the version, encoded once."""
    if PREPARED_KEY not in served.prepared:
        facts = served.project, served.version, served.manifest_sha256, served.sequence
        served.prepared[PREPARED_KEY] = msgspec.Raw(msgspec.msgpack.encode(facts))
    encoded: msgspec.Raw = served.prepared[PREPARED_KEY]
    return encoded


class Shipping:
    """Keeps one process of the host shipping the journal, whichever worker starts it."""

    def __init__(self, predictions: PredictionLog, folder: Path, seal_seconds: float) -> None:
        self._predictions, self._folder, self._seal_seconds = predictions, folder, seal_seconds
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sealed = time.monotonic()

    @property
    def state(self) -> dict[str, Any]:
        """What was shipped, the last error, and the bytes that wait on the disk, for /status."""
        if not self._predictions.is_on:
            return {"state": "off"}
        state: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(self._folder.with_name(STATE).read_bytes())
        state["waiting_bytes"] = self.waiting_bytes()
        return {"state": "failing" if state.get("error") else "on", **state}

    def waiting_bytes(self) -> int:
        """Return the bytes on the disk of this host that are not in the object store."""
        with contextlib.suppress(OSError):
            return sum(path.stat().st_size for path in self._folder.iterdir())
        return 0

    def tick(self) -> None:
        """Flush the journal, end its file if it is due, and start the shipping process if it does not run.

        It is called every FLUSH_SECONDS.
        """
        if not self._predictions.is_on:
            return
        self._predictions.flush()
        if time.monotonic() - self._sealed >= self._seal_seconds:
            self._predictions.seal()
            self._sealed = time.monotonic()
        if self._has_lock() and (self._process is None or self._process.poll() is not None):
            command = [sys.executable, "-m", "podium.monitoring.shipping", str(self._folder)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def _has_lock(self) -> bool:
        if self._lock is None:
            lock = os.open(self._folder.with_name("shipping.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = lock
            except BlockingIOError:
                os.close(lock)
        return self._lock is not None

    def close(self) -> None:
        """End the journal's file and wait until the process has shipped it, or give up: it is shipped after the next start."""
        self._predictions.seal()
        if self._process and self._process.stdin:
            self._process.stdin.close()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._lock is not None:
            os.close(self._lock)


TICK_SECONDS = FLUSH_SECONDS

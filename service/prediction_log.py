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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from podium.inference.panel import Scores
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.prediction_log.journal import FLUSH_SECONDS, Journal, JournalFull, waiting_bytes
from podium.prediction_log.labels import is_label_file, read_label_file
from podium.prediction_log.recorder import Recorder
from podium.prediction_log.shipping import STATE
from podium.schema.columns import Value
from service.errors import PredictionLogFull
from service.metrics import Metrics
from service.responses import new_prediction_id

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0


class PredictionLog:
    """Records answered requests in the journal, if there is one, and gives each its prediction id."""

    def __init__(self, journal: Journal | None, metrics: Metrics, *, refuses_when_full: bool) -> None:
        self._journal, self._metrics, self._refuses = journal, metrics, refuses_when_full
        self._recorder = Recorder(journal) if journal else None
        self.full = ""
        """Why the next entry cannot be written; empty if it can."""

    @property
    def is_on(self) -> bool:
        return self._journal is not None

    @property
    def refuses(self) -> bool:
        """Return whether predictions are refused because they cannot be logged."""
        return bool(self.full) and self._refuses

    def record(
        self, served: ServedModel, caller: str, request: bytes, scores: Mapping[str, object], rows: Sequence[Sequence[Value]]
    ) -> str:
        """Log typed rows with the lists of their scores. Raises PredictionLogFull; then the routes try again, and count it."""
        if self._recorder is None:
            return new_prediction_id()
        try:
            prediction_id = self._recorder.record(served, caller, request, scores, rows)
        except JournalFull as error:
            return self._unlogged(error)
        self._metrics.predictions_logged["logged"] += 1
        return prediction_id

    def record_rows(self, served: ServedModel, caller: str, request: bytes, scores: Scores, rows: ParsedRows) -> str:
        """Log the valid rows of a request in any format. Raises PredictionLogFull."""
        if self._recorder is None or not rows.count:
            return new_prediction_id()
        return self._counted(self._recorder.record_rows, served, caller, hashlib.sha256(request).digest(), scores, rows)

    def record_file_rows(
        self, served: ServedModel, caller: str, file_sha256: bytes, scores: Scores, rows: ParsedRows, first_row: int
    ) -> str:
        """Log rows of a file, which may wait for space; empty without a log. Raises PredictionLogFull."""
        if self._recorder is None or not rows.count:
            return ""
        return self._counted(self._recorder.record_file_rows, served, caller, file_sha256, scores, rows, first_row)

    def _counted(self, record: Callable[..., str], *fields: object) -> str:
        """Record an answer, and return its id. Raises PredictionLogFull if it must be logged and cannot be."""
        try:
            prediction_id = record(*fields)
        except JournalFull as error:
            self._metrics.predictions_logged["refused"] += self._refuses
            return self._unlogged(error)
        self._metrics.predictions_logged["logged"] += 1
        return prediction_id

    def _unlogged(self, error: JournalFull) -> str:
        """Return the id of an answer that is not logged. Raises PredictionLogFull if it must be."""
        self.full = str(error)
        if self._refuses:
            raise PredictionLogFull(f"the prediction cannot be logged: {error}") from None
        self._metrics.predictions_logged["not logged"] += 1
        return new_prediction_id()

    def record_labels(self, project: str, caller: str, request: bytes, labels: pa.Table) -> None:
        """Log labels, whose loss is never accepted. Raises PredictionLogFull."""
        assert self._recorder
        try:
            self._recorder.record_labels(project, caller, request, labels)
        except JournalFull as error:
            raise PredictionLogFull(f"the labels cannot be stored: {error}") from None

    def record_label_file(self, served: ServedModel, caller: str, data: bytes) -> dict[str, int] | None:
        """Log the labels of a file, and return how many it has; None if it is not one of labels.

        Raises BadData, PredictionLogFull.
        """
        if not is_label_file(data, served.signature.target):
            return None
        labels = read_label_file(data, served.signature.target, caller)
        if labels.table.num_rows:
            self.record_labels(served.project, caller, data, labels.table)
        return {"labels": labels.table.num_rows, "unlabelled": labels.unlabelled}

    def flush(self) -> None:
        """Write the entries to the disk, and find out whether there is space for the next."""
        if self._journal:
            self._journal.flush()
            self.full = self._journal.shortage()

    def seal(self) -> None:
        if self._journal:
            self._journal.seal()


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
        if self._predictions.full:
            return {**state, "state": "full", "error": self._predictions.full}
        return {"state": "failing" if state.get("error") else "on", **state}

    def waiting_bytes(self) -> int:
        """Return the bytes on the disk of this host that are not in the object store."""
        return waiting_bytes(self._folder) if self._predictions.is_on else 0

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
            command = [sys.executable, "-P", "-m", "podium.prediction_log.shipping", str(self._folder)]
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

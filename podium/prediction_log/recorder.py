"""Write answered rows to a journal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from podium.inference.panel import Scores
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.prediction_log.journal import Journal, JournalFull
from podium.prediction_log.prediction_table import rows_table, to_bytes
from podium.schema.columns import Value
from podium.tables.frames import columns_of
from podium.tables.panel import take

PREPARED_KEY = "logged version"
MAX_ROWS_AS_LISTS = 100
"""More rows are written as an Arrow table."""
WAIT_SECONDS = 60.0
"""How long a file waits until there is space in the journal."""


class Recorder:
    """Writes what was answered to a journal, and returns the prediction ids."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def record(
        self, served: ServedModel, caller: str, request: bytes, scores: Mapping[str, object], rows: Sequence[Sequence[Value]]
    ) -> str:
        """Record typed rows with the lists of their scores. Raises JournalFull."""
        return self._journal.append(_version(served), caller, hashlib.sha256(request).digest(), scores, rows)

    def record_rows(
        self, served: ServedModel, caller: str, request_sha256: bytes, scores: Scores, rows: ParsedRows, first_row: int = 1
    ) -> str:
        """Record the valid rows of a request; empty if there are none. Raises JournalFull."""
        if not rows.count:
            return ""
        numbers = None
        if rows.invalid_rows or first_row > 1:
            numbers = [first_row + row for row in range(rows.total) if row not in rows.invalid_rows]
        if rows.keys is None and rows.count <= MAX_ROWS_AS_LISTS:
            lists = {family: np.asarray(each, dtype=float).tolist() for family, each in scores.items()}
            return self._journal.append(_version(served), caller, request_sha256, lists, rows.as_rows(), b"", numbers)
        keys = rows.keys
        if keys is not None and rows.invalid_rows and numbers:
            keys = take(keys, np.array(numbers) - first_row)
        table = rows_table(served.signature, served.manifest.families, columns_of(rows.as_frame()), scores, keys)
        empty = dict.fromkeys(scores, ())
        return self._journal.append(_version(served), caller, request_sha256, empty, (), to_bytes(table), numbers)

    def record_file_rows(
        self, served: ServedModel, caller: str, file_sha256: bytes, scores: Scores, rows: ParsedRows, first_row: int
    ) -> str:
        """Record rows of a file; if the journal is full, wait until some of it has been shipped. Raises JournalFull."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return self.record_rows(served, caller, file_sha256, scores, rows, first_row)
            except JournalFull:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def record_labels(self, project: str, caller: str, request: bytes, labels: pa.Table) -> None:
        """Record labels of a project's predictions. Raises JournalFull."""
        version = msgspec.Raw(msgspec.msgpack.encode((project, "", "", 0)))
        self._journal.append(version, caller, hashlib.sha256(request).digest(), {}, (), to_bytes(labels), None)


def _version(served: ServedModel) -> msgspec.Raw:
    """Return what identifies the version, encoded once."""
    if PREPARED_KEY not in served.prepared:
        facts = served.project, served.version, served.manifest_sha256, served.sequence
        served.prepared[PREPARED_KEY] = msgspec.Raw(msgspec.msgpack.encode(facts))
    encoded: msgspec.Raw = served.prepared[PREPARED_KEY]
    return encoded

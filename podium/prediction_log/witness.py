"""A memory of the log outside the bucket, so that a host notices when the bucket is put back to an earlier state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podium.prediction_log.transparency_log import TransparencyLog
from podium.storage.files import atomic_write


@dataclass(frozen=True, slots=True)
class Witness:
    """Remembers the last checkpoint of a log in a file."""

    log: TransparencyLog
    path: Path

    def latest_promotions(self) -> Mapping[str, int]:
        """Return the latest promotion of each project that recent entries name, after checking the log.

        Raises IntegrityError if the log does not continue the one that is remembered, StoreError if it cannot be read.
        """
        checkpoint, note = self.log.read_checkpoint()
        if self.path.exists():
            self.log.check_continues(self.log.parse_checkpoint(self.path.read_bytes()), checkpoint)
        latest: dict[str, int] = {}
        for entry in self.log.recent_entries(checkpoint):
            facts = json.loads(entry)
            latest[facts["project"]] = max(facts["promotion"], latest.get(facts["project"], 0))
        if note:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, note)
        return latest

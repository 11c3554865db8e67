"""The drop-box of the service: a hint or the clock makes it look, and what is not answered yet is answered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from podium.dropbox import Drop, Open, Terms, answer, drops
from podium.predict.snapshot import Snapshot
from podium.store.cache import alone
from podium.store.s3 import Store, StoreError
from service.answers import prediction_id
from service.live import Live
from service.metrics import Metrics
from service.spread import Spread

log = logging.getLogger(__name__)


class DropBox:
    """One look at a time, and one process of a host at a time."""

    def __init__(
        self, store: Store, open_: Open, live: Live, spread: Spread, metrics: Metrics, lock: Path, seconds: float, most: int
    ) -> None:
        self._store, self._open, self._live, self._metrics = store, open_, live, metrics
        self._lock, self._seconds = lock, seconds
        self._terms = Terms(spread.scores, most, lambda: datetime.now(UTC), prediction_id)
        self._wake = asyncio.Event()
        self._told: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.looked_at: str | None = None

    @property
    def state(self) -> dict[str, Any]:
        """For /status."""
        return {"looked_at": self.looked_at, **self.counts}

    def hint(self) -> None:
        """Look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look, and look again when a hint or the time comes, for as long as the service runs."""
        while True:
            self._wake.clear()
            await run_in_threadpool(self._look)
            try:
                await asyncio.wait_for(self._wake.wait(), self._seconds * random.uniform(0.9, 1.1))
            except TimeoutError:
                pass

    def _look(self) -> None:
        with alone(self._lock):
            for snapshot in self._live.all():
                try:
                    for drop in drops(self._store, snapshot, self._open):
                        self._answer(drop, snapshot)
                except StoreError as error:
                    self._tell(snapshot.project, error)
                except Exception:  # whatever is wrong with one project's files, those of the others are answered
                    log.exception("the drop-box of %s", snapshot.project)
        self.looked_at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def _answer(self, drop: Drop, snapshot: Snapshot) -> None:
        receipt = answer(drop, snapshot, self._terms)
        if receipt:
            self.counts[receipt["state"]] += 1
            self._metrics.rows[snapshot.project] += receipt.get("rows", 0)
            log.info("%s %s: %s", snapshot.project, drop.source.url, receipt["state"])

    def _tell(self, project: str, error: StoreError) -> None:
        """A warning for each thing that goes wrong, not one for each look."""
        if str(error) not in self._told:
            self._told.add(str(error))
            log.warning("the drop-box of %s: %s", project, error)

"""The drop-box of the service: a hint or the clock makes it look, and what is not answered yet is answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from podium.inference.inbox import InboxFile, ProcessingOptions, StoreFactory, inbox_files, is_waiting, process_file
from podium.inference.served_model import ServedModel
from podium.storage.files import file_lock
from podium.storage.object_store import Store, StoreError
from service.active_models import ActiveModels
from service.dask_executor import DaskExecutor
from service.metrics import Metrics
from service.responses import prediction_id

log = logging.getLogger(__name__)
Wake = Callable[[str], Awaitable[None]]


class InboxWorker:
    """One look at a time, and one process of a host at a time."""

    def __init__(
        self,
        store: Store,
        open_: StoreFactory,
        live: ActiveModels,
        wake: Wake,
        spread: DaskExecutor,
        metrics: Metrics,
        lock: Path,
        seconds: float,
        most: int,
    ) -> None:
        self._store, self._open, self._live, self._bring_back, self._metrics = store, open_, live, wake, metrics
        self._lock, self._seconds = lock, seconds
        self._terms = ProcessingOptions(spread.scores, most, lambda: datetime.now(UTC), prediction_id)
        self._wake = asyncio.Event()
        self._told: dict[str, str] = {}
        self._done: dict[str, str] = {}
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
            for project in await run_in_threadpool(self._asleep_with_work):
                try:
                    await self._bring_back(project)
                except Exception:
                    log.exception("%s cannot be woken; its files wait for the next look", project)
            await run_in_threadpool(self._look)
            try:
                await asyncio.wait_for(self._wake.wait(), self._seconds * random.uniform(0.9, 1.1))
            except TimeoutError:
                pass

    def _asleep_with_work(self) -> list[str]:
        """Projects that are out of memory and have a table to answer."""
        found = []
        for project, manifest in self._live.evicted.items():
            with self._told_if_wrong(project):
                waiting = (d for d in inbox_files(self._store, manifest, self._open) if not self._is_done(d) and is_waiting(d))
                found += [project for _ in itertools.islice(waiting, 1)]
        return found

    def _look(self) -> None:
        with file_lock(self._lock):
            for snapshot in self._live.all():
                with self._told_if_wrong(snapshot.project):
                    for drop in inbox_files(self._store, snapshot.manifest, self._open):
                        with self._told_if_wrong(snapshot.project):
                            self._answer(drop, snapshot)
        self.looked_at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def _answer(self, drop: InboxFile, snapshot: ServedModel) -> None:
        if self._is_done(drop):
            return
        self._done.pop(drop.source.url, None)
        receipt = process_file(drop, snapshot, self._terms)
        if drop.etag and not is_waiting(drop):
            self._done[drop.source.url] = drop.etag
        if receipt:
            self.counts[receipt["state"]] += 1
            self._metrics.inbox[receipt["state"]] += 1
            self._metrics.rows[snapshot.project] += receipt.get("rows", 0)
            log.info("%s %s: %s", snapshot.project, drop.source.url, receipt["state"])

    def _is_done(self, drop: InboxFile) -> bool:
        """Whether this very state was seen to be answered, so that old tables cost nothing at every look."""
        return drop.etag is not None and self._done.get(drop.source.url) == drop.etag

    @contextmanager
    def _told_if_wrong(self, project: str) -> Iterator[None]:
        """Whatever is wrong with one project's files, those of the others are answered; each trouble is told once."""
        try:
            yield
        except StoreError as error:
            self._metrics.inbox["failed"] += 1
            if self._told.get(project) != type(error).__name__:
                self._told[project] = type(error).__name__
                log.warning("the drop-box cannot be read or answered", extra={"project": project, "reason": str(error)})
        except Exception:
            self._metrics.inbox["failed"] += 1
            log.exception("the drop-box cannot be read or answered", extra={"project": project})

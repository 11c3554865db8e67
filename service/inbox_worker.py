"""Process files that arrive in the bucket's inbox, after a notification or at regular intervals."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from podium.inference.inbox import InboxFile, ProcessingOptions, is_waiting, process_file
from podium.inference.served_model import ServedModel
from podium.registry.versions import Manifest
from podium.storage.files import file_lock
from podium.storage.object_store import StoreError
from service.active_models import ActiveModels
from service.metrics import Metrics

log = logging.getLogger(__name__)
Reload = Callable[[str], Awaitable[None]]
ListFiles = Callable[[Manifest], Iterable[InboxFile]]


@dataclass(frozen=True, slots=True)
class InboxWorkerOptions:
    """How files are processed, the lock that the workers of a host share, and the interval between scans."""

    processing: ProcessingOptions
    lock: Path
    poll_seconds: float


class InboxWorker:
    """Scans the inbox; only one scan at a time runs on a host."""

    def __init__(
        self, list_files: ListFiles, live: ActiveModels, reload: Reload, metrics: Metrics, options: InboxWorkerOptions
    ) -> None:
        self._list_files, self._live, self._reload, self._metrics, self._options = list_files, live, reload, metrics, options
        self._notified = asyncio.Event()
        self._logged: dict[str, str] = {}
        self._processed: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.checked_at: str | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The time of the last scan and the number of files by result, for /status."""
        return {"checked_at": self.checked_at, **self.counts}

    def notify(self) -> None:
        """Request a scan."""
        self._notified.set()

    async def run(self) -> None:
        """Scan at regular intervals and after each notification, for as long as the service runs."""
        if not self._options.poll_seconds:
            await asyncio.Event().wait()
        while True:
            self._notified.clear()
            for project in await run_in_threadpool(self._evicted_with_files):
                try:
                    await self._reload(project)
                except Exception:
                    log.exception("failed to reload %s; its inbox files wait for the next scan", project)
            await run_in_threadpool(self._scan)
            try:
                await asyncio.wait_for(self._notified.wait(), self._options.poll_seconds * random.uniform(0.9, 1.1))
            except TimeoutError:
                pass

    def _evicted_with_files(self) -> list[str]:
        """Return the evicted projects that have files to process."""
        projects = []
        for project, manifest in self._live.evicted.items():
            with self._log_errors(project):
                if any(not self._is_processed(file) and is_waiting(file) for file in self._list_files(manifest)):
                    projects.append(project)
        return projects

    def _scan(self) -> None:
        with file_lock(self._options.lock):
            for served in self._live.all():
                with self._log_errors(served.project):
                    for file in self._list_files(served.manifest):
                        with self._log_errors(served.project):
                            self._process(file, served)
        self.checked_at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def _process(self, file: InboxFile, served: ServedModel) -> None:
        if self._is_processed(file):
            return
        self._processed.pop(file.source.url, None)
        receipt = process_file(file, served, self._options.processing)
        if file.etag and not is_waiting(file):
            self._processed[file.source.url] = file.etag
        if receipt:
            self.counts[receipt["state"]] += 1
            self._metrics.inbox[receipt["state"]] += 1
            self._metrics.rows[served.project] += receipt.get("rows", 0)
            log.info("%s %s: %s", served.project, file.source.url, receipt["state"])

    def _is_processed(self, file: InboxFile) -> bool:
        """Return whether this object version is known to have been processed, so that old files cost no requests."""
        return file.etag is not None and self._processed.get(file.source.url) == file.etag

    @contextmanager
    def _log_errors(self, project: str) -> Iterator[None]:
        """Log errors, so that other files are processed; log repeated store errors of a project only once."""
        try:
            yield
        except StoreError as error:
            self._metrics.inbox["failed"] += 1
            if self._logged.get(project) != type(error).__name__:
                self._logged[project] = type(error).__name__
                log.warning("the inbox cannot be processed", extra={"project": project, "reason": str(error)})
        except Exception:
            self._metrics.inbox["failed"] += 1
            log.exception("the inbox cannot be processed", extra={"project": project})

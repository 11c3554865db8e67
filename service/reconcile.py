"""The loop that brings the live snapshots to where the aliases point: level-triggered, so no event can be missed."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool

from podium.loading import fetcher, load_version
from podium.model.golden import ProofFailed
from podium.model.pickles import Refused
from podium.store.aliases import alias_key, parse_alias, project_names
from podium.store.cache import Cache
from podium.store.s3 import NotThere, Store, StoreError
from service.live import Live, Snapshot

log = logging.getLogger(__name__)


class Reconcile:
    """One look at a time: every alias by its ETag; what is new is verified, proved, warmed and swapped in."""

    def __init__(self, store: Store, cache: Cache, live: Live, poll_seconds: float) -> None:
        self._store, self._live, self._poll = store, live, poll_seconds
        self._fetch = fetcher(store, cache)
        self._etags: dict[str, str] = {}
        self._wake = asyncio.Event()
        self.receipts: deque[dict[str, Any]] = deque(maxlen=50)
        self.failures: dict[str, str] = {}
        self.looked_at: str | None = None
        self.store_error: str | None = None

    def hint(self) -> None:
        """Look soon; any number of hints until then are one."""
        self._wake.set()

    async def run(self) -> None:
        """Look, wait for a hint or the next poll, and look again, for as long as the service runs."""
        while True:
            self._wake.clear()
            await self.look()
            pause = self._poll * random.uniform(0.9, 1.1)
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Bring every project to its alias; an error leaves what serves in service and is told in the status."""
        try:
            for project in await run_in_threadpool(project_names, self._store):
                await self._bring(project)
            self.looked_at, self.store_error = datetime.now(UTC).isoformat(timespec="milliseconds"), None
        except StoreError as error:
            log.warning("the store does not answer: %s", error)
            self.store_error = str(error)

    async def _bring(self, project: str) -> None:
        try:
            found = await run_in_threadpool(self._load_new, project)
        except (StoreError, Refused, ProofFailed) as error:
            log.error("%s stays as it is: %s", project, error)
            self.failures[project] = str(error)
            return
        self.failures.pop(project, None)
        if found is None:
            return
        snapshot, etag, receipt = found
        before = self._live.swap(snapshot)
        self._etags[project] = etag
        receipt |= {"from": before.version if before else None, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self.receipts.append(receipt)
        gc.freeze()

    def _load_new(self, project: str) -> tuple[Snapshot, str, dict[str, Any]] | None:
        """In a thread: the snapshot that the alias asks for, or None when it is live."""
        try:
            blob = self._store.read_if_new(alias_key(project), self._etags.get(project))
        except NotThere:  # gone between the listing and now
            return None
        if blob is None:
            return None
        started = time.perf_counter()
        alias = parse_alias(blob.data)
        loaded = load_version(project, alias, self._fetch)
        snapshot = Snapshot(project, alias.version, alias.sequence, alias.manifest, loaded.manifest, loaded.models, loaded.fast)
        receipt = {
            "project": project,
            "to": alias.version,
            "sequence": alias.sequence,
            "load_milliseconds": round((time.perf_counter() - started) * 1000, 1),
            "golden_difference": loaded.largest_difference,
            "fast_paths": [family for family, path in loaded.fast.items() if path],
        }
        return snapshot, blob.etag, receipt

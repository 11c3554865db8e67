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

from podium.loading import fetcher
from podium.promotion import Desk
from podium.prover import Prover
from podium.store.cache import Cache
from podium.store.history import alias_key, parse_entry, project_names
from podium.store.s3 import NotThere, Store, StoreError
from podium.store.signing import Signer, Trust
from service.live import Live, Snapshot
from service.metrics import Metrics

log = logging.getLogger(__name__)


class WentBack(StoreError):
    """The alias shows an older entry than one that was seen: somebody put it back past the history."""


class Reconcile:
    """One look at a time: every alias by its ETag; what is new is verified, proved, warmed and swapped in."""

    def __init__(
        self, store: Store, cache: Cache, live: Live, trust: Trust, prover: Prover, poll_seconds: float, metrics: Metrics
    ) -> None:
        self._store, self._live, self._trust, self._poll = store, live, trust, poll_seconds
        self._fetch, self._prover = fetcher(store, cache), prover
        self._metrics = metrics
        self._etags: dict[str, str] = {}
        self._latest: dict[str, int] = {}
        self._wake = asyncio.Event()
        self.receipts: deque[dict[str, Any]] = deque(maxlen=50)
        self.failures: dict[str, str] = {}
        self.looked_at: str | None = None
        self.store_error: str | None = None

    def desk(self, signer: Signer) -> Desk:
        """Where to promote with this loop's store, cache and prover."""
        return Desk(self._store, self._trust, signer, "", self._fetch, self._prover)

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
            names = await run_in_threadpool(project_names, self._store)
        except StoreError as error:
            log.warning("the store does not answer: %s", error)
            self.store_error = str(error)
            return
        self._live.expected = frozenset(names)
        self.failures = {project: reason for project, reason in self.failures.items() if project in names}
        for project in names:
            try:
                await self._bring(project)
                self.failures.pop(project, None)
            except Exception as error:  # whatever is wrong with one version, the loop and the other projects go on
                log.exception("%s stays as it is", project)
                if project not in self.failures:
                    self._metrics.swaps[project, "failed"] += 1
                self.failures[project] = str(error) if isinstance(error, StoreError) else type(error).__name__
        self.looked_at, self.store_error = datetime.now(UTC).isoformat(timespec="milliseconds"), None

    async def _bring(self, project: str) -> None:
        found = await run_in_threadpool(self._load_new, project)
        if found is None:
            return
        snapshot, etag, receipt = found
        before = self._live.swap(snapshot)
        self._etags[project], self._latest[project] = etag, snapshot.sequence
        receipt |= {"from": before.version if before else None, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self.receipts.append(receipt)
        self._metrics.swaps[project, "done"] += 1
        self._metrics.loads[project].add(receipt["load_milliseconds"] / 1000)
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
        entry = parse_entry(blob.data, project, self._trust.promoters)
        latest = self._latest.get(project, 0)
        if entry.sequence < latest:
            raise WentBack(f"the alias of {project} shows number {entry.sequence}, but number {latest} was seen")
        live = self._live.find(project)
        if entry.champion is None or entry.manifest is None or (live and entry.manifest == live.manifest_sha256):
            self._etags[project], self._latest[project] = blob.etag, entry.sequence
            return None
        loaded = self._prover.load(project, entry.champion, entry.manifest, self._fetch, self._trust.trainers)
        snapshot = Snapshot(
            project, entry.champion, entry.sequence, entry.manifest, loaded.manifest, loaded.models, loaded.fast
        )
        receipt = {
            "project": project,
            "to": entry.champion,
            "sequence": entry.sequence,
            "load_milliseconds": round((time.perf_counter() - started) * 1000, 1),
            "golden_difference": loaded.largest_difference,
            "fast_paths": [family for family, path in loaded.fast.items() if path],
        }
        return snapshot, blob.etag, receipt

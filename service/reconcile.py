"""The loop that brings the live snapshots to where the aliases point: level-triggered, so no event can be missed."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool

from podium.loading import Unloadable, fetcher
from podium.predict.snapshot import Snapshot
from podium.promotion import Desk
from podium.provenance import other_libraries
from podium.prover import Prover
from podium.store.cache import Bell, Cache
from podium.store.history import Entry, alias_key, parse_entry, project_names
from podium.store.s3 import NotThere, Store, StoreError
from podium.store.signing import Signer, Trust
from service.fast_lane import lane_of
from service.live import Live
from service.metrics import Metrics

log = logging.getLogger(__name__)
LONGEST_REST = 300.0
LISTEN_SECONDS = 0.1
SETTLE_SECONDS = 5.0
"""For so long after a swap its receipt gathers figures, and as long before it."""


class WentBack(StoreError):
    """The alias shows an older entry than one that was seen: somebody put it back past the history."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often to look, how much memory models may take by the size of their files, and whose models are taken."""

    poll_seconds: float
    most_bytes: int = 1 << 40
    other_libraries: bool = False


@dataclass(slots=True)
class Rest:
    """A version that could not be proved: not tried again until then, unless the alias moves."""

    etag: str
    until: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """What an alias asks for, ready to be swapped in."""

    snapshot: Snapshot
    data: bytes
    etag: str
    warm: bool
    began: float


class Reconcile:
    """One look at a time: every alias by its ETag; what is new is verified, proved, warmed and swapped in.

    The version before stays warm, so that going back to it costs nothing. What served last is remembered on the disk, for a
    start without the store, and so that no restart lets an alias be put back.
    """

    def __init__(
        self, store: Store, cache: Cache, live: Live, trust: Trust, prover: Prover, metrics: Metrics, limits: Limits
    ) -> None:
        self._store, self._cache, self._live, self._trust, self._limits = store, cache, live, trust, limits
        self._fetch, self._prover = fetcher(store, cache), prover
        self._metrics = metrics
        self._entries: dict[str, bytes] = {}
        self._waking: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._place = store.place
        self._bell = Bell(cache.folder / "bell")
        self._etags: dict[str, str] = {}
        self._latest: dict[str, int] = {}
        self._before: dict[str, Snapshot] = {}
        self._rests: dict[str, Rest] = {}
        self._wake = asyncio.Event()
        self.receipts: deque[dict[str, Any]] = deque(maxlen=50)
        self.failures: dict[str, str] = {}
        self.looked_at: str | None = None
        self.store_error: str | None = None
        self.stale_since: str | None = None

    def desk(self, store: Store, signer: Signer) -> Desk:
        """Where to promote with this loop's cache and prover; `store` may be a more patient one."""
        return Desk(store, self._trust, signer, "", self._fetch, self._prover)

    def hint(self) -> None:
        """Look soon, and let the other workers of this host look; any number of hints until then are one."""
        self._bell.ring()
        self._wake.set()

    async def start(self) -> None:
        """The first look; when the store does not answer, what served last comes from the cache."""
        remembered = await run_in_threadpool(self._cache.entries, self._place)
        for project, (data, _) in remembered.items():
            try:
                self._latest[project] = parse_entry(data, project, self._trust.promoters).sequence
            except StoreError:
                log.warning("what the cache remembers of %s is not believed", project)
        await self.look()
        if self.store_error:
            await self._restore(remembered)

    async def _restore(self, remembered: dict[str, tuple[bytes, float]]) -> None:
        for project, (data, confirmed) in remembered.items():
            try:
                found = await run_in_threadpool(self._load, project, data, "")
            except StoreError as error:
                self.failures[project] = f"from the cache: {error}"
                continue
            if found:
                self._swap(project, found)
                since = datetime.fromtimestamp(confirmed, UTC).isoformat(timespec="seconds")
                self.stale_since = min(self.stale_since or since, since)

    async def run(self) -> None:
        """Look, wait for a hint, a bell or the next poll, and look again, for as long as the service runs."""
        while True:
            await self._wait(self._limits.poll_seconds * random.uniform(0.9, 1.1))
            self._wake.clear()
            try:
                await self.look()
            except Exception:  # nothing ends this loop but the end of the service
                log.exception("a look at the store failed")

    async def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._wake.is_set() and not self._bell.rang():
            try:
                await asyncio.wait_for(self._wake.wait(), min(left, LISTEN_SECONDS))
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
                if await self._bring(project):
                    self.failures.pop(project, None)
            except Exception as error:  # whatever is wrong with one version, the loop and the other projects go on
                log.exception("%s stays as it is", project)
                if project not in self.failures:
                    self._metrics.swaps[project, "failed"] += 1
                self.failures[project] = str(error) if isinstance(error, StoreError) else type(error).__name__
        self.looked_at, self.store_error = datetime.now(UTC).isoformat(timespec="milliseconds"), None
        if not self.failures:
            self.stale_since = None
            await run_in_threadpool(self._cache.confirm_entries, self._place)

    async def _bring(self, project: str) -> bool:
        """Whether the project is now where its alias points; False while a version that failed is left alone."""
        rest = self._rests.get(project)
        known = rest.etag if rest and time.monotonic() < rest.until else self._etags.get(project)
        try:
            blob = await run_in_threadpool(self._store.read_if_new, alias_key(project), known)
        except NotThere:  # gone between the listing and now
            return True
        if blob is None:
            return rest is None or known != rest.etag
        try:
            found = await run_in_threadpool(self._load, project, blob.data, blob.etag)
        except Unloadable:
            tries = rest.tries + 1 if rest and rest.etag == blob.etag else 1
            pause = min(LONGEST_REST, self._limits.poll_seconds * 2**tries) * random.uniform(0.8, 1.2)
            self._rests[project] = Rest(blob.etag, time.monotonic() + pause, tries)
            raise
        self._rests.pop(project, None)
        if found:
            self._swap(project, found)
            await run_in_threadpool(self._cache.keep_entry, self._place, project, found.data)
            await run_in_threadpool(self._bell.ring)
        return True

    def _load(self, project: str, data: bytes, etag: str) -> Found | None:
        """In a thread: what the entry of the alias asks for, or None when it is live. Raises StoreError."""
        began = time.monotonic()
        entry = parse_entry(data, project, self._trust.promoters)
        latest = self._latest.get(project, 0)
        if entry.sequence < latest:
            raise WentBack(f"the alias of {project} shows number {entry.sequence}, but number {latest} was seen")
        live = self._live.find(project)
        if entry.champion is None or entry.manifest is None or (live and entry.manifest == live.manifest_sha256):
            self._etags[project], self._latest[project] = etag, entry.sequence
            if live:
                self._entries[project] = data
            return None
        warm = self._before.get(project)
        if warm and (warm.version, warm.manifest_sha256) == (entry.champion, entry.manifest):
            return Found(replace(warm, sequence=entry.sequence), data, etag, True, began)
        snapshot = self._proved(entry)
        lane_of(snapshot)
        return Found(snapshot, data, etag, False, began)

    def _proved(self, entry: Entry) -> Snapshot:
        assert entry.champion and entry.manifest
        loaded = self._prover.load(entry.project, entry.champion, entry.manifest, self._fetch, self._trust.trainers)
        if others := other_libraries(loaded.manifest.libraries):
            if not self._limits.other_libraries:
                raise Unloadable(
                    f"{', '.join(others)}: PODIUM_OTHER_LIBRARIES=true serves it, as its golden rows come out right"
                )
            log.warning("%s %s: %s", entry.project, entry.champion, ", ".join(others))
        return Snapshot.of(entry, loaded)

    async def wake(self, project: str) -> None:
        """Bring a project back into memory that made room for others. Raises StoreError."""
        async with self._waking[project]:
            if project in self._live.asleep:
                found = await run_in_threadpool(self._wakened, project)
                if found:
                    self._swap(project, found)

    def _wakened(self, project: str) -> Found:
        """What served before it slept, whatever its alias shows by now."""
        began, data = time.monotonic(), self._entries[project]
        snapshot = self._proved(parse_entry(data, project, self._trust.promoters))
        lane_of(snapshot)
        return Found(snapshot, data, self._etags[project], False, began)

    def _make_room(self, newest: Snapshot) -> None:
        """Within the memory for models: first the versions before go, then what nobody has asked for the longest."""
        while sum(each.bytes for each in [*self._live.all(), *self._before.values()]) > self._limits.most_bytes:
            spare = next(iter(self._before), None)
            if spare is not None:
                del self._before[spare]
                continue
            least = self._live.least_asked()
            if least is None or least is newest:
                return
            self._live.put_to_sleep(least)

    def _swap(self, project: str, found: Found) -> None:
        snapshot = found.snapshot
        live = self._live.find(project)
        if snapshot.sequence < max(self._latest.get(project, 0), live.sequence if live else 0):
            return  # a project that was just woken moved on meanwhile
        before = self._live.swap(snapshot)
        self._entries[project] = found.data
        swapped = time.monotonic()
        if before:
            self._before[project] = before
        self._etags[project], self._latest[project] = found.etag, snapshot.sequence
        receipt = {
            "project": project,
            "from": before.version if before else None,
            "to": snapshot.version,
            "sequence": snapshot.sequence,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "load_milliseconds": round((swapped - found.began) * 1000, 1),
            "warm": found.warm,
            "golden_difference": snapshot.golden_difference,
            "fast_paths": [family for family, path in snapshot.fast.items() if path],
        }
        self.receipts.append(receipt)
        self._metrics.swaps[project, "done"] += 1
        self._metrics.loads[project].add(swapped - found.began)
        loop = asyncio.get_running_loop()
        loop.call_later(SETTLE_SECONDS, loop.run_in_executor, None, self._settle, receipt, found.began, swapped)
        self._make_room(snapshot)
        if not found.warm:
            gc.freeze()  # models stay: collections need not look at them

    def _settle(self, receipt: dict[str, Any], began: float, swapped: float) -> None:
        """How requests fared before, during and after a swap, once it is known."""
        spans = {"before": (began - SETTLE_SECONDS, began), "during": (began, swapped), "after": (swapped, time.monotonic())}
        receipt |= {name: self._metrics.recent(receipt["project"], *span) for name, span in spans.items() if span[0] < span[1]}

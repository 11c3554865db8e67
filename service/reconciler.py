"""The loop that brings the live snapshots to where the aliases point: level-triggered, so no event can be missed."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from podium.inference.served_model import ServedModel
from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.loading import ModelLoadError, fetcher
from podium.registry.promotion import PromotionContext
from podium.registry.provenance import library_mismatches
from podium.registry.signing import Signer, TrustPolicy
from podium.registry.validation import Validator
from podium.storage.files import ChangeSignal
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, StoreError
from service.active_models import ActiveModels
from service.aliases import Alias, Aliases
from service.fast_path import fast_path_for
from service.metrics import Metrics
from service.staleness import StoreChecks, public_reason
from service.swaps import PreparedSwap, Swaps
from service.thread_pools import ThreadPool

log = logging.getLogger(__name__)
MAX_BACKOFF = 300.0
LISTEN_SECONDS = 0.1
LOOK_SECONDS = 10.0
"""A look that takes longer has failed."""
START_SECONDS = 1.5
"""For so long the start waits for the first models; then they are loaded while the service says that it is not ready."""
LOADS, RETRIES, WAKES = 4, 2, 4
"""Threads that load versions: at first, again after a failure, and back into memory."""
MISSING = "alias-missing: the store has no alias of this project any more; the last version goes on serving"


class AliasRegression(StoreError):
    """The alias shows an older entry than one that was seen: somebody put it back past the history."""


@dataclass(frozen=True, slots=True)
class ReconcilerOptions:
    """How often to look, how much memory models may take by the size of their files, and whose models are taken."""

    poll_seconds: float
    max_bytes: int = 1 << 40
    allow_library_mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """A version that could not be loaded: not tried again until then, unless the alias moves."""

    alias: Alias
    until: float
    tries: int = 1


class Reconciler:
    """A look reads which aliases changed; each project then follows its own alias in its own task.

    So a version that takes long, or hangs, delays no other project. The version before stays warm, so that going back to it
    costs nothing. What served last is remembered on the disk, for a start without the store, for an alias that was deleted, and
    so that no restart lets an alias be put back.
    """

    def __init__(
        self,
        store: Store,
        cache: ModelCache,
        live: ActiveModels,
        trust: TrustPolicy,
        validator: Validator,
        metrics: Metrics,
        limits: ReconcilerOptions,
    ) -> None:
        self._cache, self._live, self._trust, self._limits, self._metrics = cache, live, trust, limits, metrics
        self._fetch, self._prover, self._place = fetcher(store, cache), validator, store.location
        self._aliases, self._swaps = Aliases(store, trust.promoters, metrics), Swaps(live, metrics, limits.max_bytes)
        self._disk, self._wakes = ThreadPool(1, "cache"), ThreadPool(WAKES, "wakes")
        self._loads, self._retries = ThreadPool(LOADS, "loads"), ThreadPool(RETRIES, "retries")
        self._waking: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._bell = ChangeSignal(cache.folder / "bell")
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self._looking, self._begun, self._ended = asyncio.Lock(), 0, 0
        self._remembered: dict[str, Alias] = {}
        self._followed: dict[str, Alias] = {}
        self._rests: dict[str, Backoff] = {}
        self._failed: dict[str, str] = {}
        self._noted: frozenset[str] = frozenset()
        self._first: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.looks = StoreChecks(limits.poll_seconds, metrics)

    @property
    def receipts(self) -> deque[dict[str, Any]]:
        return self._swaps.receipts

    @property
    def failures(self) -> dict[str, str]:
        """Why projects that served here, or that a promoter signed, are not as the store says."""
        failed = {project: reason for project, reason in self._failed.items() if project in self._known()}
        missing = dict.fromkeys(sorted(self._aliases.missing), MISSING)
        return failed | self._aliases.invalid(self._served()) | missing

    @property
    def rejected(self) -> dict[str, Any]:
        """Aliases that nobody signed of projects that never served here: how many, and the names of the first few."""
        return self._aliases.rejected(self._served())

    @property
    def settled(self) -> bool:
        """Whether the first look has ended, and whatever it found is in service or has failed."""
        return self._settled.is_set()

    def _served(self) -> set[str]:
        return {snapshot.project for snapshot in self._live.all()} | self._live.evicted.keys() | self._remembered.keys()

    def _known(self) -> set[str]:
        return self._served() | self._aliases.signed.keys()

    def context(self, store: Store, signer: Signer) -> PromotionContext:
        """Where to promote with this loop's cache and validator; `store` may be a more patient one."""
        return PromotionContext(store, self._trust, signer, "", self._fetch, self._prover)

    def hint(self) -> None:
        """Look soon, and let the other workers of this host look; any number of hints until then are one."""
        self._bell.notify()
        self._wake.set()

    async def start(self) -> None:
        """Load what the cache remembers and look at the store; after START_SECONDS both go on in the background."""
        self._live.starting = True
        for project, (data, confirmed) in (await self._disk.run(self._cache.aliases, self._place)).items():
            try:
                entry = parse_entry(data, project, self._trust.promoters)
            except StoreError:
                log.warning("what the cache remembers of a project is not signed", extra={"project": project})
                continue
            self._remembered[project], self._swaps.latest[project] = Alias(entry, data), entry.sequence
            self.looks.confirmed = min(self.looks.confirmed or confirmed, confirmed)
        self._live.expected = frozenset(self._remembered)
        self._follow()
        self._first = asyncio.create_task(self._first_look())
        await asyncio.wait([self._first], timeout=START_SECONDS)

    async def _first_look(self) -> None:
        try:
            await self._shared_look()
            while waiting := [task for project, task in self._tasks.items() if not self._is_up(project)]:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=LISTEN_SECONDS)
            gc.collect()
            gc.freeze()  # what is here now stays: collections need not look at it
        finally:
            self._settled.set()

    async def run(self) -> None:
        """Look, wait for a hint, a bell or the next poll, and look again, for as long as the service runs."""
        while True:
            await self._wait(self._limits.poll_seconds * random.uniform(0.9, 1.1))
            self._wake.clear()
            await self._shared_look()

    async def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._wake.is_set() and not self._bell.was_notified():
            try:
                await asyncio.wait_for(self._wake.wait(), min(left, LISTEN_SECONDS))
            except TimeoutError:
                pass

    async def look(self, project: str = "") -> None:
        """Look at the store and wait for what changed: that project, or all of them. Errors are in the status."""
        await self._shared_look()
        if tasks := [task for name, task in self._tasks.items() if not project or name == project]:
            await asyncio.wait(tasks)

    async def _shared_look(self) -> None:
        """One look at a time; callers that come while a look runs share the next one."""
        number = self._begun + 1
        async with self._looking:
            if self._ended < number:
                self._begun = number
                await self._look()
                self._ended = number

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._aliases.read(self._served())
        except (StoreError, TimeoutError) as error:
            log.warning("the store does not answer", extra={"reason": str(error) or "the look took too long"})
            self.looks.failed(error)
        else:
            self._live.starting = False
            self.looks.succeeded()
        self._note_missing()
        self._live.expected = frozenset(self._known())
        self._follow()
        if not self.looks.error and not self.failures:
            await self._disk.run(self._cache.touch_aliases, self._place)

    def _note_missing(self) -> None:
        missing = self._aliases.missing
        self._metrics.aliases_missing = len(missing)
        for project in missing - self._noted:
            log.warning("an alias is missing; the last version goes on serving", extra={"project": project})
        self._noted = frozenset(missing)

    def _follow(self) -> None:
        """Start a task for each project that is not where its alias points."""
        for project in self._known() - self._tasks.keys():
            if next(self._targets(project), None):
                task = self._tasks[project] = asyncio.create_task(self._bring(project))
                task.add_done_callback(lambda _, project=project: self._tasks.pop(project))  # type: ignore[misc]

    def _targets(self, project: str) -> Iterator[Alias]:
        """What to load now: while nothing serves, what the cache remembers; then what the alias shows."""
        rest = self._rests.get(project)
        resting = rest.alias if rest and time.monotonic() < rest.until else None
        remembered = None if self._is_up(project) else self._remembered.get(project)
        for alias in (remembered, self._aliases.signed.get(project)):
            if alias and alias is not resting and alias is not self._followed.get(project):
                yield alias

    def _is_up(self, project: str) -> bool:
        return self._live.serves(project) or project in self._live.evicted

    async def _bring(self, project: str) -> None:
        """Load until the project is where its alias points, or each target was tried."""
        tried: set[Alias] = set()
        while alias := next((each for each in self._targets(project) if each not in tried), None):
            tried.add(alias)
            pool = self._retries if project in self._rests else self._loads
            try:
                found = await pool.run(self._load, alias)
            except Exception as error:  # whatever is wrong with one version, the other projects go on
                self._fail(alias, error)
            else:
                await self._succeed(alias, found)

    async def _succeed(self, alias: Alias, found: PreparedSwap | None) -> None:
        project, entry = alias.entry.project, alias.entry
        self._followed[project] = alias
        self._failed.pop(project, None)
        self._rests.pop(project, None)
        if found:
            self._swaps.swap(found)
        elif self._is_up(project):
            self._swaps.entries[project] = alias.data
        self._swaps.latest[project] = max(self._swaps.latest.get(project, 0), entry.sequence)
        known = self._remembered.get(project)
        if entry.champion and (known is None or known.data != alias.data):
            self._remembered[project] = alias
            await self._disk.run(self._cache.remember_alias, self._place, project, alias.data)
        if found:
            await self._disk.run(self._bell.notify)

    def _fail(self, alias: Alias, error: Exception) -> None:
        project, reason = alias.entry.project, public_reason(error)
        if self._failed.get(project) != reason:
            self._metrics.swaps[project, "failed"] += 1
            facts = {"project": project, "version": alias.entry.champion, "reason": str(error) or reason}
            known = isinstance(error, StoreError)
            log.warning("a version was not put in service", extra=facts, exc_info=None if known else error)
        self._failed[project] = reason
        if isinstance(error, ModelLoadError):
            rest = self._rests.get(project)
            tries = rest.tries + 1 if rest and rest.alias is alias else 1
            pause = min(MAX_BACKOFF, self._limits.poll_seconds * 2**tries) * random.uniform(0.8, 1.2)
            self._rests[project] = Backoff(alias, time.monotonic() + pause, tries)

    def _load(self, alias: Alias) -> PreparedSwap | None:
        """In a thread: what the entry of the alias asks for, or None when it is live. Raises StoreError."""
        began, entry, project = time.monotonic(), alias.entry, alias.entry.project
        latest = self._swaps.latest.get(project, 0)
        if entry.sequence < latest:
            raise AliasRegression(f"the alias of {project} shows number {entry.sequence}, but number {latest} was seen")
        live = self._live.find(project)
        if entry.champion is None or entry.manifest_sha256 is None or (live and entry.manifest_sha256 == live.manifest_sha256):
            return None
        if project in self._live.evicted and self._swaps.entries[project] == alias.data:
            return None
        if warm := self._swaps.warm(project, entry.champion, entry.manifest_sha256):
            return PreparedSwap(replace(warm, sequence=entry.sequence), alias.data, True, began)
        return PreparedSwap(self._proved(entry), alias.data, False, began)

    def _proved(self, entry: AuditEntry) -> ServedModel:
        assert entry.champion and entry.manifest_sha256
        loaded = self._prover.load(entry.project, entry.champion, entry.manifest_sha256, self._fetch, self._trust.trainers)
        if others := library_mismatches(loaded.manifest.libraries):
            if not self._limits.allow_library_mismatch:
                raise ModelLoadError(
                    f"{', '.join(others)}: PODIUM_ALLOW_LIBRARY_MISMATCH=true serves it, as its golden rows come out right"
                )
            log.warning("%s %s: %s", entry.project, entry.champion, ", ".join(others))
        snapshot = ServedModel.of(entry, loaded)
        fast_path_for(snapshot)
        return snapshot

    def close(self) -> None:
        """Stop what runs; calls that hang are left to end by themselves."""
        for task in (*self._tasks.values(), *([self._first] if self._first else [])):
            task.cancel()
        for pool in (self._disk, self._wakes, self._loads, self._retries):
            pool.close()
        self._aliases.close()

    async def wake(self, project: str) -> None:
        """Bring a project back into memory that made room for others. Raises StoreError."""
        async with self._waking[project]:
            if project in self._live.evicted:
                self._swaps.swap(await self._wakes.run(self._wakened, project))

    def _wakened(self, project: str) -> PreparedSwap:
        """What served before it left memory, whatever its alias shows by now."""
        began, data = time.monotonic(), self._swaps.entries[project]
        return PreparedSwap(self._proved(parse_entry(data, project, self._trust.promoters)), data, False, began)

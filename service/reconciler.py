"""The loop that makes the served models match the aliases; it compares states, so no event can be missed."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from podium.prediction_log.witness import Witness
from podium.registry.audit_entry import parse_entry
from podium.registry.loading import ModelLoadError
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer
from podium.registry.versions import IntegrityError
from podium.storage.files import ChangeSignal
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, StoreError
from service.aliases import Alias, Aliases
from service.backoff import Backoff
from service.staleness import StoreChecks, public_reason
from service.swaps import PreparedSwap, Swaps
from service.thread_pools import ThreadPool
from service.version_loader import VersionLoader

log = logging.getLogger(__name__)
SIGNAL_POLL_SECONDS = 0.1
CHECK_TIMEOUT = 10.0
"""A store check that takes longer counts as failed."""
FIRST_POLL_SECONDS, FIRST_LOAD_SECONDS = 1.5, 5.0
"""How long startup waits for the first poll, and for the models that it found; after that, both continue while the service
reports that it is not ready."""
LOAD_THREADS, RETRY_THREADS, RELOAD_THREADS = 4, 2, 4
ALIAS_MISSING = "alias-missing: the store no longer has an alias for this project; the last version keeps serving"


class AliasRegression(StoreError):
    """The alias names an older entry than it did before: it was restored without using the audit log."""


class Reconciler:
    """Polls the aliases of the store; each project then follows its alias in a task of its own.

    A version that loads slowly or hangs does not delay other projects. The previous version stays in memory, so that a
    rollback is instant. The last aliases are cached on disk, so that the service can start without the store,
    keep serving a project whose alias was deleted, and reject an older alias after a restart.
    """

    def __init__(
        self,
        store: Store,
        cache: ModelCache,
        loader: VersionLoader,
        swaps: Swaps,
        poll_seconds: float,
        witness: Witness | None = None,
    ) -> None:
        self._cache, self.loader, self._swaps, self._poll_seconds = cache, loader, swaps, poll_seconds
        self._witness, self.log_error = witness, ""
        self._live, self._metrics, self._location = swaps.live, swaps.metrics, store.location
        self._aliases = Aliases(store, loader.trust.promoters, swaps.metrics)
        self._cache_threads, self._reload_threads = ThreadPool(1, "cache"), ThreadPool(RELOAD_THREADS, "reloads")
        self._load_threads, self._retry_threads = ThreadPool(LOAD_THREADS, "loads"), ThreadPool(RETRY_THREADS, "retries")
        self._reload_locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._signal = ChangeSignal(cache.folder / "changed")
        self._notified, self._initialized = asyncio.Event(), asyncio.Event()
        self._poll_lock, self._polls_started, self._polls_finished = asyncio.Lock(), 0, 0
        self._cached_aliases: dict[str, Alias] = {}
        self._synced_aliases: dict[str, Alias] = {}
        self._backoff = Backoff(poll_seconds)
        self._errors: dict[str, str] = {}
        self._logged_missing: frozenset[str] = frozenset()
        self._first_poll_task: asyncio.Task[None] | None = None
        self._sync_tasks: dict[str, asyncio.Task[None]] = {}
        self.store_checks = StoreChecks(poll_seconds, swaps.metrics)

    # --- state -----------------------------------------------------------------------------------------------------------

    @property
    def swap_records(self) -> deque[dict[str, Any]]:
        return self._swaps.records

    @property
    def failures(self) -> dict[str, str]:
        """Why projects do not match the store, for projects that were served here or have a signed alias."""
        failed = {project: reason for project, reason in self._errors.items() if project in self._known()}
        missing = dict.fromkeys(sorted(self._aliases.missing), ALIAS_MISSING)
        return failed | self._aliases.invalid(self._served()) | missing

    @property
    def rejected_aliases(self) -> dict[str, Any]:
        """The number of projects with an unsigned or invalid alias that were never served here, and some of their names."""
        return self._aliases.rejected(self._served())

    @property
    def is_initialized(self) -> bool:
        """Whether the first poll has ended and its versions have loaded or failed."""
        return self._initialized.is_set()

    def _served(self) -> set[str]:
        return {served.project for served in self._live.all()} | self._live.evicted.keys() | self._cached_aliases.keys()

    def _known(self) -> set[str]:
        return self._served() | self._aliases.signed.keys()

    def _is_available(self, project: str) -> bool:
        return self._live.is_loaded(project) or project in self._live.evicted

    def promotion_context(self, store: Store, signer: Signer) -> PromotionContext:
        return self.loader.promotion_context(store, signer)

    # --- polling ---------------------------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Request a poll, here and in the other workers of this host; requests made before the poll starts count as one."""
        self._signal.notify()
        self._notified.set()

    async def start(self) -> None:
        """Load the cached aliases and poll the store; what takes long continues in the background."""
        self._live.starting = True
        cached = await self._cache_threads.run(self._cache.aliases, self._location)
        for project, (data, confirmed) in cached.items():
            try:
                entry = parse_entry(data, project, self.loader.trust.promoters)
            except StoreError:
                log.warning("a cached alias has no trusted signature", extra={"project": project})
                continue
            self._cached_aliases[project] = Alias(entry, data)
            self._swaps.note_sequence(project, entry.sequence)
            self.store_checks.confirmed = min(self.store_checks.confirmed or confirmed, confirmed)
        self._live.expected = frozenset(self._cached_aliases)
        self._start_syncs()
        self._first_poll_task = asyncio.create_task(self._first_poll())
        await asyncio.wait([self._first_poll_task], timeout=FIRST_POLL_SECONDS)
        if loading := [task for project, task in self._sync_tasks.items() if not self._is_available(project)]:
            await asyncio.wait(loading, timeout=FIRST_LOAD_SECONDS)

    async def _first_poll(self) -> None:
        try:
            if self._witness:
                await self._load_threads.run(self._note_logged_promotions, self._witness)
            await self._poll_shared()
            while waiting := [task for project, task in self._sync_tasks.items() if not self._is_available(project)]:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=SIGNAL_POLL_SECONDS)
            gc.collect()
            gc.freeze()  # the objects of the loaded models stay, so exclude them from garbage collection
        finally:
            self._initialized.set()

    def _note_logged_promotions(self, witness: Witness) -> None:
        """Remember the promotions that have answered requests, so that an older champion is not accepted."""
        try:
            for project, number in witness.latest_promotions().items():
                self._swaps.note_sequence(project, number)
        except IntegrityError as error:
            self.log_error = str(error)
            log.error("the prediction log was changed", extra={"reason": str(error)})
        except StoreError as error:
            log.warning("the prediction log cannot be read", extra={"reason": str(error)})

    async def run(self) -> None:
        """Poll at regular intervals and after each notification or signal, for as long as the service runs."""
        while True:
            await self._wait(self._poll_seconds * random.uniform(0.9, 1.1))
            self._notified.clear()
            await self._poll_shared()

    async def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._notified.is_set() and not self._signal.was_notified():
            try:
                await asyncio.wait_for(self._notified.wait(), min(left, SIGNAL_POLL_SECONDS))
            except TimeoutError:
                pass

    async def poll_once(self, project: str = "") -> None:
        """Poll the store and wait until the project, or every project, is in sync; errors are in `failures`."""
        await self._poll_shared()
        if tasks := [task for name, task in self._sync_tasks.items() if not project or name == project]:
            await asyncio.wait(tasks)

    async def _poll_shared(self) -> None:
        """Run one poll at a time; calls during a poll share the next one."""
        number = self._polls_started + 1
        async with self._poll_lock:
            if self._polls_finished < number:
                self._polls_started = number
                await self._poll()
                self._polls_finished = number

    async def _poll(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._aliases.update(self._served())
        except (StoreError, TimeoutError) as error:
            log.warning("the object store is unreachable", extra={"reason": str(error) or "the check timed out"})
            self.store_checks.failed(error)
        else:
            self._live.starting = False
            self.store_checks.succeeded()
        self._log_missing()
        self._live.expected = frozenset(self._known())
        self._start_syncs()
        if not self.store_checks.error and not self.failures:
            await self._cache_threads.run(self._cache.touch_aliases, self._location)

    def _log_missing(self) -> None:
        missing = self._aliases.missing
        self._metrics.aliases_missing = len(missing)
        for project in missing - self._logged_missing:
            log.warning("an alias is missing; the last version keeps serving", extra={"project": project})
        self._logged_missing = frozenset(missing)

    # --- projects --------------------------------------------------------------------------------------------------------

    def _start_syncs(self) -> None:
        """Start a task for each project that does not match its alias."""
        for project in self._known() - self._sync_tasks.keys():
            if next(self._targets(project), None):
                task = self._sync_tasks[project] = asyncio.create_task(self._sync_project(project))
                task.add_done_callback(lambda _, project=project: self._sync_tasks.pop(project))  # type: ignore[misc]

    def _targets(self, project: str) -> Iterator[Alias]:
        """Yield the aliases to load: the cached one while no version is being served, then the one in the store."""
        cached = None if self._is_available(project) else self._cached_aliases.get(project)
        for alias in (cached, self._aliases.signed.get(project)):
            if alias and not self._backoff.is_paused(alias) and alias is not self._synced_aliases.get(project):
                yield alias

    async def _sync_project(self, project: str) -> None:
        """Load until the project matches its alias, or every target was tried."""
        tried: set[Alias] = set()
        while alias := next((target for target in self._targets(project) if target not in tried), None):
            tried.add(alias)
            threads = self._retry_threads if project in self._backoff else self._load_threads
            try:
                prepared = await threads.run(self._prepare, alias)
            except Exception as error:  # a broken version must not affect other projects
                self._record_failure(alias, error)
            else:
                await self._complete(alias, prepared)

    async def _complete(self, alias: Alias, prepared: PreparedSwap | None) -> None:
        """Swap in a prepared version, if any, and remember the alias."""
        project, entry = alias.entry.project, alias.entry
        self._synced_aliases[project] = alias
        self._errors.pop(project, None)
        self._backoff.reset(project)
        if prepared:
            self._swaps.swap(prepared)
        elif self._is_available(project):
            self._swaps.alias_data[project] = alias.data
        self._swaps.note_sequence(project, entry.sequence)
        cached = self._cached_aliases.get(project)
        if entry.champion and (cached is None or cached.data != alias.data):
            self._cached_aliases[project] = alias
            await self._cache_threads.run(self._cache.remember_alias, self._location, project, alias.data)
        if prepared:
            await self._cache_threads.run(self._signal.notify)

    def _record_failure(self, alias: Alias, error: Exception) -> None:
        project, version, reason = alias.entry.project, alias.entry.champion, public_reason(error)
        if self._errors.get(project) != reason:
            self._metrics.swaps[project, "failed"] += 1
            current = next((served.version for served in self._live.all() if served.project == project), "nothing")
            extra = {"project": project, "version": version, "reason": str(error) or reason}
            exc_info = None if isinstance(error, StoreError) else error
            log.warning("failed to load %s %s, still serving %s", project, version, current, extra=extra, exc_info=exc_info)
        self._errors[project] = reason
        if isinstance(error, ModelLoadError):
            self._backoff.add(alias)

    def _prepare(self, alias: Alias) -> PreparedSwap | None:
        """Load the alias's version, or return None if it is already being served; runs in a thread. Raises StoreError."""
        started, entry, project = time.monotonic(), alias.entry, alias.entry.project
        latest = self._swaps.latest_sequence.get(project, 0)
        if entry.sequence < latest:
            raise AliasRegression(f"the alias of {project} names entry {entry.sequence}, which is older than entry {latest}")
        current = self._live.find(project)
        if (
            entry.champion is None
            or entry.manifest_sha256 is None
            or (current and entry.manifest_sha256 == current.manifest_sha256)
        ):
            return None
        if project in self._live.evicted and self._swaps.alias_data[project] == alias.data:
            return None
        if warm := self._swaps.find_warm(project, entry.champion, entry.manifest_sha256):
            return PreparedSwap(replace(warm, sequence=entry.sequence), alias.data, True, started)
        return PreparedSwap(self.loader.load(entry), alias.data, False, started)

    # --- evicted models --------------------------------------------------------------------------------------------------

    async def reload(self, project: str) -> None:
        """Load an evicted model back into memory. Raises StoreError."""
        async with self._reload_locks[project]:
            if project in self._live.evicted:
                self._swaps.swap(await self._reload_threads.run(self._prepare_reload, project))

    def _prepare_reload(self, project: str) -> PreparedSwap:
        """Load the version that was evicted, whatever the alias names by now."""
        started, data = time.monotonic(), self._swaps.alias_data[project]
        entry = parse_entry(data, project, self.loader.trust.promoters)
        return PreparedSwap(self.loader.load(entry), data, False, started)

    def close(self) -> None:
        """Cancel the tasks, without waiting for calls that hang in a thread."""
        for task in (*self._sync_tasks.values(), *([self._first_poll_task] if self._first_poll_task else [])):
            task.cancel()
        for threads in (self._cache_threads, self._reload_threads, self._load_threads, self._retry_threads):
            threads.close()
        self._aliases.close()

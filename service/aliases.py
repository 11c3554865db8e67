"""What the aliases of the store ask for: one listing for each look, and only those are read that changed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.audit_log import alias_key, alias_states
from podium.registry.signing import VerifyingKeys
from podium.storage.object_store import NotFound, Store, StoreError
from service.metrics import Metrics
from service.thread_pools import ThreadPool

READS = 8
MAX_NEW = 100
"""So many aliases of unknown projects are read in one look."""
MAX_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class Alias:
    """A signed entry of the history, and its bytes."""

    entry: AuditEntry
    data: bytes


class Aliases:
    """The last accepted alias of each project, the known projects whose alias is missing or invalid, and what else is listed.

    An alias that no accepted promoter signed counts only for a project that served here before.
    """

    def __init__(self, store: Store, promoters: VerifyingKeys, metrics: Metrics) -> None:
        self._store, self._promoters, self._metrics = store, promoters, metrics
        self._threads = ThreadPool(READS, "aliases")
        self._etags: dict[str, str] = {}
        self._invalid: dict[str, str] = {}
        self.signed: dict[str, Alias] = {}
        self.missing: set[str] = set()

    async def read(self, served: Set[str]) -> None:
        """Bring everything up to date; `served` are the projects that served here. Raises StoreError."""
        states = await self._threads.run(alias_states, self._store)
        known = served | self.signed.keys()
        self._forget(states.keys() | known)
        changed = [project for project in known if states.get(project) is None or self._is_new(project, states)]
        for error in await _all(self._read(project, states.get(project), served) for project in changed):
            raise error
        await _all(self._read(project, states[project], served) for project in self._strangers(states, known))

    def invalid(self, served: Set[str]) -> dict[str, str]:
        """What is wrong with the aliases of these projects."""
        return {project: self._invalid[project] for project in sorted(served & self._invalid.keys())}

    def rejected(self, served: Set[str]) -> dict[str, Any]:
        """The aliases of other projects that nobody signed, for the status: how many, and the names of the first few."""
        names = sorted(self._invalid.keys() - served)
        return {"count": len(names), "projects": list(islice(names, MAX_SHOWN))}

    def close(self) -> None:
        self._threads.close()

    def _is_new(self, project: str, states: dict[str, str]) -> bool:
        return states[project] != self._etags.get(project)

    def _strangers(self, states: dict[str, str], known: Set[str]) -> list[str]:
        """Aliases of unknown projects that are not read yet, those first that were never read, else in random order."""
        new = [project for project in states.keys() - known if self._is_new(project, states)]
        return sorted(new, key=lambda project: (project in self._etags, random.random()))[:MAX_NEW]

    def _forget(self, names: Set[str]) -> None:
        for gone in self._etags.keys() - names:
            self._etags.pop(gone)
            self._invalid.pop(gone, None)

    async def _read(self, project: str, etag: str | None, served: Set[str]) -> None:
        """Read one alias; without an ETag, the listing did not show it."""
        try:
            blob = await self._threads.run(self._store.read, alias_key(project))
        except NotFound:
            return self._is_missing(project, served)
        except StoreError as error:
            if type(error) is StoreError:
                raise
            return self._reject(project, etag, error)  # an object that cannot be an alias, such as one that is too large
        try:
            entry = parse_entry(blob.data, project, self._promoters)
        except StoreError as error:
            return self._reject(project, etag, error)
        self._etags[project] = etag or blob.etag
        self.signed[project] = Alias(entry, blob.data)
        self._invalid.pop(project, None)
        self.missing.discard(project)

    def _is_missing(self, project: str, served: Set[str]) -> None:
        """A project that served goes on serving; one that never did is forgotten."""
        self._etags.pop(project, None)
        self._invalid.pop(project, None)
        if project in served:
            self.missing.add(project)
        else:
            self.signed.pop(project, None)

    def _reject(self, project: str, etag: str | None, error: StoreError) -> None:
        self.missing.discard(project)
        if etag:
            self._etags[project] = etag
        self._invalid[project] = str(error)
        self._metrics.aliases_rejected += 1


async def _all(calls: Iterable[Awaitable[None]]) -> list[Exception]:
    """Wait for all of them; the exceptions that they raised."""
    return [found for found in await asyncio.gather(*calls, return_exceptions=True) if isinstance(found, Exception)]

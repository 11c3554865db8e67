"""The champion aliases in the store: one listing per check, and only changed aliases are read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.champion_alias import alias_key, alias_states
from podium.registry.signing import VerifyingKeys
from podium.storage.object_store import NotFound, Store, StoreError
from service.metrics import Metrics
from service.thread_pools import ThreadPool

THREADS = 8
MAX_NEW = 100
"""Maximum number of aliases of unknown projects to read per check."""
MAX_LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Alias:
    """A signed audit-log entry and its bytes."""

    entry: AuditEntry
    data: bytes


class Aliases:
    """The last valid alias of each project, and the projects whose alias is missing or invalid.

    An alias without a trusted signature matters only for projects that this service has served.
    """

    def __init__(self, store: Store, promoters: VerifyingKeys, metrics: Metrics) -> None:
        self._store, self._promoters, self._metrics = store, promoters, metrics
        self._threads = ThreadPool(THREADS, "aliases")
        self._etags: dict[str, str] = {}
        self._invalid: dict[str, str] = {}
        self.signed: dict[str, Alias] = {}
        self.missing: set[str] = set()

    async def update(self, served: Set[str]) -> None:
        """Read the aliases that changed; `served` contains the projects that this service has served. Raises StoreError."""
        etags = await self._threads.run(alias_states, self._store)
        known = served | self.signed.keys()
        self._forget_except(etags.keys() | known)
        changed = [project for project in known if etags.get(project) is None or self._is_changed(project, etags)]
        for error in await _gather_errors(self._read(project, etags.get(project), served) for project in changed):
            raise error
        await _gather_errors(self._read(project, etags[project], served) for project in self._unknown(etags, known))

    def invalid(self, served: Set[str]) -> dict[str, str]:
        """Return why the aliases of served projects are invalid, by project."""
        return {project: self._invalid[project] for project in sorted(served & self._invalid.keys())}

    def rejected(self, served: Set[str]) -> dict[str, Any]:
        """Return the number of projects with an invalid alias that were never served, and some of their names."""
        names = sorted(self._invalid.keys() - served)
        return {"count": len(names), "projects": list(islice(names, MAX_LISTED))}

    def close(self) -> None:
        self._threads.close()

    def _is_changed(self, project: str, etags: dict[str, str]) -> bool:
        return etags[project] != self._etags.get(project)

    def _unknown(self, etags: dict[str, str], known: Set[str]) -> list[str]:
        """Return unknown projects whose alias has changed, in random order but with aliases never read before first."""
        changed = [project for project in etags.keys() - known if self._is_changed(project, etags)]
        return sorted(changed, key=lambda project: (project in self._etags, random.random()))[:MAX_NEW]

    def _forget_except(self, names: Set[str]) -> None:
        for project in self._etags.keys() - names:
            self._etags.pop(project)
            self._invalid.pop(project, None)

    async def _read(self, project: str, etag: str | None, served: Set[str]) -> None:
        """Read one alias; `etag` is None if the alias was not listed. Raises StoreError if S3 fails."""
        try:
            blob = await self._threads.run(self._store.read, alias_key(project))
        except NotFound:
            return self._mark_missing(project, served)
        except StoreError as error:
            if type(error) is StoreError:
                raise
            return self._reject(project, etag, error)  # the object cannot be an alias, for example because it is too large
        try:
            entry = parse_entry(blob.data, project, self._promoters)
        except StoreError as error:
            return self._reject(project, etag, error)
        self._etags[project] = etag or blob.etag
        self.signed[project] = Alias(entry, blob.data)
        self._invalid.pop(project, None)
        self.missing.discard(project)

    def _mark_missing(self, project: str, served: Set[str]) -> None:
        """Remember that a served project has no alias, so that it keeps serving; forget other projects."""
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


async def _gather_errors(calls: Iterable[Awaitable[None]]) -> list[Exception]:
    """Wait for all calls and return the exceptions that they raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]

"""What serves now: one frozen snapshot a project, replaced by one assignment."""

from __future__ import annotations

import time

from podium.inference.served_model import ServedModel
from podium.registry.versions import Manifest
from service.problems import ModelNotReady, UnknownProject


class ActiveModels:
    """The live snapshots by project, which projects should be live, and which sleep for want of memory."""

    def __init__(self, default_project: str = "") -> None:
        self._snapshots: dict[str, ServedModel] = {}
        self._asked: dict[str, float] = {}
        self.evicted: dict[str, Manifest] = {}
        self._default = default_project
        self.expected: frozenset[str] = frozenset()
        self.draining = False
        self.starting = False
        """Until the store was seen for the first time, as any project may be in it."""

    def get(self, project: str) -> ServedModel:
        """Raises UnknownProject, ModelNotReady."""
        snapshot = self.find(project)
        if snapshot is None and project in self.expected:
            raise ModelNotReady("the champion of this project could not be put in service yet; /status says why")
        if snapshot is None and self.starting:
            raise ModelNotReady("the service is starting: it does not know yet which projects there are")
        if snapshot is None:
            raise UnknownProject("there is no project of that name in service")
        return snapshot

    def default(self) -> ServedModel:
        """The snapshot behind the paths without a project. Raises ModelNotReady, UnknownProject."""
        if self._default:
            return self.get(self._default)
        if not self._snapshots:
            raise ModelNotReady("no model is in service yet")
        if len(self._snapshots) + len(self.evicted) > 1:
            raise UnknownProject(
                "several projects are in service: name one (/projects/NAME/…, ?project=NAME), or set PODIUM_DEFAULT_PROJECT"
            )
        return next(iter(self._snapshots.values()))

    def find(self, project: str) -> ServedModel | None:
        """Without raising; an empty name means the default."""
        if not project and not self._default:
            return next(iter(self._snapshots.values())) if len(self._snapshots) == 1 and not self.evicted else None
        snapshot = self._snapshots.get(project or self._default)
        if snapshot is not None:
            self._asked[snapshot.project] = time.monotonic()
        return snapshot

    def serves(self, project: str) -> bool:
        """Whether it is in memory; other than `find`, this is no use of it."""
        return project in self._snapshots

    def all(self) -> list[ServedModel]:
        return sorted(self._snapshots.values(), key=lambda snapshot: snapshot.project)

    def swap(self, snapshot: ServedModel) -> ServedModel | None:
        """Put a snapshot in service; returns the one before."""
        before = self._snapshots.get(snapshot.project)
        self._snapshots = {**self._snapshots, snapshot.project: snapshot}  # the swap: one assignment
        self._asked[snapshot.project] = time.monotonic()
        self.evicted = {name: each for name, each in self.evicted.items() if name != snapshot.project}
        return before

    def least_recently_used(self) -> ServedModel | None:
        """The one that nobody has asked for the longest time; the default project never sleeps."""
        others = [snapshot for snapshot in self._snapshots.values() if snapshot.project != self._default]
        return min(others, key=lambda snapshot: self._asked.get(snapshot.project, 0.0), default=None)

    def evict(self, snapshot: ServedModel) -> None:
        """Out of memory, until somebody asks for it."""
        self._snapshots = {name: each for name, each in self._snapshots.items() if each is not snapshot}
        self.evicted = {**self.evicted, snapshot.project: snapshot.manifest}

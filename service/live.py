"""What serves now: one frozen snapshot a project, replaced by one assignment."""

from __future__ import annotations

from podium.predict.snapshot import Snapshot
from service.problems import ModelNotReady, UnknownProject


class Live:
    """The live snapshots by project, and which projects should be live."""

    def __init__(self, default_project: str = "") -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._default = default_project
        self.expected: frozenset[str] = frozenset()
        self.draining = False

    def get(self, project: str) -> Snapshot:
        """Raises UnknownProject, ModelNotReady."""
        snapshot = self._snapshots.get(project)
        if snapshot is None and project in self.expected:
            raise ModelNotReady("the champion of this project could not be put in service yet; /status says why")
        if snapshot is None:
            raise UnknownProject("there is no project of that name in service")
        return snapshot

    def default(self) -> Snapshot:
        """The snapshot behind the paths without a project. Raises ModelNotReady, UnknownProject."""
        if self._default:
            return self.get(self._default)
        if not self._snapshots:
            raise ModelNotReady("no model is in service yet")
        if len(self._snapshots) > 1:
            raise UnknownProject(
                "several projects are in service: name one (/projects/NAME/…, ?project=NAME), or set PODIUM_DEFAULT_PROJECT"
            )
        return next(iter(self._snapshots.values()))

    def find(self, project: str) -> Snapshot | None:
        """Without raising; an empty name means the default."""
        if project or self._default:
            return self._snapshots.get(project or self._default)
        return next(iter(self._snapshots.values())) if len(self._snapshots) == 1 else None

    def all(self) -> list[Snapshot]:
        return sorted(self._snapshots.values(), key=lambda snapshot: snapshot.project)

    def swap(self, snapshot: Snapshot) -> Snapshot | None:
        """Put a snapshot in service; returns the one before."""
        before = self._snapshots.get(snapshot.project)
        self._snapshots = {**self._snapshots, snapshot.project: snapshot}  # the swap: one assignment
        return before

"""What serves now: one frozen snapshot a project, replaced by one assignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from podium.data.columns import Signature
from podium.model.model import Model, OneRecord
from podium.store.versions import Manifest
from service.problems import ModelNotReady, UnknownModel, UnknownProject


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A proved version; a request reads the live one once and keeps it to the end."""

    project: str
    version: str
    sequence: int
    manifest_sha256: str
    manifest: Manifest
    models: Mapping[str, Model]
    fast: Mapping[str, OneRecord | None]

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    @property
    def champion(self) -> str:
        return self.manifest.champion

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.manifest.created)

    def half_width(self, family: str) -> float | None:
        """Half of a regression's 90 % prediction interval; None for classes, and where no residuals are known."""
        found = next((row.get("interval_90") for row in self.manifest.leaderboard if row["model"] == family), None)
        return None if found is None else float(found)

    def families(self, asked: str) -> list[str]:
        """`champion`, `all` or a family's name to families, the champion first. Raises UnknownModel."""
        if asked == "champion":
            return [self.champion]
        if asked == "all":
            return sorted(self.models, key=lambda family: family != self.champion)
        if asked not in self.models:
            raise UnknownModel(f"there is no model of that name; there are champion, all, {', '.join(self.models)}")
        return [asked]


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

"""A proved version as it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from podium.models.model import Model, RowScorer
from podium.registry.audit_log import AuditEntry
from podium.registry.loading import LoadedVersion
from podium.registry.versions import Manifest
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature


class UnknownModel(Exception):
    """The version has no model of this name."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version in memory; who answers reads the live one once and keeps it to the end."""

    project: str
    version: str
    sequence: int
    manifest_sha256: str
    manifest: Manifest
    models: Mapping[str, Model]
    fast: Mapping[str, RowScorer | None]
    golden_difference: float = 0.0
    prepared: dict[str, Any] = field(default_factory=dict, compare=False)
    """What those who serve it made of it ahead; it goes when the snapshot goes."""

    @classmethod
    def of(cls, entry: AuditEntry, loaded: LoadedVersion) -> ServedModel:
        """What an entry of the history put in service."""
        assert entry.champion and entry.manifest
        facts = entry.project, entry.champion, entry.sequence, entry.manifest
        return cls(*facts, loaded.manifest, loaded.models, loaded.fast, loaded.largest_difference)

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    @property
    def champion(self) -> str:
        return self.manifest.champion

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.manifest.created)

    @property
    def bytes(self) -> int:
        """What its files take, and its models in memory about."""
        return sum(file.size for name, file in self.manifest.files.items() if name.startswith("models/"))

    def half_width(self, family: str) -> float | None:
        """Half of a regression's 90 % prediction interval; None for classes, and where no residuals are known."""
        found = next((row.get("interval_90") for row in self.manifest.leaderboard if row["model"] == family), None)
        return None if found is None else float(found)

    def families(self, asked: str) -> list[str]:
        """`champion`, `all` or a family's name to families, the champion first. Raises NoSuchModel."""
        if asked == "champion":
            return [self.champion]
        if asked == "all":
            return sorted(self.models, key=lambda family: family != self.champion)
        if asked not in self.models:
            raise UnknownModel(f"there is no model of that name; there are champion, all, {', '.join(self.models)}")
        return [asked]


def scores_here(snapshot: ServedModel, family: str, frame: pd.DataFrame) -> FloatMatrix:
    """(n, scores) in this process."""
    return snapshot.models[family].scores(frame)

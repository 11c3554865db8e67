"""A loaded version that serves predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from podium.models.model import Model, RowScorer
from podium.registry.audit_entry import AuditEntry
from podium.registry.loading import LoadedVersion
from podium.registry.versions import Manifest
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature


class UnknownModel(Exception):
    """The version has no model of this name."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An immutable loaded version. A request resolves it once and uses it throughout."""

    project: str
    version: str
    sequence: int
    manifest_sha256: str
    manifest: Manifest
    models: Mapping[str, Model]
    fast: Mapping[str, RowScorer | None]
    golden_difference: float = 0.0
    prepared: dict[object, Any] = field(default_factory=dict, compare=False)
    """Per-version objects cached by the server, such as the fast path; dropped with the version."""

    @classmethod
    def of(cls, entry: AuditEntry, loaded: LoadedVersion) -> ServedModel:
        """Return the version that an audit-log entry made the champion."""
        assert entry.champion and entry.manifest_sha256
        facts = entry.project, entry.champion, entry.sequence, entry.manifest_sha256
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
        """Size of the model files; an estimate of the memory they use."""
        return sum(file.size for name, file in self.manifest.files.items() if name.startswith("models/"))

    def half_width(self, family: str) -> float | None:
        """Return half the width of a regression's 90% prediction interval; None if there is none."""
        half_width = next((row.get("interval_90") for row in self.manifest.leaderboard if row["model"] == family), None)
        return None if half_width is None else float(half_width)

    def families(self, name: str) -> list[str]:
        """Return the families for `champion`, `all` or a family name, with the champion first. Raises UnknownModel."""
        if name == "champion":
            return [self.champion]
        if name == "all":
            return sorted(self.models, key=lambda family: family != self.champion)
        if name not in self.models:
            raise UnknownModel(f"unknown model {name[:100]!r}; choose one of: champion, all, {', '.join(self.models)}")
        return [name]


def scores_here(snapshot: ServedModel, family: str, frame: pd.DataFrame) -> FloatMatrix:
    """Return (n, outputs) scores, computed in this process."""
    return snapshot.models[family].scores(frame)

"""The files and the manifest of a version."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property

import pandas as pd

from podium.models.golden_rows import GOLDEN, record_golden
from podium.models.model import Model
from podium.models.serialization import dump
from podium.project import Project
from podium.registry import provenance
from podium.registry.versions import (
    GOLDEN_FILE,
    LEADERBOARD_FILE,
    TEST_FILE,
    VERSION,
    Manifest,
    SplitBoundary,
    file_digests,
    model_file,
)
from podium.schema.columns import Signature
from podium.schema.reading import Finding
from podium.storage.object_store import digest
from podium.tables.labeled_rows import LabeledRows, UnreadableRows, labeled_rows_to_parquet
from podium.training.candidates import Candidate, out_of_fold_scores
from podium.training.findings import leakage_findings
from podium.training.project_kinds import kind_of
from podium.training.splits import evaluation_rows, split_boundary, training_rows

DataFacts = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class VersionReservation:
    """The name of a version before it is published: its time, run and data snapshot, and the champion it follows."""

    version: str
    created: str
    run: str
    snapshot: str
    parent: str | None

    @classmethod
    def now(cls, now: datetime, run: str, snapshot: str, parent: str | None) -> VersionReservation:
        return cls(f"{now:%Y%m%dT%H%M%SZ}-{run[:8]}", now.isoformat(timespec="seconds"), run, snapshot, parent)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> VersionReservation:
        """Parse a stored reservation. Raises UnreadableRows."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            raise UnreadableRows("reservation.json of this run cannot be read; delete it and run again") from None

    def checked(self, run: str, snapshot: str) -> VersionReservation:
        """Return this reservation if it belongs to this run. Raises UnreadableRows."""
        day, _, suffix = str(self.version).partition("-")
        matches = (self.run, self.snapshot, suffix) == (run, snapshot, run[:8]) and re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", day)
        if not matches or not (self.parent is None or re.fullmatch(VERSION, str(self.parent))):
            raise UnreadableRows("reservation.json belongs to another run and cannot be read here; delete it and run again")
        return self


@dataclass(frozen=True)
class TrainedRun:
    """Everything that a version is built from."""

    project: Project
    reservation: VersionReservation
    rows: LabeledRows
    candidates: list[Candidate]

    @cached_property
    def training(self) -> LabeledRows:
        return training_rows(self.rows, self.project)

    @cached_property
    def test(self) -> LabeledRows:
        """The rows to evaluate on."""
        return evaluation_rows(self.rows, self.project, out_of_fold_scores(self.candidates))

    def version_files(self, files: Mapping[str, bytes], author: str) -> tuple[Manifest, dict[str, bytes]]:
        """Add models, golden rows and test rows to `files`; return the manifest and all files."""
        signature, models, unused = self._of_used_columns()
        golden = record_golden(models, self.training.inputs, self.project.seed)
        all_files = {
            **files,
            GOLDEN_FILE: GOLDEN.dump_json(golden),
            TEST_FILE: labeled_rows_to_parquet(self.test),
            **{model_file(model.family): dump(model) for model in models},
        }
        manifest = build_manifest(
            self.reservation,
            self.project,
            signature,
            self._data_source(),
            all_files,
            author,
            self._predictions_digest(),
            split_boundary(self.rows, self.project),
            (*self.rows.findings, *unused, *leakage_findings(self.training)),
        )
        return manifest, all_files

    def _of_used_columns(self) -> tuple[Signature, list[Model], list[Finding]]:
        """Return the signature and the models with the columns that no model uses marked, and a finding for each of these."""
        signature, models = self.training.signature, [candidate.model for candidate in self.candidates]
        used = set[str]().union(*(model.encoder.used_columns() for model in models))
        unused = [column.name for column in signature.inputs if column.name not in used]
        if signature.panel or not unused:
            return signature, models, []
        signature = without_use(signature, unused)
        models = [
            replace(model, signature=signature, encoder=replace(model.encoder, columns=signature.inputs)) for model in models
        ]
        return signature, models, [Finding(name, "not used: no selected feature needs it") for name in unused]

    def _data_source(self) -> DataFacts:
        """Where the training rows came from."""
        facts: dict[str, str | int | float] = {
            "url": str(self.project.data),
            "sha256": self.reservation.snapshot,
            "rows": len(self.rows.inputs),
        }
        return facts | kind_of(self.project).data_facts(self.rows)

    def _predictions_digest(self) -> str:
        """The sha256 of all models' scores on the test rows, in order of family."""
        models = sorted((candidate.model for candidate in self.candidates), key=lambda model: model.family)
        return digest(b"".join(model.family.encode() + model.scores(self.test.inputs).tobytes() for model in models))


def without_use(signature: Signature, unused: Collection[str]) -> Signature:
    """Return the signature with these inputs marked as unused, and therefore optional."""
    inputs = tuple(replace(c, used=False, nullable=True) if c.name in unused else c for c in signature.inputs)
    return replace(signature, inputs=inputs)


def build_manifest(
    reservation: VersionReservation,
    project: Project,
    signature: Signature,
    data: DataFacts,
    files: Mapping[str, bytes],
    author: str,
    predictions: str,
    split: SplitBoundary | None = None,
    findings: tuple[Finding, ...] = (),
) -> Manifest:
    """Return a manifest that binds the files to the data, options and code that produced them."""
    leaderboard = io.BytesIO(files[LEADERBOARD_FILE])
    board = pd.read_csv(leaderboard, dtype={"model": str}, keep_default_na=False, na_values=[""])  # a model may be named NA
    ranks = [{key: None if value != value else value for key, value in row.items()} for row in board.to_dict("records")]
    return Manifest(
        project=project.name,
        version=reservation.version,
        created=reservation.created,
        run=reservation.run,
        parent=reservation.parent,
        champion=str(ranks[0]["model"]),
        files=file_digests(files),
        signature=signature,
        leaderboard=ranks,
        data=dict(data),
        findings=findings,
        split=split,
        configuration=project.model_dump(mode="json"),
        git=provenance.git_revision(),
        libraries=provenance.libraries(),
        lock_sha256=provenance.lock_digest(),
        author=author,
        predictions_sha256=predictions,
    )

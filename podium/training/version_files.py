"""Candidates to the files and the manifest of a version."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

import pandas as pd

from podium.models.golden_rows import GOLDEN, record_golden
from podium.models.serialization import dump
from podium.project import Project
from podium.registry import provenance
from podium.registry.versions import (
    GOLDEN_FILE,
    LEADERBOARD_FILE,
    TEST_FILE,
    UNTIL,
    VERSION,
    Manifest,
    SplitBoundary,
    file_digests,
    model_file,
)
from podium.schema.columns import Signature
from podium.storage.object_store import digest
from podium.tables.labeled_rows import LabeledRows, UnreadableRows, labeled_rows_to_parquet
from podium.training.candidates import Candidate
from podium.training.daily_files import day_name


@dataclass(frozen=True, slots=True)
class VersionReservation:
    """The name of a version before it is published: its time, its run, and the champion that it follows."""

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
        """Raises Unreadable."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            raise UnreadableRows("the claim of this run cannot be read: delete its claim.json, and run again") from None

    def checked(self, run: str, snapshot: str) -> VersionReservation:
        """Itself, if it is the claim of this run. Raises Unreadable."""
        day, _, end = str(self.version).partition("-")
        made = (self.run, self.snapshot, end) == (run, snapshot, run[:8]) and re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", day)
        if not made or not (self.parent is None or re.fullmatch(VERSION, str(self.parent))):
            raise UnreadableRows("the claim of this run names another: delete its claim.json, and run again")
        return self


def data_source(project: Project, claim: VersionReservation, rows: LabeledRows) -> dict[str, str | int | float]:
    """Where the rows of a training came from, and of a panel the last day among them."""
    facts: dict[str, str | int | float] = {"url": str(project.data), "sha256": claim.snapshot, "rows": len(rows.inputs)}
    if rows.signature.panel and rows.order is not None:
        facts[UNTIL] = day_name(rows.order.max(), rows.signature.panel)
    return facts


def candidate_files(
    candidates: list[Candidate], training: LabeledRows, test: LabeledRows, project: Project
) -> dict[str, bytes]:
    """Every model pickled, the golden rows that prove them, and the test rows on which a later version is compared."""
    models = [candidate.model for candidate in candidates]
    golden = record_golden(models, training.inputs, project.seed)
    proofs = {GOLDEN_FILE: GOLDEN.dump_json(golden), TEST_FILE: labeled_rows_to_parquet(test)}
    return {model_file(model.family): dump(model) for model in models} | proofs


def predictions_digest(candidates: list[Candidate], test: LabeledRows) -> str:
    """The sha256 of every model's scores on the test rows, by family."""
    order = sorted((candidate.model for candidate in candidates), key=lambda model: model.family)
    return digest(b"".join(model.family.encode() + model.scores(test.inputs).tobytes() for model in order))


def build_manifest(
    claim: VersionReservation,
    project: Project,
    signature: Signature,
    data: Mapping[str, str | int | float],
    files: Mapping[str, bytes],
    author: str,
    predictions: str,
    split: SplitBoundary | None = None,
) -> Manifest:
    """Bind the files to everything that made them."""
    board = pd.read_csv(io.BytesIO(files[LEADERBOARD_FILE]))
    ranks = [{key: None if value != value else value for key, value in row.items()} for row in board.to_dict("records")]
    return Manifest(
        project=project.name,
        version=claim.version,
        created=claim.created,
        run=claim.run,
        parent=claim.parent,
        champion=str(ranks[0]["model"]),
        files=file_digests(files),
        signature=signature,
        leaderboard=ranks,
        data=dict(data),
        split=split,
        configuration=project.model_dump(mode="json"),
        git=provenance.git_revision(),
        libraries=provenance.libraries(),
        lock_sha256=provenance.lock_digest(),
        author=author,
        predictions_sha256=predictions,
    )

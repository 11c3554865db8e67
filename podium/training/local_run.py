"""The whole of learning in one process: what the task graph does, for benchmarks, tests and notebooks."""

from __future__ import annotations

import pyarrow as pa

from podium.project import Project
from podium.registry.versions import LEADERBOARD_FILE, Manifest
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate, fit_features, train, with_selected_features
from podium.training.families import select_families
from podium.training.preparation import prepare
from podium.training.ranking import rank
from podium.training.splits import held_out_rows, split_boundary, training_rows
from podium.training.version_files import VersionReservation, build_manifest, candidate_files, data_source, predictions_digest


def train_candidates(rows: LabeledRows, project: Project) -> list[Candidate]:
    """Every family trained on the training rows of a clean table."""
    training = training_rows(rows, project)
    encoder = with_selected_features(fit_features(training, project), training, project)
    return [
        train(family, training, encoder, project) for family in select_families(project.families, project.panel is not None)
    ]


def train_locally(
    table: pa.Table, project: Project, claim: VersionReservation, author: str
) -> tuple[Manifest, dict[str, bytes]]:
    """A raw table to a manifest and its files, ready for `podium.registry.versions.publish`; without a report."""
    rows = prepare(table, project)
    found = train_candidates(rows, project)
    training, test = training_rows(rows, project), held_out_rows(rows, project)
    board = rank(found, training, test, project).to_csv(index=False).encode()
    files = {LEADERBOARD_FILE: board, **candidate_files(found, training, test, project)}
    return build_manifest(
        claim,
        project,
        training.signature,
        data_source(project, claim, rows),
        files,
        author,
        predictions_digest(found, test),
        split_boundary(rows, project),
    ), files

"""Train in one process, without the task graph: for benchmarks, tests and notebooks."""

from __future__ import annotations

import pandas as pd

from podium.project import Project
from podium.registry.versions import LEADERBOARD_FILE, Manifest
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate, out_of_fold_scores, train, with_selected_features
from podium.training.ensemble import ensemble_of
from podium.training.families import select_families
from podium.training.leaderboard import rank
from podium.training.project_kinds import kind_of
from podium.training.reading import read_training_table
from podium.training.splits import evaluation_rows, training_rows
from podium.training.version_files import TrainedRun, VersionReservation


def train_candidates(rows: LabeledRows, project: Project) -> list[Candidate]:
    """Train every family on the training rows of a prepared table."""
    training = training_rows(rows, project)
    encoder = with_selected_features(kind_of(project).fit_encoder(training), training, project)
    candidates = [train(family, training, encoder, project) for family in select_families(project)]
    ensemble = ensemble_of(candidates, training, project)
    return [*candidates, ensemble] if ensemble else candidates


def leaderboard(rows: LabeledRows, candidates: list[Candidate], project: Project) -> pd.DataFrame:
    """Rank the candidates of a prepared table."""
    evaluation = evaluation_rows(rows, project, out_of_fold_scores(candidates))
    return rank(candidates, training_rows(rows, project), evaluation, project)


def train_locally(
    data: bytes, project: Project, reservation: VersionReservation, author: str
) -> tuple[Manifest, dict[str, bytes]]:
    """Train on a CSV or Parquet file; return the manifest and the files to publish, without a data report."""
    rows = kind_of(project).prepare(read_training_table(data, project, ""))
    run = TrainedRun(project, reservation, rows, train_candidates(rows, project))
    board = leaderboard(rows, run.candidates, project)
    return run.version_files({LEADERBOARD_FILE: board.to_csv(index=False).encode()}, author)

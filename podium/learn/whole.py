"""The whole of learning in one process: what the task graph does, for benchmarks, tests and notebooks."""

from __future__ import annotations

import pyarrow as pa

from podium.learn.clean import Clean, clean
from podium.learn.families import families_of
from podium.learn.publish import Claim, candidate_files, manifest_of, predictions_digest, source
from podium.learn.rank import rank
from podium.learn.split import held_out_rows, split_of, training_rows
from podium.learn.train import Candidate, features, selected, train
from podium.project import Project
from podium.store.versions import LEADERBOARD_FILE, Manifest


def candidates(rows: Clean, project: Project) -> list[Candidate]:
    """Every family trained on the training rows of a clean table."""
    training = training_rows(rows, project)
    encoder = selected(features(training, project), training, project)
    return [train(family, training, encoder, project) for family in families_of(project.families, project.kind)]


def learn(table: pa.Table, project: Project, claim: Claim, author: str) -> tuple[Manifest, dict[str, bytes]]:
    """A raw table to a manifest and its files, ready for `podium.store.versions.publish`; without a report."""
    rows = clean(table, project)
    found = candidates(rows, project)
    training, test = training_rows(rows, project), held_out_rows(rows, project)
    board = rank(found, training, test, project).to_csv(index=False).encode()
    files = {LEADERBOARD_FILE: board, **candidate_files(found, training, test, project)}
    return manifest_of(
        claim,
        project,
        training.signature,
        source(project, claim, rows),
        files,
        author,
        predictions_digest(found, test),
        split_of(rows, project),
    ), files

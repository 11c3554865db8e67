"""Candidates beside the champion that they would follow, on the same test rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from podium.learn.clean import Clean
from podium.learn.metrics import interval, metric_name, metrics_of, resampled, score
from podium.learn.train import Candidate
from podium.model.model import Model
from podium.project import Project


def compare(candidates: list[Candidate], champion: Model | None, test: Clean, project: Project) -> pd.DataFrame:
    """One row a model, the best on these rows first: rank, model, serves, eval_metric, score_test, ci_low, ci_high, rows.

    Only rows that the champion can answer count, for all of them: it may not know every entity of a panel.
    """
    name = metric_name(test.signature.target, project.metric)
    metric = metrics_of(test.signature.target)[name]
    scores = {candidate.model.family: candidate.model.scores(test.inputs) for candidate in candidates}
    serves = champion is not None and _fits(champion, test)
    if champion is not None and serves:
        scores[f"{champion.family} (serves)"] = champion.scores(test.inputs)
    rows = np.isfinite(np.hstack(list(scores.values()))).all(axis=1)
    truth, found = test.target.to_numpy()[rows], [matrix[rows] for matrix in scores.values()]
    if not rows.any():
        return pd.DataFrame()
    spread = resampled(metric, truth, found, project.seed)
    table: list[dict[str, Any]] = [
        {
            "model": family,
            "eval_metric": name,
            "score_test": score(metric, truth, matrix),
            **dict(zip(("ci_low", "ci_high"), interval(spread[:, place]), strict=True)),
            "rows": int(rows.sum()),
        }
        for place, (family, matrix) in enumerate(zip(scores, found, strict=True))
    ]
    table.sort(key=lambda row: (-row["score_test"], row["model"]))
    return pd.DataFrame([{"rank": rank, **row} for rank, row in enumerate(table, 1)])


def _fits(champion: Model, test: Clean) -> bool:
    """Whether the champion takes these rows and predicts the same."""
    own = {column.name: column.is_text for column in test.signature.inputs}
    theirs, target = champion.signature, test.signature.target
    same = (theirs.target.task, theirs.target.classes) == (target.task, target.classes)
    return same and all(own.get(column.name) == column.is_text for column in theirs.inputs)

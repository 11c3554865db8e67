"""Candidates and versions beside the champion that they would follow, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from podium.data.problems import BadData
from podium.data.typed import Mask, typed_by_row
from podium.learn.clean import Clean
from podium.learn.metrics import interval, metric_name, metrics_of, resampled, score
from podium.learn.split import Places, not_learned
from podium.learn.train import Candidate
from podium.loading import Loaded
from podium.model.model import Model
from podium.project import Project
from podium.store.versions import Split


@dataclass(frozen=True, slots=True)
class Rival:
    """The model that serves, and how its project split the rows; None where that is not known."""

    model: Model
    project: Project | None
    split: Split | None


@dataclass(frozen=True, slots=True)
class Ground:
    """Test rows that the champion answers and has not learned from: their places, its scores, and whether that is known."""

    places: Places
    scores: np.ndarray
    known: bool


class Incomparable(ValueError):
    """There is no row on which a version and the champion could be compared; says why."""


def rival_of(champion: Loaded) -> Rival:
    manifest = champion.manifest
    try:
        project = Project.model_validate(manifest.configuration)
    except ValidationError:  # of another release
        project = None
    return Rival(champion.models[manifest.champion], project, manifest.split)


def common_ground(rival: Rival, test: Clean) -> Ground:
    """The rows as they came, read and answered in the champion's own way. Raises Incomparable."""
    theirs, target = rival.model.signature, test.signature.target
    if (theirs.target.task, theirs.target.classes) != (target.task, target.classes):
        raise Incomparable("the champion predicts something else")
    fresh, known = _fresh(rival, test)
    if not fresh.any():
        raise Incomparable("the champion has learned from all of these rows")
    places, frame = _read(rival.model, test, np.flatnonzero(fresh))
    scores = rival.model.scores(frame)
    answered = np.isfinite(scores).all(axis=1)  # a panel's champion may not know every entity
    return Ground(places[answered], scores[answered], known)


def _fresh(rival: Rival, test: Clean) -> tuple[Mask, bool]:
    """Which rows the champion has not learned from, and whether that is known."""
    unknown = np.ones(len(test.inputs), dtype=bool), False
    if rival.split is None or rival.project is None or (test.raw is None and test.order is None):
        return unknown
    try:
        return not_learned(test, rival.split, rival.project), True
    except (BadData, KeyError):  # the table has not the columns that it had
        return unknown


def _read(model: Model, test: Clean, places: Places) -> tuple[Places, pd.DataFrame]:
    columns = model.signature.inputs
    if test.raw is None:
        own = {column.name: column.is_text for column in test.signature.inputs}
        if any(own.get(column.name) != column.is_text for column in columns):
            raise Incomparable("the champion does not take these rows")
        return places, test.inputs.iloc[places]
    try:
        frame, wrong = typed_by_row(test.raw.take(places), columns, test.raw.column_names)
    except BadData as error:
        raise Incomparable(f"the champion does not take these rows: {error}") from None
    return np.delete(places, list(wrong)), frame.drop(index=list(wrong)).reset_index(drop=True)


def compare(candidates: list[Candidate], champion: Rival | None, test: Clean, project: Project) -> pd.DataFrame:
    """One row a model, the best on these rows first: rank, model, eval_metric, score_test, ci_low, ci_high, rows.

    Only rows count that the champion can answer and has not learned from, for all of them.
    """
    name = metric_name(test.signature.target, project.metric)
    metric = metrics_of(test.signature.target)[name]
    places, scores = np.arange(len(test.inputs)), dict[str, np.ndarray]()
    try:
        if champion is not None:
            ground = common_ground(champion, test)
            places, scores = ground.places, {f"{champion.model.family} (serves)": ground.scores}
    except Incomparable:
        pass
    inputs = test.inputs.iloc[places]
    scores = {candidate.model.family: candidate.model.scores(inputs) for candidate in candidates} | scores
    rows = np.isfinite(np.hstack(list(scores.values()))).all(axis=1)
    truth, found = test.target.to_numpy()[places][rows], [matrix[rows] for matrix in scores.values()]
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

"""Candidates and versions beside the champion that they would follow, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from podium.models.metrics import bootstrap, interval, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.project import Project
from podium.registry.loading import LoadedVersion
from podium.registry.versions import SplitBoundary
from podium.schema.arrays import BoolMask, IndexArray
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_by_row
from podium.tables.labeled_rows import LabeledRows
from podium.tables.split_keys import SINGLE_STRATUM, row_hash, split_keys, strata


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The model that serves, and how its project split the rows; None where that is not known."""

    model: Model
    project: Project | None
    split: SplitBoundary | None


@dataclass(frozen=True, slots=True)
class ComparableRows:
    """Test rows that the champion answers and has not learned from: their places, its scores, and whether that is known."""

    places: IndexArray
    scores: np.ndarray
    known: bool


class NotComparable(ValueError):
    """There is no row on which a version and the champion could be compared; says why."""


def incumbent_of(champion: LoadedVersion) -> Incumbent:
    manifest = champion.manifest
    try:
        project = Project.model_validate(manifest.configuration)
    except ValidationError:  # of another release
        project = None
    return Incumbent(champion.models[manifest.champion], project, manifest.split)


def comparable_rows(rival: Incumbent, test: LabeledRows) -> ComparableRows:
    """The rows as they came, read and answered in the champion's own way. Raises Incomparable."""
    theirs, target = rival.model.signature, test.signature.target
    if (theirs.target.task, theirs.target.classes) != (target.task, target.classes):
        raise NotComparable("the champion predicts something else")
    fresh, known = _unseen(rival, test)
    if not fresh.any():
        raise NotComparable("the champion has learned from all of these rows")
    places, frame = _read(rival.model, test, np.flatnonzero(fresh))
    scores = rival.model.scores(frame)
    answered = np.isfinite(scores).all(axis=1)  # a panel's champion may not know every entity
    return ComparableRows(places[answered], scores[answered], known)


def _unseen(rival: Incumbent, test: LabeledRows) -> tuple[BoolMask, bool]:
    """Which rows the champion has not learned from, and whether that is known."""
    unknown = np.ones(len(test.inputs), dtype=bool), False
    if rival.split is None or rival.project is None or (test.raw is None and test.order is None):
        return unknown
    try:
        return unseen_by(test, rival.split, rival.project), True
    except (BadData, KeyError):  # the table has not the columns that it had
        return unknown


def _read(model: Model, test: LabeledRows, places: IndexArray) -> tuple[IndexArray, pd.DataFrame]:
    columns = model.signature.inputs
    if test.raw is None:
        own = {column.name: column.is_text for column in test.signature.inputs}
        if any(own.get(column.name) != column.is_text for column in columns):
            raise NotComparable("the champion does not take these rows")
        return places, test.inputs.iloc[places]
    try:
        frame, wrong = coerce_by_row(test.raw.take(places), columns, test.raw.column_names)
    except BadData as error:
        raise NotComparable(f"the champion does not take these rows: {error}") from None
    return np.delete(places, list(wrong)), frame.drop(index=list(wrong)).reset_index(drop=True)


def compare(models: Sequence[Model], champion: Incumbent | None, test: LabeledRows, project: Project) -> pd.DataFrame:
    """One row a model, the best on these rows first: rank, model, eval_metric, score_test, ci_low, ci_high, rows.

    Only rows count that the champion can answer and has not learned from, for all of them.
    """
    name = metric_name(test.signature.target, project.metric)
    metric = metrics_for(test.signature.target)[name]
    places, scores = np.arange(len(test.inputs)), dict[str, np.ndarray]()
    try:
        if champion is not None:
            ground = comparable_rows(champion, test)
            places, scores = ground.places, {f"{champion.model.family} (serves)": ground.scores}
    except NotComparable:
        pass
    inputs = test.inputs.iloc[places]
    scores = {model.family: model.scores(inputs) for model in models} | scores
    rows = np.isfinite(np.hstack(list(scores.values()))).all(axis=1)
    truth, found = test.target.to_numpy()[places][rows], [matrix[rows] for matrix in scores.values()]
    if not rows.any():
        return pd.DataFrame()
    spread = bootstrap(metric, truth, found, project.seed)
    table: list[dict[str, Any]] = [
        {
            "model": family,
            "eval_metric": name,
            "score_test": metric_value(metric, truth, matrix),
            **dict(zip(("ci_low", "ci_high"), interval(spread[:, place]), strict=True)),
            "rows": int(rows.sum()),
        }
        for place, (family, matrix) in enumerate(zip(scores, found, strict=True))
    ]
    table.sort(key=lambda row: (-row["score_test"], row["model"]))
    return pd.DataFrame([{"rank": rank, **row} for rank, row in enumerate(table, 1)])


def unseen_by(rows: LabeledRows, split: SplitBoundary, project: Project) -> BoolMask:
    """Which of these rows a training of this project that was split so has not learned from. Raises BadData, KeyError."""
    order = rows.order if rows.raw is None else split_keys(rows.raw.select(split.columns), project)
    assert order is not None, "panels have days, and other rows come with their texts"
    by = order.to_numpy()
    if split.kind == "time":
        beyond: BoolMask = by > split.borders[SINGLE_STRATUM]
        return beyond
    border = [split.borders.get(stratum, 2**64 - 1) for stratum in strata(rows, split.kind)]
    fresh: BoolMask = row_hash(by, project.seed) < np.array(border, dtype=np.uint64)
    return fresh

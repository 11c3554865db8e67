"""The weighted mean of the families, ranked as a family of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from podium.models.metrics import metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.models.scorers import EnsembleScorer
from podium.project import Project
from podium.schema.arrays import BoolMask
from podium.tables.frames import frame_to_rows
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate, prediction_time
from podium.training.families import ENSEMBLE
from podium.training.weighting import cross_fitted_mean, greedy_weights, random_groups

log = logging.getLogger("podium.training")

MAX_MILLISECONDS, TIMED_RECORDS = 1.0, 50
"""The longest time of a record of an ensemble, unless `gates.max_latency_ms` says otherwise, and the records that are timed."""


def ensemble_of(candidates: Sequence[Candidate], data: LabeledRows, project: Project) -> Candidate | None:
    """Return the ensemble of the candidates if it has several members, is fast enough, and the project allows it."""
    if not project.ensemble:
        return None
    started = time.monotonic()
    rows = np.arange(len(data.target))
    parts = [_in_order(candidate, len(rows)) for candidate in candidates]
    covered = ~np.isnan(parts[0][:, 0])
    truth, target = data.target.to_numpy()[covered], data.signature.target
    metric = metrics_for(target)[metric_name(target, project.metric)]
    parts = [part[covered] for part in parts]

    def weights_on(chosen: BoolMask) -> list[float]:
        return greedy_weights(
            [part[chosen] for part in parts], truth[chosen], lambda known, scores: metric_value(metric, known, scores)
        )

    weights = weights_on(np.ones(len(truth), dtype=bool))
    members = [(candidate, weight) for candidate, weight in zip(candidates, weights, strict=True) if weight]
    if len(members) < 2:
        return None
    scorer = EnsembleScorer(tuple(candidate.model.scorer for candidate, _ in members), tuple(weight for _, weight in members))
    model = Model(ENSEMBLE, candidates[0].model.signature, candidates[0].model.encoder, scorer)
    limit, milliseconds = project.gates.max_latency_ms or MAX_MILLISECONDS, _milliseconds_per_record(model, data)
    if milliseconds > limit:
        log.info("%s: %.2g ms a record are more than %g ms; left out", ENSEMBLE, milliseconds, limit)
        return None
    scores = cross_fitted_mean(parts, random_groups(len(truth), project.seed), weights_on)
    params = {"weights": {candidate.model.family: round(weight, 4) for candidate, weight in members}}
    value, seconds = metric_value(metric, truth, scores), time.monotonic() - started
    return Candidate(model, params, rows[covered], scores, value, seconds, prediction_time(model, data))


def _milliseconds_per_record(model: Model, data: LabeledRows) -> float:
    """Return the median time of single records."""
    score_row, times = model.compiled(), list[float]()
    for row in frame_to_rows(data.inputs.head(TIMED_RECORDS)):
        started = time.perf_counter()
        score_row(row)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000


def _in_order(candidate: Candidate, rows: int) -> np.ndarray:
    """Return the out-of-fold scores by training row; NaN for rows without."""
    scores = np.full((rows, candidate.validation_scores.shape[1]), np.nan)
    scores[candidate.validation_rows] = candidate.validation_scores
    return scores

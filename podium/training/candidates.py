"""Train one family within its part of the budget: settings in a fixed order, each with out-of-fold predictions.

Where folds are drawn at random, the models of the folds together are the model that is served, so that every row is trained on.
Forests take the rows that a tree was not fitted on instead of folds. Out-of-fold scores are as good as on new rows: what is
chosen by scores (rounds, settings, weights) is chosen for each part of the rows by those of the other parts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from podium.formatting import format_score
from podium.models.encoder import Encoder
from podium.models.metrics import Metric, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.models.scorers import Scorer
from podium.project import Project
from podium.schema.arrays import BoolMask, FloatMatrix, FloatVector, IndexArray
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.training.families import FAMILIES, FitRows, Params, seconds_for
from podium.training.feature_selection import kept_indices, select_features
from podium.training.project_kinds import kind_of
from podium.training.splits import folds, repeated_rows
from podium.training.weighting import (
    best_weights,
    calibration,
    cross_fitted_mean,
    greedy_weights,
    link_of,
    random_groups,
    raw_scores,
)

log = logging.getLogger("podium.training")

MAX_TIMED_ROWS = 1000
MAX_REPEATED_ROWS = 0.02
"""Fraction of repeated rows above which folds, which keep equal rows together, replace out-of-bag scores."""
SETTINGS_BY_ROWS = ((100, 2), (500, 8))
"""The largest numbers of settings for tables of up to this many rows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model with its out-of-fold scores.

    `validation_rows` are indices of training rows, in order, and `validation_scores` their scores. Times are in seconds;
    `pred_time` is for all rows.
    """

    model: Model
    params: Params
    validation_rows: IndexArray
    validation_scores: FloatMatrix
    score_val: float
    fit_time: float
    pred_time: float


@dataclass(frozen=True, slots=True)
class _Trial:
    """One setting: a scorer for each fold, or one of all rows, and the out-of-fold scores."""

    params: Params
    scorers: list[Scorer]
    scores: FloatMatrix
    score_val: float
    rounds: list[int]


def with_selected_features(encoder: Encoder, data: LabeledRows, project: Project) -> Encoder:
    """Return the encoder with only the features that are selected on these rows."""
    decisions = select_features(
        encoder.transform(data.inputs),
        data.target.to_numpy(),
        encoder.names,
        data.signature.target,
        project.features.max_features,
        project.seed,
    )
    return encoder.subset(kept_indices(decisions))


def train(family: str, data: LabeledRows, encoder: Encoder, project: Project) -> Candidate:
    """Try settings of a family within its part of the budget. Raises BadData if the metric is undefined."""
    started = time.monotonic()
    _check_classes(data)
    search = _Search(family, data, encoder, project, started + seconds_for(family, project))
    trials = search.trials()
    model, params, scores = search.combined(trials) if search.is_pooled else search.refitted(trials)
    fit_time = time.monotonic() - started
    value = metric_value(search.metric, search.truth, scores)
    order = np.argsort(search.validation_rows)
    return Candidate(model, params, search.validation_rows[order], scores[order], value, fit_time, prediction_time(model, data))


def out_of_fold_scores(candidates: Sequence[Candidate]) -> dict[str, FloatMatrix]:
    """Return the out-of-fold scores by model."""
    return {candidate.model.family: candidate.validation_scores for candidate in candidates}


def prediction_time(model: Model, data: LabeledRows) -> float:
    """Return the seconds for all rows, measured on the first ones."""
    rows = data.inputs.head(MAX_TIMED_ROWS)
    model.scores(rows.head(1))  # loads the model
    started = time.monotonic()
    model.scores(rows)
    return (time.monotonic() - started) * len(data.inputs) / len(rows)


class _Search:
    """The folds of a family and the time that it has."""

    def __init__(self, family: str, data: LabeledRows, encoder: Encoder, project: Project, deadline: float) -> None:
        self.name, self.family, self.data, self.encoder = family, FAMILIES[family], data, encoder
        self.project, self.deadline, self.target = project, deadline, data.signature.target
        is_random = kind_of(project).split_kind(data) in ("random", "stratified")
        selects = project.features.max_features is not None
        repeats = is_random and repeated_rows(data) > MAX_REPEATED_ROWS
        self.is_out_of_bag = self.family.out_of_bag is not None and is_random and not selects and not repeats
        self.is_pooled = self.is_out_of_bag or (
            self.family.combine is not None and kind_of(project).split_kind(data) != "time" and not selects
        )
        self.labels = data.target.to_numpy()
        if self.is_out_of_bag:
            self.folds: list[_Fold] = []
            self.validation_rows = np.arange(len(self.labels))
            self.groups = random_groups(len(self.labels), project.seed)
        else:
            self.folds = self._folds(common=self.is_pooled)
            self.validation_rows = np.concatenate([fold.validation_rows for fold in self.folds])
            self.groups = np.repeat(np.arange(len(self.folds)), [len(fold.validation_rows) for fold in self.folds])
        self.truth = self.labels[self.validation_rows]
        self.metric: Metric = metrics_for(self.target)[metric_name(self.target, project.metric)]

    def _folds(self, common: bool) -> list[_Fold]:
        """Encode the rows of each fold: with the common encoder, or with one that is fitted on the fold."""
        matrix = self.encoder.transform(self.data.inputs) if common else None
        prepared = []
        for fit, check in folds(self.data, self.project):
            rows = self.data.rows(fit)
            _check_classes(rows)
            if matrix is None:
                encoder = with_selected_features(kind_of(self.project).fit_encoder(rows), rows, self.project)
                encoded = encoder.transform(self.data.inputs.iloc[np.concatenate([fit, check])])
                prepared.append(_Fold(check, encoded, np.arange(len(fit)), len(fit) + np.arange(len(check)), self.labels[fit]))
            else:
                prepared.append(_Fold(check, matrix, fit, check, self.labels[fit]))
        return prepared

    def trials(self) -> list[_Trial]:
        """Try settings until the time or the list is over; the first one always. Raises BadData."""
        trials: list[_Trial] = []
        longest = 0.0
        settings = self.family.settings[: self._max_settings()]
        for number, params in enumerate(settings, 1):
            started = time.monotonic()
            if trials and started + longest > self.deadline:
                break
            trial = self._out_of_bag(params) if self.is_out_of_bag else self._cross_validated(params)
            longest = max(longest, time.monotonic() - started)
            if not np.isnan(trial.score_val):
                trials.append(trial)
            self._log(trials, number, len(settings))
        if not trials:
            message = "the metric is undefined on the validation rows: some class has too few rows; add rows or use fewer folds"
            raise BadData([Problem("split", message, column=self.target.name)])
        return trials

    def _log(self, trials: list[_Trial], number: int, count: int) -> None:
        best = max((trial.score_val for trial in trials), default=None)
        name, left = metric_name(self.target, self.project.metric), max(0.0, self.deadline - time.monotonic())
        score = format_score(best, name)
        log.info("%s: setting %d of %d, best %s %s, %.0f s left", self.name, number, count, name, score, left)

    def _max_settings(self) -> int:
        if self.project.n_trials is not None:
            return self.project.n_trials
        return next((count for rows, count in SETTINGS_BY_ROWS if len(self.labels) <= rows), len(self.family.settings))

    def _cross_validated(self, params: Params) -> _Trial:
        """Fit the folds, each within its part of the remaining time; in parallel if they are combined.

        Others may catch warnings, which only one thread can do at a time.
        """
        workers = min(len(self.folds), os.cpu_count() or 1) if self.family.combine else 1
        turns = -(-len(self.folds) // workers)
        seconds = max(0.0, self.deadline - time.monotonic()) / turns

        def fit(fold: _Fold) -> Any:
            check = self.labels[fold.validation_rows]
            rows = FitRows(fold.features, fold.target, fold.validation_features, check, time.monotonic() + seconds)
            return self.family.fit(self.target, self.project.seed, params, rows)

        with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
            estimators = list(pool.map(fit, self.folds))
            scorers = self._scorers(estimators)
            scores = list(
                pool.map(lambda pair: pair[0].scores(pair[1].validation_features), zip(scorers, self.folds, strict=True))
            )
        return self._trial(params, scorers, np.vstack(scores), [int(getattr(e, "best_iteration_", 0) or 0) for e in estimators])

    def _scorers(self, estimators: list[Any]) -> list[Scorer]:
        """Convert the models of the folds; boosters have the rounds that were best in the other folds, for honest scores."""
        pairs = zip(estimators, self.folds, strict=True)
        if self.family.at_rounds is None:
            return [self.family.to_scorer(estimator, self.target, fold.matrix.shape[1]) for estimator, fold in pairs]
        best = np.array([estimator.best_iteration_ for estimator in estimators], dtype=float)
        rounds = np.maximum(1, np.round((best.sum() - best) / max(1, len(best) - 1)).astype(int))
        return [
            self.family.at_rounds(estimator, self.target, fold.matrix.shape[1], int(count))
            for (estimator, fold), count in zip(pairs, rounds, strict=True)
        ]

    def _out_of_bag(self, params: Params) -> _Trial:
        assert self.family.out_of_bag is not None
        rows = FitRows(self.encoder.transform(self.data.inputs), self.labels, deadline=self.deadline)
        estimator = self.family.fit(self.target, self.project.seed, params, rows)
        scorer = self.family.to_scorer(estimator, self.target, rows.features.shape[1])
        return self._trial(params, [scorer], self.family.out_of_bag(estimator), [])

    def _trial(self, params: Params, scorers: list[Scorer], scores: FloatMatrix, rounds: list[int]) -> _Trial:
        return _Trial(params, scorers, scores, metric_value(self.metric, self.truth, scores), rounds)

    def _fit(self, params: Params, rows: FitRows) -> Scorer:
        estimator = self.family.fit(self.target, self.project.seed, params, rows)
        return self.family.to_scorer(estimator, self.target, rows.features.shape[1])

    def combined(self, trials: list[_Trial]) -> tuple[Model, Params, FloatMatrix]:
        """Return the weighted mean of the best settings, over their folds, before the link function, calibrated."""
        combine = self.family.combine
        if combine is None:
            best, scores = self._best(trials)
            return self._model(best.scorers[0]), best.params, scores
        raw = [raw_scores(trial.scores, self.target) for trial in trials]
        link = link_of(self.target)

        def weights_on(rows: BoolMask) -> list[float]:
            parts, known = [part[rows] for part in raw], self.truth[rows]
            weights = greedy_weights(parts, known, lambda truth, sums: metric_value(self.metric, truth, link(sums)))
            total = np.sum([weight * part for weight, part in zip(weights, parts, strict=True)], axis=0)
            factor = calibration(total, known, self.target)
            return [factor * weight for weight in weights]

        weights = weights_on(np.ones(len(self.truth), dtype=bool))
        parts = [
            (scorer, weight / len(trial.scorers))
            for trial, weight in zip(trials, weights, strict=True)
            if weight
            for scorer in trial.scorers
        ]
        scores = link(cross_fitted_mean(raw, self.groups, weights_on))
        params = {"settings": [trial.params for trial, weight in zip(trials, weights, strict=True) if weight]}
        return self._model(combine(parts)), params, scores

    def refitted(self, trials: list[_Trial]) -> tuple[Model, Params, FloatMatrix]:
        """Return the best setting, fitted on all rows; boosters are as long as on average in the folds."""
        best, scores = self._best(trials)
        rows = FitRows(self.encoder.transform(self.data.inputs), self.labels, deadline=self.deadline)
        params = best.params
        if self.family.at_rounds is not None:
            params = params | {"n_estimators": max(1, round(float(np.mean(best.rounds))))}
        return self._model(self._fit(params, rows)), params, scores

    def _best(self, trials: list[_Trial]) -> tuple[_Trial, FloatMatrix]:
        """Return the best setting, and the scores of each group of rows with the setting that is best on the others."""

        def weights_on(rows: BoolMask) -> list[float]:
            return best_weights([metric_value(self.metric, self.truth[rows], trial.scores[rows]) for trial in trials])

        scores = cross_fitted_mean([trial.scores for trial in trials], self.groups, weights_on)
        return max(trials, key=lambda trial: trial.score_val), scores

    def _model(self, scorer: Scorer) -> Model:
        return Model(self.name, self.data.signature, self.encoder, scorer)


@dataclass(frozen=True, slots=True)
class _Fold:
    """Rows of a matrix for fitting and for validation; they are copied only while a model is fitted."""

    validation_rows: IndexArray
    matrix: FloatMatrix
    fit: IndexArray
    check: IndexArray
    target: FloatVector

    @property
    def features(self) -> FloatMatrix:
        return self.matrix[self.fit]

    @property
    def validation_features(self) -> FloatMatrix:
        return self.matrix[self.check]


def _check_classes(data: LabeledRows) -> None:
    """Require that every class has rows to train on. Raises BadData."""
    counts = data.target.value_counts()
    if any(counts.get(float(code), 0) == 0 for code in range(len(data.signature.target.classes))):
        message = "some classes have too few rows for this split: add rows, merge classes, or use fewer folds"
        raise BadData([Problem("too-few-rows", message, column=data.signature.target.name)])

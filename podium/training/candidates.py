"""Tune one family and fit it with the best parameters; every learned step is fitted inside the folds."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from podium.models.encoder import Encoder
from podium.models.metrics import metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.project import Project
from podium.schema.arrays import FloatMatrix, FloatVector, IndexArray
from podium.schema.columns import Target
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.training.families import FAMILIES, Params
from podium.training.feature_selection import kept_indices, select_features
from podium.training.project_kinds import kind_of
from podium.training.splits import folds


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model with its out-of-fold scores.

    `validation_rows` are indices of training rows and `validation_scores` their scores. Times are in seconds; `pred_time` is
    for all validation rows.
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
    params: Params
    scores: FloatMatrix
    score_val: float


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
    """Try `project.n_trials` parameter sets of a family by cross-validation and fit the best on all training rows.

    Raises BadData if the metric is undefined on the validation rows.
    """
    prepared = [_prepare_fold(data, fit, check, project) for fit, check in folds(data, project)]
    validation_rows = np.concatenate([fold.validation_rows for fold in prepared])
    best = _search(family, prepared, data.target.to_numpy()[validation_rows], data.signature.target, project)
    started = time.perf_counter()
    model = fit_model(family, best.params, data, encoder, project.seed)
    fit_time = time.perf_counter() - started
    started = time.perf_counter()
    model.scores(data.inputs.iloc[validation_rows])
    pred_time = time.perf_counter() - started
    return Candidate(model, best.params, validation_rows, best.scores, best.score_val, fit_time, pred_time)


def fit_model(family: str, params: Params, data: LabeledRows, encoder: Encoder, seed: int) -> Model:
    """Fit one family on all of these rows. Raises BadData if a class has no rows."""
    _check_classes(data)
    target, spec = data.signature.target, FAMILIES[family]
    estimator = spec.make_estimator(target, seed, params).fit(encoder.transform(data.inputs), data.target.to_numpy())
    return Model(family, data.signature, encoder, spec.to_scorer(estimator, target, len(encoder.features)))


@dataclass(frozen=True, slots=True)
class _Fold:
    """Encoded rows for fitting and for validation."""

    validation_rows: IndexArray
    features: FloatMatrix
    target: FloatVector
    validation_features: FloatMatrix


def _prepare_fold(data: LabeledRows, fit: IndexArray, check: IndexArray, project: Project) -> _Fold:
    rows = data.rows(fit)
    _check_classes(rows)
    encoder = with_selected_features(kind_of(project).fit_encoder(rows), rows, project)
    return _Fold(check, encoder.transform(rows.inputs), rows.target.to_numpy(), encoder.transform(data.inputs.iloc[check]))


def _search(family: str, prepared: list[_Fold], truth: FloatVector, target: Target, project: Project) -> _Trial:
    """Return the trial with the highest validation score, the earliest if tied."""
    metric = metrics_for(target)[metric_name(target, project.metric)]
    trials = []
    for params in FAMILIES[family].param_grid[: project.n_trials]:
        scores = np.vstack([_fold_scores(family, params, fold, target, project.seed) for fold in prepared])
        trials.append(_Trial(params, scores, metric_value(metric, truth, scores)))
    valid = [trial for trial in trials if not np.isnan(trial.score_val)]
    if not valid:
        message = "the metric is undefined on the validation rows: some class has too few rows; add rows or use fewer folds"
        raise BadData([Problem("split", message, column=target.name)])
    return max(valid, key=lambda trial: trial.score_val)


def _fold_scores(family: str, params: Params, fold: _Fold, target: Target, seed: int) -> FloatMatrix:
    spec = FAMILIES[family]
    estimator = spec.make_estimator(target, seed, params).fit(fold.features, fold.target)
    return spec.to_scorer(estimator, target, fold.features.shape[1]).scores(fold.validation_features)


def _check_classes(data: LabeledRows) -> None:
    """Require that every class has rows to train on. Raises BadData."""
    counts = data.target.value_counts()
    if any(counts.get(float(code), 0) == 0 for code in range(len(data.signature.target.classes))):
        message = "some classes have too few rows for this split: add rows, merge classes, or use fewer folds"
        raise BadData([Problem("too-few-rows", message, column=data.signature.target.name)])

"""One family, searched and fitted: everything that learns from rows learns inside the folds."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from podium.models.encoder import Encoder, fit_encoder
from podium.models.metrics import metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.project import Project
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData, Problem
from podium.tables.labeled_rows import LabeledRows
from podium.training.families import FAMILIES, Settings
from podium.training.feature_selection import kept_indices, select_features
from podium.training.panel import window_encoder
from podium.training.splits import folds


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model with its scores on rows that its fold had not seen.

    `validated` are the places of these rows among the training rows and `validation` their scores; times in seconds,
    `pred_time` for all validation rows.
    """

    model: Model
    settings: Settings
    validated: np.ndarray
    validation: FloatMatrix
    score_val: float
    fit_time: float
    pred_time: float


def fit_features(data: LabeledRows, project: Project) -> Encoder:
    """The encoder fitted on these rows."""
    if data.signature.panel:
        return window_encoder(data.inputs, data.signature)
    return fit_encoder(data.inputs, data.signature.inputs, project.features.max_categories)


def with_selected_features(encoder: Encoder, data: LabeledRows, project: Project) -> Encoder:
    """The encoder with the features that these rows say should stay."""
    decisions = select_features(
        encoder.transform(data.inputs),
        data.target.to_numpy(),
        encoder.names,
        data.signature.target,
        project.features.max_features,
        project.seed,
    )
    return encoder.subset(kept_indices(decisions))


def train(name: str, data: LabeledRows, encoder: Encoder, project: Project) -> Candidate:
    """Search `project.n_trials` settings of a family by cross-validation on the training rows and fit the best on them all."""
    metric = metrics_for(data.signature.target)[metric_name(data.signature.target, project.metric)]
    prepared = [_prepare_folds(data, fit, check, project) for fit, check in folds(data, project)]
    validated = np.concatenate([part.places for part in prepared])
    truth = data.target.to_numpy()[validated]
    best: tuple[float, int] | None = None
    results = []
    for number, settings in enumerate(FAMILIES[name].tried[: project.n_trials]):
        started = time.perf_counter()
        scores = np.vstack([_fold_scores(name, settings, part, data.signature, project.seed) for part in prepared])
        figure = metric_value(metric, truth, scores)
        results.append((settings, scores, figure, time.perf_counter() - started))
        if not np.isnan(figure) and (best is None or figure > best[0]):
            best = figure, number
    if best is None:
        message = "the metric has no value on the validation rows: too few rows of some class for this split"
        raise BadData([Problem("split", message, column=data.signature.target.name)])
    settings, scores, figure, _ = results[best[1]]
    started = time.perf_counter()
    model = fit_model(name, settings, data, encoder, project.seed)
    fit_time = time.perf_counter() - started
    started = time.perf_counter()
    model.scores(data.inputs.iloc[validated])
    return Candidate(model, settings, validated, scores, figure, fit_time, time.perf_counter() - started)


def fit_model(name: str, settings: Settings, data: LabeledRows, encoder: Encoder, seed: int) -> Model:
    """A family's model fitted on all of these rows."""
    _check_classes(data)
    target, family = data.signature.target, FAMILIES[name]
    estimator = family.build(target, seed, settings).fit(encoder.transform(data.inputs), data.target.to_numpy())
    return Model(name, data.signature, encoder, family.export(estimator, target, len(encoder.features)))


@dataclass(frozen=True, slots=True)
class _Fold:
    places: np.ndarray
    features: FloatMatrix
    target: np.ndarray
    unseen: FloatMatrix


def _prepare_folds(data: LabeledRows, fit: np.ndarray, check: np.ndarray, project: Project) -> _Fold:
    rows = data.rows(fit)
    _check_classes(rows)
    encoder = with_selected_features(fit_features(rows, project), rows, project)
    return _Fold(check, encoder.transform(rows.inputs), rows.target.to_numpy(), encoder.transform(data.inputs.iloc[check]))


def _fold_scores(name: str, settings: Settings, part: _Fold, signature: Signature, seed: int) -> FloatMatrix:
    family, target = FAMILIES[name], signature.target
    estimator = family.build(target, seed, settings).fit(part.features, part.target)
    return family.export(estimator, target, part.features.shape[1]).scores(part.unseen)


def _check_classes(data: LabeledRows) -> None:
    """Every class must be there to learn from; raises BadData."""
    counts = data.target.value_counts()
    if any(counts.get(float(code), 0) == 0 for code in range(len(data.signature.target.classes))):
        message = "some classes have too few rows for this split: gather more, merge them, or use fewer folds"
        raise BadData([Problem("too-few-rows", message, column=data.signature.target.name)])

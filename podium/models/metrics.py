"""Evaluation metrics and bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

RESAMPLES = 500
MIN_RESAMPLES, MAX_RESAMPLED_ROWS, MAX_ROWS = 50, 10_000_000, 200_000

INFINITY_IN_CSV = 1e300
"""Replaces an infinite error in a CSV file."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A function of true targets and scores; `sign` is -1 if lower is better."""

    function: Callable[[FloatVector, FloatMatrix], float]
    sign: int = 1


def _labels(scores: FloatMatrix) -> FloatVector:
    return scores.argmax(axis=1)


def _f1(target: FloatVector, scores: FloatMatrix) -> float:
    """F1 of the second class for two classes, or the macro average for more; 0 for a class without true positives."""
    labels = _labels(scores)
    classes = [1] if scores.shape[1] == 2 else np.union1d(target, labels)
    hits = np.array([((target == label) & (labels == label)).sum() for label in classes])
    sizes = np.array([(target == label).sum() + (labels == label).sum() for label in classes])
    return float(np.mean(2 * hits / np.maximum(sizes, 1)))


def _roc_auc(target: FloatVector, scores: FloatMatrix) -> float:
    """ROC AUC of the second class for two classes, or the one-versus-rest macro average for more."""
    labels = [1] if scores.shape[1] == 2 else np.unique(target).astype(int).tolist()
    return float(np.mean([_area(target == label, scores[:, label]) for label in labels]))


def _area(positive: np.ndarray, scores: FloatVector) -> float:
    """Mann-Whitney U divided by the number of pairs; ties count half. NaN if one class is absent."""
    hits = int(positive.sum())
    if not 0 < hits < len(positive):
        return float("nan")
    above = _ranks(scores)[positive].sum() - hits * (hits + 1) / 2
    return float(above / (hits * (len(positive) - hits)))


def _ranks(numbers: FloatVector) -> FloatVector:
    """Ranks from 1; tied numbers get their mean rank."""
    _, index, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: FloatVector = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return ranks


def _balanced_accuracy(target: FloatVector, scores: FloatMatrix) -> float:
    hit = _labels(scores) == target
    return float(np.mean([hit[target == label].mean() for label in np.unique(target)]))


def _log_loss(target: FloatVector, scores: FloatMatrix) -> float:
    probability = scores[np.arange(len(target)), target.astype(int)] / scores.sum(axis=1)
    return float(-np.log(np.clip(probability, 1e-15, 1)).mean())


def _brier(target: FloatVector, scores: FloatMatrix) -> float:
    """Mean squared error of the probabilities; for two classes, of the second class only."""
    truth = np.eye(scores.shape[1])[target.astype(int)]
    return float(((scores - truth) ** 2).sum(axis=1).mean() / (2 if scores.shape[1] == 2 else 1))


def _mape(target: FloatVector, scores: FloatMatrix) -> float:
    size = np.maximum(np.abs(target), np.finfo(float).eps)
    return float((np.abs(scores[:, 0] - target) / size).mean())


def _r2(target: FloatVector, scores: FloatMatrix) -> float:
    """1 - residual / total sum of squares; for a constant target, 1 if all predictions are exact, else 0."""
    residual, total = ((target - scores[:, 0]) ** 2).sum(), ((target - target.mean()) ** 2).sum()
    if len(target) < 2:
        return float("nan")
    return float(1 - residual / total) if total else float(residual == 0)


CLASSIFICATION: dict[str, Metric] = {
    "accuracy": Metric(lambda target, scores: float((_labels(scores) == target).mean())),
    "balanced_accuracy": Metric(_balanced_accuracy),
    "f1": Metric(_f1),
    "roc_auc": Metric(_roc_auc),
    "log_loss": Metric(_log_loss, -1),
    "brier": Metric(_brier, -1),
}
REGRESSION: dict[str, Metric] = {
    "rmse": Metric(lambda target, scores: float(np.sqrt(((scores[:, 0] - target) ** 2).mean())), -1),
    "mae": Metric(lambda target, scores: float(np.abs(scores[:, 0] - target).mean()), -1),
    "r2": Metric(_r2),
    "mape": Metric(_mape, -1),
}
DEFAULT = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse", "forecast": "mae"}


class UnknownMetric(Exception):
    """The project names a metric that is not available for its task."""


def metrics_for(target: Target) -> dict[str, Metric]:
    if target.task == "forecast":  # changes are often 0, where a percentage error is meaningless
        return {name: metric for name, metric in REGRESSION.items() if name != "mape"}
    return CLASSIFICATION if target.classes else REGRESSION


def metric_name(target: Target, configured: str | None) -> str:
    """Return the configured ranking metric, or the task's default. Raises UnknownMetric."""
    name = configured or DEFAULT[target.task]
    if name not in metrics_for(target):
        raise UnknownMetric(f"unknown metric {name!r}. For {target.task} choose one of: {', '.join(metrics_for(target))}")
    return name


def metric_value(metric: Metric, target: FloatVector, scores: FloatMatrix) -> float:
    """Return the metric, negated if lower is better."""
    return metric.sign * metric.function(target, scores)


def bootstrap(metric: Metric, target: FloatVector, scores_by_model: list[FloatMatrix], seed: int) -> FloatMatrix:
    """Return a (resamples, models) array of metric values. All models use the same resampled rows (paired bootstrap).

    Of more than MAX_ROWS rows, a random part is resampled, so that intervals are wider than they need to be. Resamples where
    the metric is undefined are dropped.
    """
    random = np.random.default_rng(seed)
    if len(target) > MAX_ROWS:
        part = random.choice(len(target), MAX_ROWS, replace=False)
        target, scores_by_model = target[part], [scores[part] for scores in scores_by_model]
    count = max(MIN_RESAMPLES, min(RESAMPLES, MAX_RESAMPLED_ROWS // len(target)))
    samples = (random.integers(0, len(target), len(target)) for _ in range(count))
    values = np.array([[metric_value(metric, target[rows], scores[rows]) for scores in scores_by_model] for rows in samples])
    return values[~np.isnan(values).any(axis=1)]


def interval(values: FloatVector, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval of this probability, or NaN if there are no values."""
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

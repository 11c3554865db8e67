"""How good scores are: one dict of metrics a task, and intervals by resampling rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

RESAMPLES = 500


INFINITY_IN_CSV = 1e300
"""Stands for an infinite error in a CSV."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure from true targets and scores; `sign` is -1 where less is better."""

    figure: Callable[[FloatVector, FloatMatrix], float]
    sign: int = 1


def _labels(scores: FloatMatrix) -> FloatVector:
    return scores.argmax(axis=1)


def _f1(target: FloatVector, scores: FloatMatrix) -> float:
    """F1 of the second class if there are two classes, else the unweighted mean over the classes; 0 without a hit."""
    labels = _labels(scores)
    classes = [1] if scores.shape[1] == 2 else np.union1d(target, labels)
    hits = np.array([((target == label) & (labels == label)).sum() for label in classes])
    sizes = np.array([(target == label).sum() + (labels == label).sum() for label in classes])
    return float(np.mean(2 * hits / np.maximum(sizes, 1)))


def _roc_auc(target: FloatVector, scores: FloatMatrix) -> float:
    """Of the second class, or the mean of each class against the others."""
    labels = [1] if scores.shape[1] == 2 else np.unique(target).astype(int).tolist()
    return float(np.mean([_area(target == label, scores[:, label]) for label in labels]))


def _area(positive: np.ndarray, scores: FloatVector) -> float:
    """Mann and Whitney's U over the number of pairs; ties count half."""
    hits = int(positive.sum())
    if not 0 < hits < len(positive):
        return float("nan")
    above = _ranks(scores)[positive].sum() - hits * (hits + 1) / 2
    return float(above / (hits * (len(positive) - hits)))


def _ranks(numbers: FloatVector) -> FloatVector:
    """Ranks from 1; equal numbers share the mean of their ranks."""
    _, index, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: FloatVector = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return ranks


def _balanced(target: FloatVector, scores: FloatMatrix) -> float:
    hit = _labels(scores) == target
    return float(np.mean([hit[target == label].mean() for label in np.unique(target)]))


def _log_loss(target: FloatVector, scores: FloatMatrix) -> float:
    chosen = scores[np.arange(len(target)), target.astype(int)] / scores.sum(axis=1)
    return float(-np.log(np.clip(chosen, 1e-15, 1)).mean())


def _brier(target: FloatVector, scores: FloatMatrix) -> float:
    """Mean squared error of the probabilities; of the second class alone when there are two."""
    truth = np.eye(scores.shape[1])[target.astype(int)]
    return float(((scores - truth) ** 2).sum(axis=1).mean() / (2 if scores.shape[1] == 2 else 1))


def _mape(target: FloatVector, scores: FloatMatrix) -> float:
    size = np.maximum(np.abs(target), np.finfo(float).eps)
    return float((np.abs(scores[:, 0] - target) / size).mean())


def _r2(target: FloatVector, scores: FloatMatrix) -> float:
    """1 - residual / total sum of squares; without any variance of the target 1 for a perfect prediction, else 0."""
    residual, total = ((target - scores[:, 0]) ** 2).sum(), ((target - target.mean()) ** 2).sum()
    if len(target) < 2:
        return float("nan")
    return float(1 - residual / total) if total else float(residual == 0)


CLASSIFICATION: dict[str, Metric] = {
    "accuracy": Metric(lambda target, scores: float((_labels(scores) == target).mean())),
    "balanced_accuracy": Metric(_balanced),
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
    """The project asks for a metric that its task does not have."""


def metrics_for(target: Target) -> dict[str, Metric]:
    if target.task == "forecast":  # of changes, which are often 0, so that no share of them is meaningful
        return {name: metric for name, metric in REGRESSION.items() if name != "mape"}
    return CLASSIFICATION if target.classes else REGRESSION


def metric_name(target: Target, asked: str | None) -> str:
    """The metric that ranks; raises UnknownMetric."""
    name = asked or DEFAULT[target.task]
    if name not in metrics_for(target):
        raise UnknownMetric(f"metric {name!r} is none of {', '.join(metrics_for(target))}, which {target.task} has")
    return name


def metric_value(metric: Metric, target: FloatVector, scores: FloatMatrix) -> float:
    """Higher is better, whatever the metric."""
    return metric.sign * metric.figure(target, scores)


def bootstrap(metric: Metric, target: FloatVector, several: list[FloatMatrix], seed: int) -> FloatMatrix:
    """(resamples, models) scores on the same resampled rows for every model: Efron's bootstrap, paired."""
    random = np.random.default_rng(seed)
    count = max(50, min(RESAMPLES, 20_000_000 // len(target)))
    draws = (random.integers(0, len(target), len(target)) for _ in range(count))
    figures = [[metric_value(metric, target[rows], scores[rows]) for scores in several] for rows in draws]
    kept = np.array(figures)
    return kept[~np.isnan(kept).any(axis=1)]


def interval(figures: FloatVector) -> tuple[float, float]:
    """The middle 95 %."""
    if len(figures) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)

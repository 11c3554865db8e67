"""How good scores are: one dict of metrics a task, and intervals by resampling rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk

from podium.data.columns import Target
from podium.model.encode import Matrix, Vector

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure from true targets and scores; `sign` is -1 where less is better."""

    figure: Callable[[Vector, Matrix], float]
    sign: int = 1


def _labels(scores: Matrix) -> Vector:
    return scores.argmax(axis=1)


def _f1(target: Vector, scores: Matrix) -> float:
    average = "binary" if scores.shape[1] == 2 else "macro"
    return float(sk.f1_score(target, _labels(scores), average=average, zero_division=0))


def _roc_auc(target: Vector, scores: Matrix) -> float:
    """Of the second class, or the mean of each class against the others."""
    labels = [1] if scores.shape[1] == 2 else np.unique(target).astype(int).tolist()
    return float(np.mean([_area(target == label, scores[:, label]) for label in labels]))


def _area(positive: np.ndarray, scores: Vector) -> float:
    """Mann and Whitney's U over the number of pairs; ties count half."""
    hits = int(positive.sum())
    if not 0 < hits < len(positive):
        return float("nan")
    above = rankdata(scores)[positive].sum() - hits * (hits + 1) / 2
    return float(above / (hits * (len(positive) - hits)))


def _balanced(target: Vector, scores: Matrix) -> float:
    hit = _labels(scores) == target
    return float(np.mean([hit[target == label].mean() for label in np.unique(target)]))


def _log_loss(target: Vector, scores: Matrix) -> float:
    chosen = scores[np.arange(len(target)), target.astype(int)] / scores.sum(axis=1)
    return float(-np.log(np.clip(chosen, 1e-15, 1)).mean())


def _brier(target: Vector, scores: Matrix) -> float:
    """Mean squared error of the probabilities; of the second class alone when there are two."""
    truth = np.eye(scores.shape[1])[target.astype(int)]
    return float(((scores - truth) ** 2).sum(axis=1).mean() / (2 if scores.shape[1] == 2 else 1))


def _mape(target: Vector, scores: Matrix) -> float:
    return float(sk.mean_absolute_percentage_error(target, scores[:, 0]))


CLASSES: dict[str, Metric] = {
    "accuracy": Metric(lambda target, scores: float((_labels(scores) == target).mean())),
    "balanced_accuracy": Metric(_balanced),
    "f1": Metric(_f1),
    "roc_auc": Metric(_roc_auc),
    "log_loss": Metric(_log_loss, -1),
    "brier": Metric(_brier, -1),
}
NUMBERS: dict[str, Metric] = {
    "rmse": Metric(lambda target, scores: float(np.sqrt(((scores[:, 0] - target) ** 2).mean())), -1),
    "mae": Metric(lambda target, scores: float(np.abs(scores[:, 0] - target).mean()), -1),
    "r2": Metric(lambda target, scores: float(sk.r2_score(target, scores[:, 0]))),
    "mape": Metric(_mape, -1),
}
DEFAULT = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse", "forecast": "mae"}


class UnknownMetric(Exception):
    """The project asks for a metric that its task does not have."""


def metrics_of(target: Target) -> dict[str, Metric]:
    if target.task == "forecast":  # of changes, which are often 0, so that no share of them is meaningful
        return {name: metric for name, metric in NUMBERS.items() if name != "mape"}
    return CLASSES if target.classes else NUMBERS


def metric_name(target: Target, asked: str | None) -> str:
    """The metric that ranks; raises UnknownMetric."""
    name = asked or DEFAULT[target.task]
    if name not in metrics_of(target):
        raise UnknownMetric(f"metric {name!r} is none of {', '.join(metrics_of(target))}, which {target.task} has")
    return name


def score(metric: Metric, target: Vector, scores: Matrix) -> float:
    """Higher is better, whatever the metric."""
    return metric.sign * metric.figure(target, scores)


def resampled(metric: Metric, target: Vector, several: list[Matrix], seed: int) -> Matrix:
    """(resamples, models) scores on the same resampled rows for every model: Efron's bootstrap, paired."""
    random = np.random.default_rng(seed)
    count = max(50, min(RESAMPLES, 20_000_000 // len(target)))
    draws = (random.integers(0, len(target), len(target)) for _ in range(count))
    figures = [[score(metric, target[rows], scores[rows]) for scores in several] for rows in draws]
    kept = np.array(figures)
    return kept[~np.isnan(kept).any(axis=1)]


def interval(figures: Vector) -> tuple[float, float]:
    """The middle 95 %."""
    if len(figures) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)

"""The leaderboard: candidates ranked by their out-of-fold scores, with test scores and statistical ties."""

from __future__ import annotations

import numpy as np
import pandas as pd

from podium.models.metrics import INFINITY_IN_CSV, bootstrap, interval, metric_name, metric_value, metrics_for
from podium.project import Project
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate
from podium.training.families import ENSEMBLE, FAMILIES


def rank(candidates: list[Candidate], training: LabeledRows, test: LabeledRows, project: Project) -> pd.DataFrame:
    """Return one row per model, best first.

    `test` are the test rows, or all rows with out-of-fold scores. Columns: rank, model, eval_metric, score_val (out of fold)
    and score_test (higher is better); every metric of the task on `test` under its own name and sign; fit_time and
    pred_time_val in seconds; ci_low and ci_high, the 95% interval of score_test; tied_with_best, true if the best is not
    significantly better on the validation rows; better_than_constant, true if it is significantly better there than the same
    prediction for every row. For numeric targets, also interval_90, half the width of the 90% prediction interval.
    """
    name = metric_name(test.signature.target, project.metric)
    metrics = metrics_for(test.signature.target)
    simplest_first = [*FAMILIES, ENSEMBLE]  # decides between models with the same score
    ranked = sorted(candidates, key=lambda each: (-each.score_val, simplest_first.index(each.model.family)))
    truth = test.target.to_numpy()
    test_scores = [candidate.model.out_of_sample_scores(test) for candidate in ranked]
    validated = _resampled_with_constant(ranked, training, project)
    resampled = validated if test.scores else bootstrap(metrics[name], truth, test_scores, project.seed)
    ties = _ties(validated[:, :-1])
    rows = []
    for index, (candidate, scores) in enumerate(zip(ranked, test_scores, strict=True)):
        low, high = interval(resampled[:, index])
        rows.append(
            {
                "rank": index + 1,
                "model": candidate.model.family,
                "eval_metric": name,
                "score_val": candidate.score_val,
                "score_test": metric_value(metrics[name], truth, scores),
                **{key: metric.function(truth, scores) for key, metric in metrics.items()},
                "fit_time": round(candidate.fit_time, 4),
                "pred_time_val": round(candidate.pred_time, 4),
                "ci_low": low,
                "ci_high": high,
                "tied_with_best": ties[index],
                "better_than_constant": _leads(validated[:, index], validated[:, -1], 0.99),
                **({} if test.signature.target.classes else {"interval_90": _half_width(candidate, training)}),
            }
        )
    return pd.DataFrame(rows).replace([np.inf, -np.inf], [INFINITY_IN_CSV, -INFINITY_IN_CSV])


def _half_width(candidate: Candidate, training: LabeledRows) -> float:
    """Half the width of a 90% prediction interval: a quantile of the validation residuals (cross-conformal, Vovk 2015)."""
    truth = training.target.to_numpy()[candidate.validation_rows]
    residuals = np.sort(np.abs(truth - candidate.validation_scores[:, 0]))
    index = int(np.ceil(0.9 * (len(residuals) + 1))) - 1
    return float(residuals[min(index, len(residuals) - 1)])


def _resampled_with_constant(ranked: list[Candidate], training: LabeledRows, project: Project) -> FloatMatrix:
    """Return the metric of each model on resampled validation rows, and last that of the same prediction for every row.

    That is the mean, or the share of each class.
    """
    target = training.signature.target
    metric = metrics_for(target)[metric_name(target, project.metric)]
    truth = training.target.to_numpy()[ranked[0].validation_rows]
    shares = [np.mean(truth == code) for code in range(len(target.classes))] or [float(np.mean(truth))]
    constant = np.tile(shares, (len(truth), 1))
    return bootstrap(metric, truth, [*(candidate.validation_scores for candidate in ranked), constant], project.seed)


def _leads(values: FloatVector, others: FloatVector, level: float) -> bool:
    """Return whether the interval of the lead over another model is above zero (paired bootstrap)."""
    return bool(interval(values - others, level)[0] > 0)


def _ties(resampled: FloatMatrix) -> list[bool]:
    """Return, for each model, whether the best one does not lead significantly.

    All intervals together hold with 95% (Bonferroni), as the best is compared with several models.
    """
    level = 1 - 0.05 / max(1, resampled.shape[1] - 1)
    return [not _leads(resampled[:, 0], values, level) for values in resampled.T]

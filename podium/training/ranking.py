"""Candidates to a leaderboard: ranked by validation, reported on the test rows, ties named as ties."""

from __future__ import annotations

import numpy as np
import pandas as pd

from podium.models.metrics import INFINITY_IN_CSV, bootstrap, interval, metric_name, metric_value, metrics_for
from podium.project import Project
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate


def rank(candidates: list[Candidate], training: LabeledRows, test: LabeledRows, project: Project) -> pd.DataFrame:
    """One row a model, the best first.

    Columns: rank, model, eval_metric, score_val and score_test (higher is better), every metric of the task on the test
    rows under its own name and sign, fit_time and pred_time_val in seconds, the 95 % interval of score_test, and
    tied_with_best: on the validation rows the best is not better than this one beyond chance; of a regression also
    interval_90, half the width of the interval that holds 90 % of the targets.
    """
    name = metric_name(test.signature.target, project.metric)
    metrics = metrics_for(test.signature.target)
    order = sorted(candidates, key=lambda candidate: (-candidate.score_val, candidate.model.family))
    truth = test.target.to_numpy()
    on_test = [candidate.model.scores(test.inputs) for candidate in order]
    spread = bootstrap(metrics[name], truth, on_test, project.seed)
    ties = _ties(order, training, project)
    rows = []
    for place, (candidate, scores) in enumerate(zip(order, on_test, strict=True)):
        low, high = interval(spread[:, place])
        rows.append(
            {
                "rank": place + 1,
                "model": candidate.model.family,
                "eval_metric": name,
                "score_val": candidate.score_val,
                "score_test": metric_value(metrics[name], truth, scores),
                **{key: metric.function(truth, scores) for key, metric in metrics.items()},
                "fit_time": round(candidate.fit_time, 4),
                "pred_time_val": round(candidate.pred_time, 4),
                "ci_low": low,
                "ci_high": high,
                "tied_with_best": ties[place],
                **({} if test.signature.target.classes else {"interval_90": _half_width(candidate, training)}),
            }
        )
    return pd.DataFrame(rows).replace([np.inf, -np.inf], [INFINITY_IN_CSV, -INFINITY_IN_CSV])


def _half_width(candidate: Candidate, training: LabeledRows) -> float:
    """Half the width of a 90 % prediction interval: the quantile of the validation residuals (cross-conformal, Vovk 2015)."""
    residuals = np.sort(np.abs(training.target.to_numpy()[candidate.validated] - candidate.validation[:, 0]))
    place = int(np.ceil(0.9 * (len(residuals) + 1))) - 1
    return float(residuals[min(place, len(residuals) - 1)])


def _ties(order: list[Candidate], training: LabeledRows, project: Project) -> list[bool]:
    """Whether the best's lead over each is within the 95 % interval of its paired differences."""
    metric = metrics_for(training.signature.target)[metric_name(training.signature.target, project.metric)]
    truth = training.target.to_numpy()[order[0].validated]
    figures = bootstrap(metric, truth, [candidate.validation for candidate in order], project.seed)
    return [interval(figures[:, 0] - figures[:, place])[0] <= 0 for place in range(len(order))]

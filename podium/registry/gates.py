"""Promotion gates: the conditions that a version must meet before it serves."""

from __future__ import annotations

import time

import numpy as np

from podium.models.golden_rows import Golden
from podium.models.leakage import NEARLY_ALL, NEARLY_EXACT, leaking_inputs
from podium.models.metrics import INFINITY_IN_CSV, Metric, bootstrap, interval, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.project import PromotionRules
from podium.registry.audit_entry import GateResult
from podium.registry.comparison import Incumbent, NotComparable, comparable_rows, incumbent_of
from podium.registry.compatibility import incompatibilities
from podium.registry.loading import LoadedVersion
from podium.registry.versions import UNTIL, Fetch
from podium.schema.reading import setting_key
from podium.tables.labeled_rows import LabeledRows

TIMED_CALLS = 200
ROUNDING = 1e-6
"""Tolerance for a reported score, because processors round differently."""


def evaluate_gates(
    loaded: LoadedVersion,
    golden: Golden,
    champion: LoadedVersion | None,
    test: LabeledRows,
    rules: PromotionRules,
    fetch: Fetch,
) -> list[GateResult]:
    """Return the result of every gate in the promoter's rules.

    `golden` and `test` are the version's own rows; all figures are computed again, from the out-of-fold scores of rows that
    the models were trained on. Loading has already verified the files, the signature and the golden rows. `fetch` reads the
    rows of the champion. Raises UnknownMetric.
    """
    gates = rules.gates
    if error := _test_row_error(loaded, test):
        return [GateResult(name="test-rows", passed=False, detail=error)]
    results = [
        GateResult(name="golden-rows", passed=True, detail=f"maximum difference {loaded.largest_difference:.3g}"),
        _no_missing_predictions(loaded, test),
        _size(loaded, gates.max_bytes),
        _reported_scores(loaded, test),
    ]
    if gates.baseline:
        results.append(_baseline(loaded))
    if gates.leakage:
        results.append(_leakage(loaded, test))
    if gates.min_score is not None:
        results.append(_min_score(loaded, test, rules.metric, gates.min_score))
    if gates.max_latency_ms is not None:
        results.append(_latency(loaded, golden, gates.max_latency_ms))
    if champion:
        results += _no_older_data(loaded, champion)
        if gates.compatible:
            results.append(_compatible(loaded, champion))
        if gates.non_inferiority:
            results.append(_non_inferiority(loaded, incumbent_of(champion, fetch), test, rules))
    return results


def _test_row_error(loaded: LoadedVersion, test: LabeledRows) -> str:
    """Return the reason why `test` cannot be the version's test rows, or an empty string."""
    manifest = loaded.manifest
    target = manifest.signature.target
    known = test.target.dropna()
    if test.signature.target != target:
        return "the test rows have a different target from the version"
    if [column.name for column in test.signature.inputs] != [column.name for column in manifest.signature.inputs]:
        return "the test rows have different columns from the version"
    if target.classes and not known.isin(range(len(target.classes))).all():
        return "the test rows have a class that the version does not have"
    if set(test.scores) != (set(loaded.models) if manifest.is_out_of_fold else set()):
        return "the test rows do not have the out-of-fold scores that the version needs"
    width = len(target.classes) or 1
    if any(scores.shape[1] != width or not np.isfinite(scores).all() for scores in test.scores.values()):
        return "the out-of-fold scores have the wrong number of columns, or are not finite"
    return "" if np.isfinite(known.to_numpy(dtype=float)).all() else "the test rows have a target that is not finite"


def _no_missing_predictions(loaded: LoadedVersion, test: LabeledRows) -> GateResult:
    missing = sum(int((~np.isfinite(model.scores(test.inputs))).any(axis=1).sum()) for model in loaded.models.values())
    count = len(test.inputs) * len(loaded.models)
    detail = f"{missing} of {count} predictions are missing"
    return GateResult(name="no-missing-predictions", passed=missing == 0, detail=detail)


def _size(loaded: LoadedVersion, max_bytes: int) -> GateResult:
    size = sum(file.size for file in loaded.manifest.files.values())
    return GateResult(name="size", passed=size <= max_bytes, detail=f"{_megabytes(size)} (limit {_megabytes(max_bytes)})")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e6:,.0f} MB"


def _reported_scores(loaded: LoadedVersion, test: LabeledRows) -> GateResult:
    """Check that the scores on the leaderboard match those recomputed on the rows."""
    differences = []
    for row in loaded.manifest.leaderboard:
        score = _score(loaded, str(row["model"]), test, str(row["eval_metric"]))
        if not _agrees(row["score_test"], score):
            differences.append(f"{row['model']} reports {row['score_test']}, computed {score}")
        elif test.scores and _is_worse_than_out_of_fold(loaded.models[str(row["model"])], test, str(row["eval_metric"])):
            differences.append(f"{row['model']} predicts the rows it was trained on worse than its out-of-fold scores")
    detail = "; ".join(differences) or f"the reported scores of {len(loaded.manifest.leaderboard)} models are correct"
    return GateResult(name="scores", passed=not differences, detail=detail)


def _is_worse_than_out_of_fold(model: Model, rows: LabeledRows, metric: str) -> bool:
    """Return whether a model is worse on rows that it has seen, as if the out-of-fold scores were those of another model."""
    target, truth = rows.signature.target, rows.target.to_numpy()
    selected, scores = metrics_for(target)[metric_name(target, metric)], [model.scores(rows.inputs), rows.scores[model.family]]
    seen, unseen = (metric_value(selected, truth, each) for each in scores)
    if not seen < unseen:
        return False
    samples = bootstrap(selected, truth, scores, 0)
    return bool(interval(samples[:, 0] - samples[:, 1], 0.99)[1] < 0)


def _agrees(reported: object, computed: float | None) -> bool:
    if reported is None or computed is None:
        return reported is None
    bounded = np.clip(computed, -INFINITY_IN_CSV, INFINITY_IN_CSV)
    return isinstance(reported, (int, float)) and bool(np.isclose(reported, bounded, rtol=ROUNDING, atol=ROUNDING))


def _score(loaded: LoadedVersion, model: str, test: LabeledRows, metric: str | None) -> float | None:
    """Return a model's score on the rows with a known target, or None if there are none. Raises UnknownMetric."""
    rows = test.rows(np.flatnonzero(test.target.notna()))
    if not len(rows.inputs):
        return None
    target = rows.signature.target
    selected = metrics_for(target)[metric_name(target, metric)]
    return _finite_score(selected, rows.target.to_numpy(), loaded.models[model].out_of_sample_scores(rows))


def _finite_score(metric: Metric, target: np.ndarray, scores: np.ndarray) -> float | None:
    with np.errstate(all="ignore"):
        score = metric_value(metric, target, scores) if np.isfinite(scores).all() else float("nan")
    return None if np.isnan(score) else score


def _min_score(loaded: LoadedVersion, test: LabeledRows, metric: str | None, min_score: float) -> GateResult:
    score = _score(loaded, loaded.manifest.champion, test, metric)
    if score is None:
        detail = "there is no score, because no test row has a known target"
        return GateResult(name="min-score", passed=False, detail=detail)
    passed = score >= min_score
    detail = f"score {score:.3g} is {'at least' if passed else 'below'} {min_score:g}"
    return GateResult(name="min-score", passed=passed, detail=detail)


def _baseline(loaded: LoadedVersion) -> GateResult:
    """Check that the champion was better in cross-validation than the same prediction for every row."""
    passed = loaded.manifest.leaderboard[0].get("better_than_constant") is not False
    detail = "better" if passed else "not significantly better"
    return GateResult(name="baseline", passed=passed, detail=f"{detail} than the same prediction for every row")


def _leakage(loaded: LoadedVersion, test: LabeledRows) -> GateResult:
    """Check that no single input predicts nearly all of the target, and that the champion is not nearly exact."""
    target = loaded.manifest.signature.target
    found = leaking_inputs(test.inputs, test.target, target, NEARLY_ALL)
    problems = [f"{name} alone predicts {fraction:.1%} of {target.name}" for name, fraction in found.items()]
    if target.task == "regression" and (_score(loaded, loaded.manifest.champion, test, "r2") or 0) >= NEARLY_EXACT:
        problems.append(f"{target.name} is predicted exactly, as if it was computed from the inputs")
    settings = " and ".join(f"{setting_key(name)}.ignore = true" for name in found) or "ignore = true for these inputs"
    way_out = f"is this known before the prediction? Set {settings}, or gates.leakage = false"
    detail = f"{'; '.join(problems)}: {way_out}" if problems else "no input alone predicts nearly all of the target"
    return GateResult(name="leakage", passed=not problems, detail=detail)


def _latency(loaded: LoadedVersion, golden: Golden, max_milliseconds: float) -> GateResult:
    predict = loaded.fast[loaded.manifest.champion]
    if predict is None:
        return GateResult(name="latency", passed=False, detail="the model has no verified fast path for single records")
    times = []
    for number in range(TIMED_CALLS):
        started = time.perf_counter()
        predict(golden.rows[number % len(golden.rows)])
        times.append((time.perf_counter() - started) * 1000)
    median = float(np.median(times))
    detail = f"median {median:.3g} ms (limit {max_milliseconds:g} ms)"
    return GateResult(name="latency", passed=median <= max_milliseconds, detail=detail)


def _compatible(loaded: LoadedVersion, champion: LoadedVersion) -> GateResult:
    differences = incompatibilities(champion.manifest.signature, loaded.manifest.signature)
    detail = "; ".join(differences) or "accepts every input the champion accepts"
    return GateResult(name="compatible", passed=not differences, detail=detail)


def _non_inferiority(loaded: LoadedVersion, incumbent: Incumbent, test: LabeledRows, rules: PromotionRules) -> GateResult:
    """Compare the version with the champion on rows that neither has seen, or out of fold, by a paired bootstrap."""

    def result(passed: bool, detail: str) -> GateResult:
        return GateResult(name="non-inferiority", passed=passed, detail=detail)

    if test.target.isna().any():
        return result(False, "cannot be compared: there are no test rows with a known target")
    try:
        comparable = comparable_rows(incumbent, test)
    except NotComparable as error:
        return result(False, f"cannot be compared: {error}")
    if not len(comparable.positions):
        return result(True, "not compared: the champion predicts none of the rows")
    target = test.signature.target
    name = metric_name(target, rules.metric)
    rows = test.rows(comparable.positions)
    scores = [loaded.models[loaded.manifest.champion].out_of_sample_scores(rows), comparable.scores]
    samples = bootstrap(metrics_for(target)[name], rows.target.to_numpy(), scores, rules.seed)
    low, high = interval(samples[:, 0] - samples[:, 1])
    worse = high < 0
    difference = f"worse by {-high:.3g} to {-low:.3g}" if worse else f"difference {low:+.3g} to {high:+.3g}, higher is better"
    note = "" if comparable.known_unseen else "; the champion may have seen some of them"
    return result(not worse, f"{name}: {difference} (95% CI, {len(rows.inputs)} rows{note})")


def _no_older_data(loaded: LoadedVersion, champion: LoadedVersion) -> list[GateResult]:
    """Check that the training data does not end before the champion's; no result if either last day is not recorded."""
    last, champion_last = (str(version.manifest.data.get(UNTIL, "")) for version in (loaded, champion))
    if not last or not champion_last:
        return []
    detail = f"training data ends on {last}, the champion's on {champion_last}"
    return [GateResult(name="no-older-data", passed=last >= champion_last, detail=detail)]

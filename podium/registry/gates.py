"""The conditions under which a version may serve, each with its figures."""

from __future__ import annotations

import time

import numpy as np

from podium.models.golden_rows import Golden
from podium.models.metrics import INFINITY_IN_CSV, Metric, bootstrap, interval, metric_name, metric_value, metrics_for
from podium.project import PromotionRules
from podium.registry.audit_log import GateResult
from podium.registry.comparison import NotComparable, comparable_rows, incumbent_of
from podium.registry.loading import LoadedVersion
from podium.registry.versions import UNTIL, Manifest
from podium.schema.columns import Column, Signature
from podium.tables.labeled_rows import LabeledRows

TIMED_CALLS = 200
FUZZY_LEVELS = ("exact", "loose", "nearest")
COMPATIBLE_KINDS = {("integer", "number")}
"""Kinds that may become another without harm to those who ask."""
ROUNDING = 1e-6
"""A stated score may differ by so much from the one that is computed, as machines round differently."""


def evaluate_gates(
    loaded: LoadedVersion, golden: Golden, champion: LoadedVersion | None, test: LabeledRows, given: PromotionRules
) -> list[GateResult]:
    """Every gate of the promoter's rules; `golden` and `test` are the version's own rows, its figures are computed anew.

    That its files are whole, signed and reproduce their golden rows was shown when it was loaded. Raises UnknownMetric.
    """
    rules = given.gates
    if wrong := _other_rows(loaded.manifest, test):
        return [GateResult(name="test-rows", passed=False, detail=wrong)]
    found = [
        GateResult(name="golden-rows", passed=True, detail=f"largest difference {loaded.largest_difference:g}"),
        _no_missing(loaded, test),
        _size(loaded, rules.max_bytes),
        _scores(loaded, test),
    ]
    if rules.min_score is not None:
        found.append(_min_score(loaded, test, given.metric, rules.min_score))
    if rules.max_latency_ms is not None:
        found.append(_latency(loaded, golden, rules.max_latency_ms))
    if champion:
        found += _not_older(loaded, champion)
        differences = incompatibilities(champion.manifest.signature, loaded.manifest.signature)
        if rules.compatible:
            detail = "; ".join(differences) or "takes all that the champion takes"
            found.append(GateResult(name="compatible", passed=not differences, detail=detail))
        if rules.non_inferiority:
            found.append(_not_worse(loaded, champion, test, given))
    return found


def incompatibilities(old: Signature, new: Signature) -> list[str]:
    """Why somebody who asks the old signature's way would be turned away by the new one."""
    before, after = ({column.name: column for column in signature.request_columns} for signature in (old, new))
    wrong = [f"column {name} is gone" for name in before if name not in after and name not in new.ignored]
    added = [column for name, column in after.items() if name not in before]
    wrong += [f"column {column.name} is new and required" for column in added if not column.nullable]
    for name in before.keys() & after.keys():
        wrong += _incompatible_column(before[name], after[name])
    if (old.target.task, old.target.classes) != (new.target.task, new.target.classes):
        wrong.append("the classes or the task of the target have changed")
    return sorted(wrong)


def _incompatible_column(old: Column, new: Column) -> list[str]:
    wrong = []
    if old.kind != new.kind and (old.kind, new.kind) not in COMPATIBLE_KINDS:
        wrong.append(f"column {old.name} was {old.kind} and is {new.kind}")
    if old.nullable and not new.nullable:
        wrong.append(f"column {old.name} was optional and is required (say nullable = true in the project file)")
    if old.number_format not in ("plain", new.number_format):
        wrong.append(f"column {old.name} was {old.display_kind} and is {new.display_kind}")
    if FUZZY_LEVELS.index(new.fuzzy) < FUZZY_LEVELS.index(old.fuzzy):
        wrong.append(f"column {old.name} was read {old.fuzzy} and is read {new.fuzzy}")
    gone = sorted(set(old.categories) - set(new.categories))
    if gone and new.handle_unknown == "reject":
        wrong.append(f"column {old.name} no longer knows {len(gone)} of its categories")
    return wrong


def _best(loaded: LoadedVersion, rows: LabeledRows) -> np.ndarray:
    return loaded.models[loaded.manifest.champion].scores(rows.inputs)


def _no_missing(loaded: LoadedVersion, test: LabeledRows) -> GateResult:
    bad = sum(int((~np.isfinite(model.scores(test.inputs))).any(axis=1).sum()) for model in loaded.models.values())
    return GateResult(name="no-missing-predictions", passed=bad == 0, detail=f"{bad} of {len(test.inputs)} test rows")


def _size(loaded: LoadedVersion, most: int) -> GateResult:
    size = sum(file.size for file in loaded.manifest.files.values())
    return GateResult(name="size", passed=size <= most, detail=f"{size} bytes, at most {most}")


def _other_rows(manifest: Manifest, test: LabeledRows) -> str:
    """Why these are no test rows of the version; empty when they are."""
    target = manifest.signature.target
    known = test.target.dropna()
    if test.signature.target != target:
        return "the test rows have another target than the version"
    if [column.name for column in test.signature.inputs] != [column.name for column in manifest.signature.inputs]:
        return "the test rows have other columns than the version"
    if target.classes and not known.isin(range(len(target.classes))).all():
        return "the test rows have a class that the version does not know"
    return "" if np.isfinite(known.to_numpy(dtype=float)).all() else "the test rows have a target that is not finite"


def _scores(loaded: LoadedVersion, test: LabeledRows) -> GateResult:
    """Whether the leaderboard's test scores are those that its models have on the test rows."""
    wrong = []
    for row in loaded.manifest.leaderboard:
        found = _score(loaded, str(row["model"]), test, str(row["eval_metric"]))
        if not _agrees(row["score_test"], found):
            wrong.append(f"{row['model']} states {row['score_test']}, computed is {found}")
    detail = "; ".join(wrong) or f"those of {len(loaded.manifest.leaderboard)} models are as computed"
    return GateResult(name="scores", passed=not wrong, detail=detail)


def _agrees(stated: object, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is None
    bounded = np.clip(found, -INFINITY_IN_CSV, INFINITY_IN_CSV)
    return isinstance(stated, (int, float)) and bool(np.isclose(stated, bounded, rtol=ROUNDING, atol=ROUNDING))


def _score(loaded: LoadedVersion, model: str, test: LabeledRows, metric: str | None) -> float | None:
    """A model's score on the test rows whose target is known, None where there is none. Raises UnknownMetric."""
    rows = test.rows(np.flatnonzero(test.target.notna()))
    if not len(rows.inputs):
        return None
    known = metrics_for(rows.signature.target)[metric_name(rows.signature.target, metric)]
    return _figure(known, rows.target.to_numpy(), loaded.models[model].scores(rows.inputs))


def _figure(metric: Metric, target: np.ndarray, scores: np.ndarray) -> float | None:
    with np.errstate(all="ignore"):
        figure = metric_value(metric, target, scores) if np.isfinite(scores).all() else float("nan")
    return None if np.isnan(figure) else figure


def _min_score(loaded: LoadedVersion, test: LabeledRows, metric: str | None, least: float) -> GateResult:
    found = _score(loaded, loaded.manifest.champion, test, metric)
    if found is None:
        return GateResult(
            name="min-score", passed=False, detail="there is no test score, as no row with a known target came along"
        )
    return GateResult(name="min-score", passed=found >= least, detail=f"test score {found:.6g}, at least {least:g}")


def _latency(loaded: LoadedVersion, golden: Golden, most: float) -> GateResult:
    fast = loaded.fast[loaded.manifest.champion]
    if fast is None:
        return GateResult(name="latency", passed=False, detail="there is no proved one-record path to time")
    times = []
    for turn in range(TIMED_CALLS):
        started = time.perf_counter()
        fast(golden.rows[turn % len(golden.rows)])
        times.append((time.perf_counter() - started) * 1000)
    middle = float(np.median(times))
    return GateResult(name="latency", passed=middle <= most, detail=f"median {middle:.4f} ms, at most {most:g} ms")


def _not_worse(loaded: LoadedVersion, champion: LoadedVersion, test: LabeledRows, rules: PromotionRules) -> GateResult:
    """Paired on those of the version's test rows that the champion has not learned from either."""
    if test.target.isna().any():
        return GateResult(
            name="non-inferiority", passed=False, detail="cannot be compared: no rows with a known target came along"
        )
    try:
        ground = comparable_rows(incumbent_of(champion), test)
    except NotComparable as error:
        return GateResult(name="non-inferiority", passed=False, detail=f"cannot be compared: {error}")
    if not len(ground.places):
        return GateResult(name="non-inferiority", passed=True, detail="the champion answers none of the test rows")
    metric = metrics_for(test.signature.target)[metric_name(test.signature.target, rules.metric)]
    rows = test.rows(ground.places)
    figures = bootstrap(metric, rows.target.to_numpy(), [_best(loaded, rows), ground.scores], rules.seed)
    low, high = interval(figures[:, 0] - figures[:, 1])
    seen = "" if ground.known else "; which of them it has learned from is not known"
    detail = f"difference to {champion.manifest.version} on {len(rows.inputs)} test rows: {low:.6g} to {high:.6g}{seen}"
    return GateResult(name="non-inferiority", passed=not high < 0, detail=detail)


def _not_older(loaded: LoadedVersion, champion: LoadedVersion) -> list[GateResult]:
    """Whether it has learned from days as late as the champion's; nothing where days are not known."""
    own, theirs = (str(each.manifest.data.get(UNTIL, "")) for each in (loaded, champion))
    if not own or not theirs:
        return []
    return [GateResult(name="no-older-data", passed=own >= theirs, detail=f"its data end at {own}, the champion's at {theirs}")]

"""The conditions under which a version may serve, each with its figures."""

from __future__ import annotations

import time

import numpy as np

from podium.data.columns import Column, Signature
from podium.learn.clean import Clean
from podium.learn.compare import Incomparable, common_ground, rival_of
from podium.learn.days import UNTIL
from podium.learn.metrics import interval, metric_name, metrics_of, resampled
from podium.loading import Loaded
from podium.model.golden import Golden
from podium.project import Project
from podium.store.history import Gate

TIMED = 200
SPELLINGS = ("exact", "loose", "nearest")
WIDER = {("integer", "number")}
"""Kinds that may become another without harm to those who ask."""


def judge(loaded: Loaded, golden: Golden, champion: Loaded | None, test: Clean, project: Project) -> list[Gate]:
    """Every gate of the version's own project file; `golden` and `test` are the version's own rows.

    That its files are whole, signed and reproduce their golden rows was shown when it was loaded.
    """
    rules = project.gates
    found = [
        Gate(name="golden-rows", passed=True, detail=f"largest difference {loaded.largest_difference:g}"),
        _no_missing(loaded, test),
        _size(loaded, rules.most_bytes),
    ]
    if rules.min_score is not None:
        found.append(_min_score(loaded, rules.min_score))
    if rules.most_milliseconds is not None:
        found.append(_latency(loaded, golden, rules.most_milliseconds))
    if champion:
        found += _not_older(loaded, champion)
        differences = incompatible(champion.manifest.signature, loaded.manifest.signature)
        if rules.compatible:
            detail = "; ".join(differences) or "takes all that the champion takes"
            found.append(Gate(name="compatible", passed=not differences, detail=detail))
        if rules.not_worse:
            found.append(_not_worse(loaded, champion, test, project))
    return found


def incompatible(old: Signature, new: Signature) -> list[str]:
    """Why somebody who asks the old signature's way would be turned away by the new one."""
    before, after = ({column.name: column for column in signature.asked} for signature in (old, new))
    wrong = [f"column {name} is gone" for name in before if name not in after and name not in new.ignored]
    added = [column for name, column in after.items() if name not in before]
    wrong += [f"column {column.name} is new and required" for column in added if not column.nullable]
    for name in before.keys() & after.keys():
        wrong += _narrowed(before[name], after[name])
    if (old.target.task, old.target.classes) != (new.target.task, new.target.classes):
        wrong.append("the classes or the task of the target have changed")
    return sorted(wrong)


def _narrowed(old: Column, new: Column) -> list[str]:
    wrong = []
    if old.kind != new.kind and (old.kind, new.kind) not in WIDER:
        wrong.append(f"column {old.name} was {old.kind} and is {new.kind}")
    if old.nullable and not new.nullable:
        wrong.append(f"column {old.name} was optional and is required (say nullable = true in the project file)")
    if old.notation not in ("plain", new.notation):
        wrong.append(f"column {old.name} was {old.words} and is {new.words}")
    if SPELLINGS.index(new.spelling) < SPELLINGS.index(old.spelling):
        wrong.append(f"column {old.name} was read {old.spelling} and is read {new.spelling}")
    gone = sorted(set(old.categories) - set(new.categories))
    if gone and new.unknown == "reject":
        wrong.append(f"column {old.name} no longer knows {len(gone)} of its categories")
    return wrong


def _best(loaded: Loaded, rows: Clean) -> np.ndarray:
    return loaded.models[loaded.manifest.champion].scores(rows.inputs)


def _no_missing(loaded: Loaded, test: Clean) -> Gate:
    bad = sum(int((~np.isfinite(model.scores(test.inputs))).any(axis=1).sum()) for model in loaded.models.values())
    return Gate(name="no-missing-predictions", passed=bad == 0, detail=f"{bad} of {len(test.inputs)} test rows")


def _size(loaded: Loaded, most: int) -> Gate:
    size = sum(file.size for file in loaded.manifest.files.values())
    return Gate(name="size", passed=size <= most, detail=f"{size} bytes, at most {most}")


def _min_score(loaded: Loaded, least: float) -> Gate:
    score = loaded.manifest.leaderboard[0]["score_test"]
    if score is None:
        return Gate(name="min-score", passed=False, detail="there is no test score, as no row with a known target came along")
    return Gate(name="min-score", passed=score >= least, detail=f"test score {score:.6g}, at least {least:g}")


def _latency(loaded: Loaded, golden: Golden, most: float) -> Gate:
    fast = loaded.fast[loaded.manifest.champion]
    if fast is None:
        return Gate(name="latency", passed=False, detail="there is no proved one-record path to time")
    times = []
    for turn in range(TIMED):
        started = time.perf_counter()
        fast(golden.rows[turn % len(golden.rows)])
        times.append((time.perf_counter() - started) * 1000)
    middle = float(np.median(times))
    return Gate(name="latency", passed=middle <= most, detail=f"median {middle:.4f} ms, at most {most:g} ms")


def _not_worse(loaded: Loaded, champion: Loaded, test: Clean, project: Project) -> Gate:
    """Paired on those of the version's test rows that the champion has not learned from either."""
    if test.target.isna().any():
        return Gate(name="not-worse", passed=False, detail="cannot be compared: no rows with a known target came along")
    try:
        ground = common_ground(rival_of(champion), test)
    except Incomparable as error:
        return Gate(name="not-worse", passed=False, detail=f"cannot be compared: {error}")
    if not len(ground.places):
        return Gate(name="not-worse", passed=True, detail="the champion answers none of the test rows")
    metric = metrics_of(test.signature.target)[metric_name(test.signature.target, project.metric)]
    rows = test.rows(ground.places)
    figures = resampled(metric, rows.target.to_numpy(), [_best(loaded, rows), ground.scores], project.seed)
    low, high = interval(figures[:, 0] - figures[:, 1])
    seen = "" if ground.known else "; which of them it has learned from is not known"
    detail = f"difference to {champion.manifest.version} on {len(rows.inputs)} test rows: {low:.6g} to {high:.6g}{seen}"
    return Gate(name="not-worse", passed=not high < 0, detail=detail)


def _not_older(loaded: Loaded, champion: Loaded) -> list[Gate]:
    """Whether it has learned from days as late as the champion's; nothing where days are not known."""
    own, theirs = (str(each.manifest.data.get(UNTIL, "")) for each in (loaded, champion))
    if not own or not theirs:
        return []
    return [Gate(name="not-older", passed=own >= theirs, detail=f"its data end at {own}, the champion's at {theirs}")]

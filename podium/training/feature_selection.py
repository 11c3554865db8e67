"""Which features stay: those that vary, are no copy of another, and help more than a shuffled copy of themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

DUPLICATE_CORRELATION = 0.9999
"""Absolute correlation from which two features count as one."""
LARGE_SAMPLE = 40_000
TREES = 60


@dataclass(frozen=True, slots=True)
class FeatureDecision:
    """Why a feature stays or goes; `importance` and `noise` are shares of a forest's gain."""

    feature: str
    kept: bool
    importance: float
    noise: float
    reason: str


DECISIONS = TypeAdapter(list[FeatureDecision])


def select_features(
    features: FloatMatrix, target: FloatVector, names: list[str], kind: Target, most: int | None, seed: int
) -> list[FeatureDecision]:
    """Judge every feature on training rows only; at least one stays."""
    reasons = _duplicates(features, names)
    judged = [place for place in range(len(names)) if place not in reasons]
    importance, noise, doubt = _shadow_importance(features[:, judged], target, kind, seed)
    verdicts = {place: FeatureDecision(names[place], False, 0.0, 0.0, reason) for place, reason in reasons.items()}
    order = sorted(range(len(judged)), key=lambda i: (-importance[i], judged[i]))
    for position, i in enumerate(order):
        useful = position == 0 or importance[i] - doubt[i] > noise[i]
        kept = useful and (most is None or position < most)
        reason = "" if kept else ("over the number of features asked for" if useful else "helps no more than noise")
        verdicts[judged[i]] = FeatureDecision(names[judged[i]], kept, float(importance[i]), float(noise[i]), reason)
    return [verdicts[place] for place in range(len(names))]


def kept_indices(verdicts: list[FeatureDecision]) -> list[int]:
    return [place for place, verdict in enumerate(verdicts) if verdict.kept]


def decisions_to_json(verdicts: list[FeatureDecision]) -> bytes:
    return DECISIONS.dump_json(verdicts, indent=1)


def decisions_from_json(data: bytes) -> list[FeatureDecision]:
    return DECISIONS.validate_json(data)


def _duplicates(features: FloatMatrix, names: list[str]) -> dict[int, str]:
    """Features that never vary or repeat an earlier one."""
    spread = features.std(axis=0)
    reasons = dict.fromkeys(np.flatnonzero(spread == 0).tolist(), "the same in every row")
    varying = np.flatnonzero(spread > 0)
    if len(varying) > 1:
        alike = np.abs(np.corrcoef(features[:, varying], rowvar=False)) > DUPLICATE_CORRELATION
        for i in range(1, len(varying)):
            earlier = [j for j in np.flatnonzero(alike[i, :i]).tolist() if int(varying[j]) not in reasons]
            if earlier:
                reasons[int(varying[i])] = f"says the same as {names[varying[earlier[0]]]}"
    return reasons if len(reasons) < len(names) else dict(list(reasons.items())[1:])


def _shadow_importance(
    features: FloatMatrix, target: FloatVector, kind: Target, seed: int
) -> tuple[FloatVector, FloatVector, FloatVector]:
    """Importance of each feature, of its shuffled copy, and the standard error of their difference over the trees."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(features))[:LARGE_SAMPLE]
    real, labels = features[rows], target[rows]
    shuffled = np.column_stack([random.permutation(real[:, place]) for place in range(real.shape[1])])
    forest = (ExtraTreesClassifier if kind.classes else ExtraTreesRegressor)(TREES, max_depth=10, random_state=seed, n_jobs=1)
    forest.fit(np.hstack([real, shuffled]), labels)
    shares = np.array([tree.feature_importances_ for tree in forest.estimators_])
    width = real.shape[1]
    difference = shares[:, :width] - shares[:, width:]
    return shares[:, :width].mean(0), shares[:, width:].mean(0), difference.std(0) / np.sqrt(TREES)

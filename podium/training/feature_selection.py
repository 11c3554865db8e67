"""Select features that vary, are not duplicates, and, if asked for, beat their shuffled shadow copies (as in Boruta)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target

DUPLICATE_CORRELATION = 0.9999
"""Features with a higher absolute correlation are duplicates."""
MAX_SAMPLE_ROWS = 40_000
N_TREES = 60


@dataclass(frozen=True, slots=True)
class FeatureDecision:
    """Why a feature is kept or dropped; `importance`, and `noise` for its shadow copy, are fractions of a forest's gain."""

    feature: str
    kept: bool
    importance: float
    noise: float
    reason: str


DECISIONS = TypeAdapter(list[FeatureDecision])


def select_features(
    features: FloatMatrix, target: FloatVector, names: list[str], kind: Target, max_features: int | None, seed: int
) -> list[FeatureDecision]:
    """Decide which features to keep, using training rows only; at least one is kept.

    Without `max_features`, only those that are constant or duplicates are dropped.
    """
    reasons = _duplicates(features, names)
    if max_features is None:
        return [FeatureDecision(name, i not in reasons, 0.0, 0.0, reasons.get(i, "")) for i, name in enumerate(names)]
    varied = [index for index in range(len(names)) if index not in reasons]
    importance, noise, error = _shadow_importance(features[:, varied], target, kind, seed)
    decisions = {index: FeatureDecision(names[index], False, 0.0, 0.0, reason) for index, reason in reasons.items()}
    order = sorted(range(len(varied)), key=lambda i: (-importance[i], varied[i]))
    for rank, i in enumerate(order):
        useful = rank == 0 or importance[i] - error[i] > noise[i]
        kept = useful and rank < max_features
        reason = "" if kept else ("exceeds features.max_features" if useful else "not better than its shuffled copy")
        decisions[varied[i]] = FeatureDecision(names[varied[i]], kept, float(importance[i]), float(noise[i]), reason)
    return [decisions[index] for index in range(len(names))]


def kept_indices(decisions: list[FeatureDecision]) -> list[int]:
    """Return the indices of the kept features."""
    return [index for index, decision in enumerate(decisions) if decision.kept]


def decisions_to_json(decisions: list[FeatureDecision]) -> bytes:
    return DECISIONS.dump_json(decisions, indent=1)


def decisions_from_json(data: bytes) -> list[FeatureDecision]:
    return DECISIONS.validate_json(data)


def _duplicates(features: FloatMatrix, names: list[str]) -> dict[int, str]:
    """Features that are constant or duplicate an earlier one, with the reason; never all of them."""
    spread = features.std(axis=0)
    reasons = dict.fromkeys(np.flatnonzero(spread == 0).tolist(), "the same in every row")
    varying = np.flatnonzero(spread > 0)
    if len(varying) > 1:
        duplicate = np.abs(np.corrcoef(features[:, varying], rowvar=False)) > DUPLICATE_CORRELATION
        for i in range(1, len(varying)):
            earlier = [j for j in np.flatnonzero(duplicate[i, :i]).tolist() if int(varying[j]) not in reasons]
            if earlier:
                reasons[int(varying[i])] = f"duplicate of {names[varying[earlier[0]]]}"
    return reasons if len(reasons) < len(names) else dict(list(reasons.items())[1:])


def _shadow_importance(
    features: FloatMatrix, target: FloatVector, kind: Target, seed: int
) -> tuple[FloatVector, FloatVector, FloatVector]:
    """Importance of each feature and of its shuffled copy, and the standard error of their difference over the trees."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(features))[:MAX_SAMPLE_ROWS]
    real, labels = features[rows], target[rows]
    n_features = real.shape[1]
    shadow = np.column_stack([random.permutation(real[:, index]) for index in range(n_features)])
    forest_class = ExtraTreesClassifier if kind.classes else ExtraTreesRegressor
    forest = forest_class(N_TREES, max_depth=10, random_state=seed, n_jobs=1).fit(np.hstack([real, shadow]), labels)
    importances = np.array([tree.feature_importances_ for tree in forest.estimators_])
    difference = importances[:, :n_features] - importances[:, n_features:]
    error = difference.std(0) / np.sqrt(N_TREES)
    return importances[:, :n_features].mean(0), importances[:, n_features:].mean(0), error

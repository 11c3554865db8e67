"""CatBoost's symmetric trees as a family of models."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.models.catboost_trees import catboost_trees
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target
from podium.training.early_stopping import EarlyStopping

MAX_ROUNDS, BORDERS = 1000, 64
"""With 64 borders a feature, scores were within 0.2% of those with 128, and fits took as little as a third of the time with
CatBoost's default, 254."""
LOSSES = {"binary": "Logloss", "multiclass": "MultiClass"}
"""The loss of classes; others have RMSE."""
RATES = {"Logloss": (0.247, -5.158), "MultiClass": (0.02, -2.364), "RMSE": (0.157, -4.062)}
"""CatBoost's learning rate for 1000 rounds with early stopping is exp(a × ln(rows) + b). CatBoost's own choice also depends on
the number of rounds, which changes when a model is fitted again."""
OBJECTIVES = {
    "Logloss": "objective=binary sigmoid:1",
    "MultiClass": "objective=multiclass num_class:{}",
    "RMSE": "objective=regression",
}
"""LightGBM's objective with the same link."""


@dataclass(frozen=True, slots=True)
class SymmetricTrees:
    """A fitted model of CatBoost; `best_iteration_` is the round that was best on the rows for early stopping, or 0."""

    model: Any
    loss: str
    classes: int
    best_iteration_: int = 0

    def predict(self, features: FloatMatrix) -> FloatVector:
        """Return the values of a regression."""
        return np.asarray(self.model.predict(features))

    def predict_proba(self, features: FloatMatrix) -> FloatMatrix:
        """Return the probabilities of the classes."""
        return np.asarray(self.model.predict(features, prediction_type="Probability"))

    def scorer(self, features: int, rounds: int | None = None) -> LightGBMScorer:
        """Convert the first rounds, or all of them."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            self.model.save_model(str(path), format="json")
            content = json.loads(path.read_bytes())
        return catboost_trees(content, features, OBJECTIVES[self.loss].format(self.classes), rounds)


@dataclass(frozen=True, slots=True)
class ConstantSums:
    """A model without trees, for features that do not vary, which CatBoost rejects."""

    sums: list[float]
    loss: str
    best_iteration_: int = 1

    def scorer(self, features: int, rounds: int | None = None) -> LightGBMScorer:
        """Return trees of one leaf."""
        content = {"features_info": {"float_features": []}, "oblivious_trees": [], "scale_and_bias": [1.0, self.sums]}
        return catboost_trees(content, features, OBJECTIVES[self.loss].format(len(self.sums)))


def _constant_sums(labels: FloatVector, loss: str) -> ConstantSums:
    if loss == "RMSE":
        return ConstantSums([float(labels.mean())], loss)
    logarithms = np.log(np.bincount(labels.astype(int)) / len(labels))
    return ConstantSums([float(logarithms[1] - logarithms[0])] if loss == "Logloss" else logarithms.tolist(), loss)


def fit_symmetric_trees(
    target: Target,
    random_state: int,
    params: Mapping[str, Any],
    rows: tuple[FloatMatrix, FloatVector],
    check_rows: tuple[FloatMatrix, FloatVector] | None,
    deadline: float,
) -> SymmetricTrees | ConstantSums:
    """Fit on features and labels, with early stopping if there are rows for it."""
    from catboost import CatBoost, Pool  # imported late: about 35 MB and 0.1 s, needed by this family only

    loss = LOSSES.get(target.task, "RMSE")
    with np.errstate(over="ignore"):
        features = rows[0].astype(np.float32)  # as CatBoost does
    if not (features != features[0]).any():
        return _constant_sums(rows[1], loss)
    growth, start = RATES[loss]
    options = {
        "n_estimators": MAX_ROUNDS,
        "learning_rate": math.exp(growth * math.log(len(rows[1])) + start),
        "border_count": BORDERS,
        **params,
        "loss_function": loss,
        "random_seed": random_state,
        "thread_count": 1,
        "allow_const_label": True,
        "allow_writing_files": False,
        "logging_level": "Silent",
    }
    model = CatBoost(options)
    if check_rows is None:
        return SymmetricTrees(model.fit(Pool(*rows)), loss, len(target.classes))
    stopping = EarlyStopping(deadline)
    model.fit(Pool(*rows), eval_set=Pool(*check_rows), use_best_model=False, callbacks=[_StoppingCallback(loss, stopping)])
    return SymmetricTrees(model, loss, len(target.classes), stopping.best_round)


class _StoppingCallback:
    """Passes the losses on the rows for early stopping on."""

    def __init__(self, metric: str, stopping: EarlyStopping) -> None:
        self._metric, self._stopping = metric, stopping

    def after_iteration(self, info: Any) -> bool:
        """Return whether to go on; CatBoost counts rounds from 1 here."""
        return not self._stopping.is_over(info.iteration, info.metrics["validation"][self._metric][-1])

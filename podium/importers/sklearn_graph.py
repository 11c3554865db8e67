"""scikit-learn estimators as float64 ONNX graphs, written from their fitted attributes.

The formulas are those of scikit-learn's own `predict`, `predict_proba` and `decision_function`. Each function returns a tensor
of shape (rows, outputs). Ensembles call these functions for their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn import naive_bayes
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV, _CalibratedClassifier, _SigmoidCalibration
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    IsolationForest,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.ensemble._forest import ForestClassifier, ForestRegressor
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import RANSACRegressor, SGDRegressor
from sklearn.linear_model._base import LinearClassifierMixin, LinearModel
from sklearn.linear_model._glm.glm import _GeneralizedLinearRegressor
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.tree._classes import BaseDecisionTree

from podium.importers import sklearn_graph_formulas as formulas
from podium.importers import sklearn_graph_trees as trees
from podium.importers.booster_stand_ins import BoosterEstimator
from podium.importers.estimator_scores import best_estimator, last_step, predicts_largest_decision
from podium.importers.graph_builder import Tensor, concat
from podium.importers.old_releases import RealAdaBoost
from podium.importers.sklearn_graph_columns import Columns, Unsupported
from podium.importers.sklearn_graph_formulas import LINKS, both, shares, softmax
from podium.importers.sklearn_graph_steps import inverse_transform, transform

Converter = Callable[[Any, Columns], Tensor]


def scores(estimator: Any, x: Columns) -> Tensor:
    """Return class probabilities, or predicted values. Raises Unsupported."""
    return _convert(SCORES, estimator, x)


def served_scores(estimator: Any, x: Columns) -> Tensor:
    """Return the scores that `estimator_scores.score_function` does, also without probabilities. Raises Unsupported."""
    if not is_classifier(estimator) or hasattr(estimator, "predict_proba") or not predicts_largest_decision(estimator):
        return scores(estimator, x)
    return LINKS["logistic" if len(estimator.classes_) == 2 else "softmax"](decisions(estimator, x))


def decisions(estimator: Any, x: Columns) -> Tensor:
    """Return what `decision_function` returns, with one column for two classes. Raises Unsupported."""
    return _convert(DECISIONS, estimator, x)


def _convert(table: dict[Any, Converter], estimator: Any, x: Columns) -> Tensor:
    for kinds, converter in table.items():
        if isinstance(estimator, kinds):
            return converter(estimator, x)
    raise Unsupported(f"{type(estimator).__name__} is not known")


# --- compositions ------------------------------------------------------------------------------------------------------


def _pipeline(function: Converter) -> Converter:
    def convert(pipeline: Pipeline, x: Columns) -> Tensor:
        for _, step in pipeline.steps[:-1]:
            x = transform(step, x)
        return function(pipeline.steps[-1][1], x)

    return convert


def _within(function: Converter) -> Converter:
    return lambda model, x: function(best_estimator(model), x)


def _mean(parts: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    weight = np.full(len(parts), 1.0) if weights is None else np.asarray(weights, dtype=float)
    weighted = [part * share for part, share in zip(parts, (weight / weight.sum()).tolist(), strict=True)]
    return parts[0].graph.add("Sum", *weighted)


def _voting(model: Any, x: Columns) -> Tensor:
    function = _vote if getattr(model, "voting", "soft") == "hard" else scores
    return _mean([function(part, x) for part in model.estimators_], model._weights_not_none)


def _vote(part: Any, x: Columns) -> Tensor:
    """Return 1 for the class that a classifier predicts, and 0 for the others."""
    if isinstance(last_step(part), SVC | NuSVC) and hasattr(part, "predict_proba"):
        raise Unsupported("support vectors, which do not predict the class with the largest probability")
    return served_scores(part, x).largest(np.eye(len(part.classes_)))


def _stacking(model: Any, x: Columns) -> Tensor:
    parts = [
        _stacked(part, method, x, len(getattr(model, "classes_", ())))
        for part, method in zip(model.estimators_, model.stack_method_, strict=True)
        if not isinstance(part, str)
    ]
    if model.passthrough:
        parts.append(x.tensor)
    return scores(model.final_estimator_, Columns(concat(parts)))


def _stacked(part: Any, method: str, x: Columns, classes: int) -> Tensor:
    if method == "predict" and is_classifier(part):
        raise Unsupported("stacked class labels")
    output = decisions(part, x) if method == "decision_function" else scores(part, x)
    return output.column(1) if method == "predict_proba" and classes == 2 else output


def _bagging(model: Any, x: Columns) -> Tensor:
    parts = []
    for part, selected in zip(model.estimators_, model.estimators_features_, strict=True):
        output = scores(part, x.select(np.asarray(selected).tolist()))
        if is_classifier(model) and len(part.classes_) != len(model.classes_):
            output = output @ np.eye(len(model.classes_))[np.asarray(part.classes_, dtype=int)]
        parts.append(output)
    return _mean(parts)


def _one_vs_rest(model: OneVsRestClassifier, x: Columns) -> Tensor:
    parts = [scores(part, x).column(1) for part in model.estimators_]
    return both(parts[0]) if len(parts) == 1 else shares(concat(parts))


def _one_vs_rest_decisions(model: OneVsRestClassifier, x: Columns) -> Tensor:
    return concat([decisions(part, x) for part in model.estimators_])


def _calibrated(model: CalibratedClassifierCV, x: Columns) -> Tensor:
    return _mean([_calibrated_part(part, x, len(model.classes_)) for part in model.calibrated_classifiers_])


def _calibrated_part(part: _CalibratedClassifier, x: Columns, classes: int) -> Tensor:
    if part.method not in ("sigmoid", "isotonic"):
        raise Unsupported(f"the calibration {part.method}")
    if hasattr(part.estimator, "decision_function"):
        raw = decisions(part.estimator, x)
    else:
        raw = scores(part.estimator, x)
        raw = raw.column(1) if classes == 2 else raw
    known = part.estimator.classes_
    positions = np.searchsorted(part.classes, known).tolist() if classes > 2 else [1]
    found = {
        position: _calibrate(calibrator, raw.column(index))
        for index, (position, calibrator) in enumerate(zip(positions, part.calibrators, strict=True))
    }
    if classes == 2:
        return both(found[1])
    zero = next(iter(found.values())) * 0.0
    return shares(concat([found.get(index, zero) for index in range(classes)]))


def _calibrate(calibrator: Any, raw: Tensor) -> Tensor:
    if isinstance(calibrator, _SigmoidCalibration):
        return (raw * -calibrator.a_ + -calibrator.b_).map(expit)
    return formulas.isotonic(calibrator, Columns(raw))


def _transformed_target(model: TransformedTargetRegressor, x: Columns) -> Tensor:
    return inverse_transform(model.transformer_, scores(model.regressor_, x))


def _ada_boost_sums(model: AdaBoostClassifier, x: Columns) -> Tensor:
    classes = len(model.classes_)
    parts = []
    for part, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        probabilities = scores(part, x)
        if isinstance(model, RealAdaBoost):
            logarithm = probabilities.clip(np.finfo(float).eps).map(np.log)
            parts.append((logarithm - logarithm.reduce("ReduceMean")) * float(classes - 1))
        else:
            parts.append(probabilities.largest((np.eye(classes) * (1 + 1 / (classes - 1)) - 1 / (classes - 1)) * weight))
    total = x.tensor.graph.add("Sum", *parts) * (1.0 / float(np.sum(model.estimator_weights_)))
    return total @ np.array([[-1.0], [1.0]]) if classes == 2 else total


def _ada_boost(model: AdaBoostClassifier, x: Columns) -> Tensor:
    sums = _ada_boost_sums(model, x)
    classes = len(model.classes_)
    return LINKS["logistic"](sums) if classes == 2 else softmax(sums * (1.0 / (classes - 1)))


BOOSTING = (BaseGradientBoosting, BaseHistGradientBoosting)

SCORES: dict[Any, Converter] = {
    BoosterEstimator: trees.booster,
    Pipeline: _pipeline(scores),
    (BaseSearchCV, FrozenEstimator): _within(scores),
    (VotingClassifier, VotingRegressor): _voting,
    (StackingClassifier, StackingRegressor): _stacking,
    IsolationForest: trees.isolation_forest,
    (BaggingClassifier, BaggingRegressor): _bagging,
    OneVsRestClassifier: _one_vs_rest,
    CalibratedClassifierCV: _calibrated,
    TransformedTargetRegressor: _transformed_target,
    (BaseDecisionTree, ForestClassifier, ForestRegressor): trees.forest,
    BOOSTING: trees.boosting,
    AdaBoostClassifier: _ada_boost,
    _GeneralizedLinearRegressor: formulas.generalized_linear,
    RANSACRegressor: lambda model, x: scores(model.estimator_, x),
    LinearClassifierMixin: formulas.linear_classifier,
    (LinearModel, SGDRegressor): formulas.linear_model,
    QuadraticDiscriminantAnalysis: formulas.quadratic,
    naive_bayes.GaussianNB: formulas.normal_bayes,
    (naive_bayes.BernoulliNB, naive_bayes.MultinomialNB, naive_bayes.ComplementNB): formulas.linear_bayes,
    BaseMultilayerPerceptron: formulas.perceptron,
    (KNeighborsClassifier, KNeighborsRegressor): formulas.neighbors,
    (SVR, NuSVR): formulas.support_vectors,
    IsotonicRegression: formulas.isotonic,
    _BaseKMeans: formulas.nearest_center,
    (DummyClassifier, DummyRegressor): formulas.constant,
}
"""Converters by class; the first match counts."""

DECISIONS: dict[Any, Converter] = {
    Pipeline: _pipeline(decisions),
    (BaseSearchCV, FrozenEstimator): _within(decisions),
    BOOSTING: trees.boosted_sums,
    AdaBoostClassifier: _ada_boost_sums,
    LinearClassifierMixin: formulas.linear_model,
    (SVC, NuSVC): formulas.support_vectors,
    OneVsRestClassifier: _one_vs_rest_decisions,
}
"""Converters to decisions by class; the first match counts."""

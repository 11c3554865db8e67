"""The scores of a fitted estimator of scikit-learn, computed by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.ensemble import VotingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC
from sklearn.utils.extmath import softmax

from podium.importers.errors import ImportRefused
from podium.importers.several_targets import scores_of
from podium.importers.text_vectorizers import takes_one_text
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Decision

MAX_ROWS = 10_000


def last_step(estimator: Any) -> Any:
    """Return the estimator, or the last one of a pipeline."""
    return last_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def scores_rows(estimator: Any) -> bool:
    """Return whether the model is an outlier detector, which returns a score, or k-means, whose classes are the clusters."""
    return is_outlier_detector(last_step(estimator)) or isinstance(last_step(estimator), _BaseKMeans)


def best_estimator(estimator: Any) -> Any:
    """Return the model within a parameter search, a choice of a threshold or a frozen model, or the estimator itself."""
    if isinstance(estimator, FrozenEstimator):
        return best_estimator(estimator.estimator)
    if isinstance(estimator, BaseSearchCV):
        return best_estimator(getattr(estimator, "best_estimator_", estimator.estimator))
    if isinstance(estimator, FixedThresholdClassifier | TunedThresholdClassifierCV):
        return best_estimator(getattr(estimator, "estimator_", estimator.estimator))
    return estimator


def threshold_decision(estimator: Any) -> Decision | None:
    """Return the rule of a classifier that predicts a class from a threshold on. Raises ImportRefused."""
    if not isinstance(estimator, FixedThresholdClassifier | TunedThresholdClassifierCV):
        return None
    if estimator.response_method == "decision_function" or not hasattr(estimator, "predict_proba"):
        raise ImportRefused(
            f"{type(estimator).__name__} has a threshold of a decision function: save its estimator_, and set the decision in "
            "the project file"
        )
    threshold = getattr(estimator, "best_threshold_", getattr(estimator, "threshold", 0.5))
    is_fixed = isinstance(estimator, FixedThresholdClassifier)
    positive = estimator.pos_label if is_fixed else estimator._curve_scorer._get_pos_label()
    index = 1 if positive is None else list(estimator.classes_).index(positive)
    # scikit-learn compares with "at least"
    return Decision(index, float(np.nextafter(0.5 if threshold == "auto" else threshold, -np.inf)))


def class_labels(estimator: Any) -> Sequence[object] | None:
    """Return the classes of a classifier, or the clusters of k-means. Raises ImportRefused for several targets."""
    last = last_step(estimator)
    if isinstance(last, _BaseKMeans):
        return list(range(len(last.cluster_centers_)))
    if not is_classifier(estimator):
        return None
    labels = estimator.classes_
    if isinstance(labels, list):
        raise ImportRefused("the model predicts several targets: fit one model per target")
    return list(labels)


def score_function(
    estimator: Any, columns: Sequence[Column], output: int | None = None
) -> Callable[[pd.DataFrame], FloatMatrix]:
    """Return a function that scores a frame of `columns`: probabilities, a number, or the score of an outlier detector.

    `output` is the number of the target to score, of an estimator with several.
    Missing texts are NaN, as pandas reads them, except for an estimator that was fitted with None.
    """
    texts = [column.name for column in columns if column.is_text]
    is_named, is_text = hasattr(estimator, "feature_names_in_") or bool(texts), takes_one_text(estimator)
    predict = _method(estimator) if output is None else scores_of(_method(estimator), output)
    missing = None if any(map(_knows_none, _parts(estimator))) else np.nan
    # this imputer returns something else for a row if there are other rows
    size = 1 if any(isinstance(part, IterativeImputer) for part in _parts(estimator)) else MAX_ROWS

    def scores(frame: pd.DataFrame) -> FloatMatrix:
        as_fitted = {
            name: pd.Series([cell if isinstance(cell, str) else missing for cell in frame[name]], frame.index, dtype=object)
            for name in texts
        }
        rows = frame.assign(**as_fitted) if is_named else frame.to_numpy(dtype=float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = rows[texts[0]] if is_text else rows
            blocks = [predict(rows[low : low + size]) for low in range(0, len(frame), size)]
        return np.concatenate(blocks).astype(float).reshape(len(frame), -1)

    return scores


def _parts(step: Any) -> Iterator[Any]:
    """Yield an estimator with all that it consists of."""
    yield step
    steps = [part for _, part, *_ in (*getattr(step, "steps", ()), *getattr(step, "transformers_", ()))]
    fitted = getattr(step, "estimators_", ())
    for part in (*steps, *(fitted.flat if isinstance(fitted, np.ndarray) else fitted)):
        yield from _parts(part)


def _knows_none(step: Any) -> bool:
    """Return whether an encoder has the category None, or an imputer replaces None."""
    categories = (category for each in getattr(step, "categories_", ()) for category in np.ravel(each))
    return getattr(step, "missing_values", 0) is None or any(category is None for category in categories)


def _method(estimator: Any) -> Callable[[Any], Any]:
    last = last_step(estimator)
    if is_outlier_detector(last):
        return lambda rows: estimator.score_samples(rows)
    if isinstance(last, _BaseKMeans):
        return lambda rows: np.eye(len(last.cluster_centers_))[estimator.predict(rows)]
    if not is_classifier(estimator):
        return estimator.predict
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba
    if isinstance(last, VotingClassifier):
        return lambda rows: _vote_shares(estimator, rows)
    if predicts_largest_decision(estimator):
        return lambda rows: _normalized(estimator.decision_function(rows))
    return lambda rows: np.equal.outer(estimator.predict(rows), estimator.classes_)


def predicts_largest_decision(estimator: Any) -> bool:
    """Return whether a classifier predicts the class with the largest decision, or with two classes by its sign."""
    last = last_step(estimator)
    if isinstance(last, SVC | NuSVC):
        return len(last.classes_) == 2 or (last.break_ties and last.decision_function_shape == "ovr")
    return isinstance(last, LinearClassifierMixin | OneVsRestClassifier) and hasattr(estimator, "decision_function")


def _normalized(decisions: np.ndarray) -> FloatMatrix:
    """Return numbers that rank like the decisions and add up to 1: the logistic function for two classes, else softmax."""
    if decisions.ndim == 2:
        return np.asarray(softmax(decisions))
    second = expit(decisions)
    return np.column_stack([1.0 - second, second])


def _vote_shares(estimator: Any, rows: Any) -> FloatMatrix:
    """Return the share of the votes for each class, of a hard vote at the end of a pipeline."""
    for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else ():
        rows = rows if isinstance(step, str) else step.transform(rows)
    vote = last_step(estimator)
    weights = np.ones(len(vote.estimators_)) if vote.weights is None else np.array(vote._weights_not_none, dtype=float)
    ballots = np.eye(len(vote.classes_))[vote._predict(rows)]
    return np.einsum("rvc,v->rc", ballots, weights) / weights.sum()


def score_warnings(estimator: Any) -> list[str]:
    """Say what the scores of a classifier without probabilities are."""
    if not is_classifier(estimator) or hasattr(estimator, "predict_proba"):
        return []
    last = last_step(estimator)
    if isinstance(last, VotingClassifier):
        return ["hard voting has no probabilities: the scores are the shares of the votes"]
    remedy = "for probabilities, wrap the estimator in CalibratedClassifierCV and fit again"
    kind = type(last).__name__
    if predicts_largest_decision(estimator):
        return [f"{kind} has no probabilities: the scores rank like its decision function, but are not calibrated; {remedy}"]
    return [f"{kind} has no probabilities: the score of the predicted class is 1, and that of the others 0; {remedy}"]

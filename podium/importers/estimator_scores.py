"""The scores of a fitted estimator of scikit-learn, computed by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.pipeline import Pipeline

from podium.importers.errors import ImportRefused
from podium.importers.text_vectorizers import takes_one_text
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

MAX_ROWS = 10_000


def last_step(estimator: Any) -> Any:
    """Return the estimator, or the last one of a pipeline."""
    return last_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def scores_rows(estimator: Any) -> bool:
    """Return whether the model is an outlier detector, which returns a score, or k-means, whose classes are the clusters."""
    return is_outlier_detector(last_step(estimator)) or isinstance(last_step(estimator), _BaseKMeans)


def best_estimator(estimator: Any) -> Any:
    """Return the best model of a parameter search, or the estimator itself."""
    return getattr(estimator, "best_estimator_", estimator)


def class_labels(estimator: Any) -> Sequence[object] | None:
    """Return the classes of a classifier, or the clusters of k-means. Raises ImportRefused if there are no probabilities."""
    last = last_step(estimator)
    if isinstance(last, _BaseKMeans):
        return list(range(len(last.cluster_centers_)))
    if not is_classifier(estimator):
        return None
    if not hasattr(estimator, "predict_proba"):
        raise ImportRefused(
            f"{type(last).__name__} has no probabilities: wrap the estimator in CalibratedClassifierCV and fit again"
        )
    labels = estimator.classes_
    if isinstance(labels, list):
        raise ImportRefused("the model predicts several targets: fit one model per target")
    return list(labels)


def score_function(estimator: Any, columns: Sequence[Column]) -> Callable[[pd.DataFrame], FloatMatrix]:
    """Return a function that scores a frame of `columns`: probabilities, a number, or the score of an outlier detector.

    Missing texts are NaN, as pandas reads them, except for an estimator that was fitted with None.
    """
    texts = [column.name for column in columns if column.is_text]
    is_named, is_text = hasattr(estimator, "feature_names_in_") or bool(texts), takes_one_text(estimator)
    predict, missing = _method(estimator), None if any(map(_knows_none, _parts(estimator))) else np.nan
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
    return estimator.predict_proba if is_classifier(estimator) else estimator.predict

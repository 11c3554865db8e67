"""Estimators in place of those of LightGBM, XGBoost and CatBoost in a pickle: the model within is read as data.

They have the methods of a scikit-learn estimator, so that they may be the last step of a pipeline or a part of an ensemble.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import lightgbm
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from podium.importers.catboost import CATEGORY_REMEDY, CatBoostModel, read_catboost
from podium.importers.errors import ImportRefused
from podium.importers.lightgbm_text import LightGBMText, check_text, first_iterations
from podium.importers.tree_model import LINKS, TreeModel
from podium.importers.xgboost import XGBoostModel, read_xgboost
from podium.schema.arrays import FloatMatrix

MODEL_BYTES = "__model"
"""The attribute in which CatBoost's estimators pickle their model."""


class PickledBooster:
    """The state of a booster: its model as text or bytes."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def content(self) -> Any:
        """The model: a text of LightGBM, or bytes of XGBoost or CatBoost."""
        return self.state.get("_handle", self.state.get("handle"))


class BoosterEstimator(ABC, BaseEstimator):  # type: ignore[misc]
    """A fitted booster; subclasses read the model and predict."""

    n_features_in_: int
    package_name: ClassVar[str]
    text_columns: dict[int, tuple[str, ...]] = {}
    """The categories of each text column, in the order of their codes."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, rows: Any, target: Any) -> None:
        """Refuse, because only the fitted model is known. scikit-learn checks that estimators have this method."""
        raise TypeError("a booster read from a file cannot be fitted again")

    @abstractmethod
    def _read(self, booster: PickledBooster, state: dict[str, Any]) -> None:
        """Take the model from a pickled estimator."""

    def __setstate__(self, state: Any) -> None:
        booster = state.get("_Booster")
        if isinstance(booster, PickledBooster):  # ensembles also keep estimators that are not fitted
            self._read(booster, state)

    @abstractmethod
    def scores(self, rows: Any) -> FloatMatrix:
        """Return (n, classes) probabilities or (n, 1) values."""

    def predict(self, rows: Any) -> Any:
        scores = self.scores(rows)
        classes = getattr(self, "classes_", None)
        return scores.ravel() if classes is None else np.asarray(classes)[scores.argmax(axis=1)]

    @abstractmethod
    def tree_model(self) -> TreeModel | None:
        """Return the trees, or None for a linear model. Raises ValueError for trees that have no such form."""


class XGBoostEstimator(BoosterEstimator):
    """An XGBoost model, which is evaluated from its own arrays."""

    package_name = "XGBoost"
    model: XGBoostModel

    def _read(self, booster: PickledBooster, state: dict[str, Any]) -> None:
        missing = state.get("missing")
        self.use(read_xgboost(pickled_bytes(booster), float("nan") if missing is None else float(missing), True))
        classes = state.get("classes_")
        if classes is not None and isinstance(self, ClassifierMixin):
            self.classes_ = np.asarray(classes)

    def use(self, model: XGBoostModel) -> XGBoostEstimator:
        """Predict with this model."""
        self.model, self.n_features_in_ = model, model.features
        if model.names:
            self.feature_names_in_ = np.array(model.names, dtype=object)
        self.text_columns = {index: column.categories for index, column in enumerate(model.columns) if column.is_text}
        if isinstance(self, ClassifierMixin):
            self.classes_ = np.arange(max(2, model.outputs))
        return self

    def tree_model(self) -> TreeModel | None:
        return None if self.model.is_linear else self.model.trees

    def scores(self, rows: Any) -> FloatMatrix:
        matrix = _codes(rows, self.text_columns)
        if self.model.is_linear:
            sums = np.asarray(matrix, dtype=np.float32).astype(float) @ self.model.weights.T + self.model.bias
            return LINKS[self.model.link](sums)
        return self.model.trees.scores(matrix)


def _codes(rows: Any, categories: dict[int, tuple[str, ...]]) -> Any:
    """Replace texts by their codes. Raises ValueError for an unknown category, as XGBoost does."""
    if not categories:
        return rows
    frame = pd.DataFrame(rows).copy()
    for index, texts in categories.items():
        cells = frame.iloc[:, index]
        codes = cells.map({text: float(code) for code, text in enumerate(texts)})
        if (codes.isna() & cells.notna()).any():
            raise ValueError("an unknown category")
        frame[frame.columns[index]] = codes.astype(float)
    return frame.to_numpy(dtype=float)


class LightGBMEstimator(BoosterEstimator):
    """A LightGBM model, which LightGBM itself evaluates from its checked text."""

    package_name = "LightGBM"
    text: LightGBMText

    def _read(self, booster: PickledBooster, state: dict[str, Any]) -> None:
        self.text = pickled_text(booster)
        self.n_features_in_ = self.text.features
        if isinstance(self, ClassifierMixin):
            labels = state.get("_classes")
            self.classes_ = np.arange(max(2, self.text.outputs)) if labels is None else np.asarray(labels)

    def tree_model(self) -> TreeModel | None:
        return self.text.tree_model()

    def scores(self, rows: Any) -> FloatMatrix:
        booster = lightgbm.Booster(model_str=self.text.text)
        matrix = np.asarray(rows, dtype=float)
        scores = np.asarray(booster.predict(matrix, num_threads=1)).reshape(len(matrix), -1)
        is_binary = isinstance(self, ClassifierMixin) and scores.shape[1] == 1
        return np.hstack([1.0 - scores, scores]) if is_binary else scores


def pickled_text(booster: PickledBooster) -> LightGBMText:
    """Return the text of a pickled booster up to its best iteration. Raises ImportRefused."""
    text = booster.content()
    if not isinstance(text, str):
        raise ImportRefused("the pickle holds a booster without a model: save it again with Booster.save_model")
    return check_text(first_iterations(text, int(booster.state.get("best_iteration") or 0)))


def pickled_bytes(booster: PickledBooster) -> bytes:
    """Return the bytes of a pickled booster of XGBoost or CatBoost. Raises ImportRefused."""
    content = booster.content()
    if not isinstance(content, bytes | bytearray):
        raise ImportRefused("the pickle holds a booster without a model: save it again with save_model")
    return bytes(content)


class CatBoostEstimator(BoosterEstimator):
    """A CatBoost model, which is evaluated from its own arrays."""

    package_name = "CatBoost"
    model: CatBoostModel

    def __setstate__(self, state: Any) -> None:
        booster = PickledBooster()
        booster.state = {"handle": state.get(MODEL_BYTES)}
        if booster.content() is not None:
            self._read(booster, state)

    def _read(self, booster: PickledBooster, state: dict[str, Any]) -> None:
        self.use(read_catboost(pickled_bytes(booster)))

    def use(self, content: Mapping[str, Any]) -> CatBoostEstimator:
        """Predict with this model."""
        self.content, self.model = content, CatBoostModel(content)
        self.n_features_in_ = self.model.features
        if self.model.names:
            self.feature_names_in_ = np.array(self.model.names, dtype=object)
        if isinstance(self, ClassifierMixin):
            self.classes_ = np.array(self.model.classes or [0, 1])
        return self

    def learn_categories(self, names: Sequence[str], texts: Callable[[str], Sequence[str]]) -> None:
        """Take the texts of categories from the columns of a sample; a file may hold only hashes. Raises ImportRefused."""
        self.model = CatBoostModel(self.content, names, texts)
        self.text_columns = self.model.text_columns
        if hidden := [self.model.column_names[column] for column, known in self.text_columns.items() if not known]:
            raise ImportRefused(f"the file has no texts of the categories of {', '.join(hidden)[:200]}: {CATEGORY_REMEDY}")

    def tree_model(self) -> TreeModel:
        return self.model.tree_model()

    def scores(self, rows: Any) -> FloatMatrix:
        return self.model.scores(rows)


class _Classifier(ClassifierMixin):  # type: ignore[misc]
    def predict_proba(self, rows: Any) -> FloatMatrix:
        scores: FloatMatrix = self.scores(rows)
        return scores


class XGBoostClassifier(_Classifier, XGBoostEstimator):
    pass


class XGBoostRegressor(RegressorMixin, XGBoostEstimator):  # type: ignore[misc]
    pass


class LightGBMClassifier(_Classifier, LightGBMEstimator):
    pass


class LightGBMRegressor(RegressorMixin, LightGBMEstimator):  # type: ignore[misc]
    pass


class CatBoostClassifier(_Classifier, CatBoostEstimator):
    pass


class CatBoostRegressor(RegressorMixin, CatBoostEstimator):  # type: ignore[misc]
    pass


def catboost_estimator(content: Mapping[str, Any]) -> CatBoostEstimator:
    """Return an estimator for the content of a file, whose loss decides its kind."""
    is_classifier = CatBoostModel(content).classes is not None
    return (CatBoostClassifier() if is_classifier else CatBoostRegressor()).use(content)


def xgboost_estimator(data: bytes) -> XGBoostEstimator:
    """Read a file of `save_model`. Raises ImportRefused."""
    model = read_xgboost(data)
    estimator = XGBoostClassifier() if model.link in ("logistic", "softmax") else XGBoostRegressor()
    return estimator.use(model)


BOOSTER_STAND_INS = {
    ("catboost.core", "CatBoost"): CatBoostEstimator,
    ("catboost.core", "CatBoostClassifier"): CatBoostClassifier,
    ("catboost.core", "CatBoostRegressor"): CatBoostRegressor,
    ("catboost.core", "CatBoostRanker"): CatBoostRegressor,
    ("lightgbm.basic", "Booster"): PickledBooster,
    ("lightgbm.sklearn", "LGBMClassifier"): LightGBMClassifier,
    ("lightgbm.sklearn", "LGBMRegressor"): LightGBMRegressor,
    ("lightgbm.sklearn", "LGBMRanker"): LightGBMRegressor,
    ("xgboost.core", "Booster"): PickledBooster,
    ("xgboost.sklearn", "XGBClassifier"): XGBoostClassifier,
    ("xgboost.sklearn", "XGBRegressor"): XGBoostRegressor,
    ("xgboost.sklearn", "XGBRanker"): XGBoostRegressor,
    ("xgboost.sklearn", "XGBRFClassifier"): XGBoostClassifier,
    ("xgboost.sklearn", "XGBRFRegressor"): XGBoostRegressor,
}

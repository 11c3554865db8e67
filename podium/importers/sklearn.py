"""scikit-learn's estimators, and LightGBM's wrappers of its boosters: constructed from the allow-list, then translated.

Forests become LightGBM's text form, which gives scikit-learn's own bits; all else goes through skl2onnx, in 64 bits where its
operators allow, and in 32 bits otherwise. Whether the translation is right is not believed but compared.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from lightgbm.sklearn import LGBMModel
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import (
    DOUBLE,
    SINGLE,
    ImportedModel,
    Translation,
    check_count,
    numbered,
    plain_encoder,
    target_of,
)
from podium.importers.lightgbm import booster_model, checked
from podium.importers.sklearn_preprocessing import UnsupportedStep, preprocessing, selected_columns
from podium.importers.unpickling import Shell
from podium.models.encoder import Encoder
from podium.models.features import CLIP, Standardized
from podium.models.lightgbm_export import boosted_trees, forest_trees, gradient_trees
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

FORESTS = (ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor)
TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
BOOSTINGS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
GRADIENT = (GradientBoostingClassifier, GradientBoostingRegressor)
OPSETS = {"": 18, "ai.onnx.ml": 3}


def read_estimator(estimator: Any, target: str, classes: tuple[str, ...], names: list[str] | None) -> ImportedModel:
    """A fitted estimator; `names` are those of a sample, for a model that was fitted without. Raises Refusal."""
    estimator = getattr(estimator, "best_estimator_", estimator)  # of a search
    if isinstance(estimator, LGBMModel):
        return booster_model(estimator.booster_.model_to_string(), target, classes, getattr(estimator, "classes_", None))
    if not isinstance(estimator, BaseEstimator) or not (is_classifier(estimator) or is_regressor(estimator)):
        raise ImportRefused(f"{type(estimator).__name__} is neither a classifier nor a regressor")
    labels = _labels(estimator)
    columns = _columns(estimator, names)
    named = hasattr(estimator, "feature_names_in_") or any(column.is_text for column in columns)
    original = _original(estimator, labels is not None, named)
    encoder, goal = plain_encoder(columns), target_of(target, labels, classes)
    return ImportedModel("scikit-learn", encoder, _translations(estimator, columns, labels is not None), goal, original)


def check_release(shell: Any) -> None:
    """Whether a pickle is of this release of scikit-learn, before anything of it is made. Raises Refusal."""
    saved, here = str(shell.get("_sklearn_version", "")) if isinstance(shell, Shell) else "", sklearn.__version__
    if saved and saved.split(".")[:2] != here.split(".")[:2]:
        raise ImportRefused(
            f"the model was saved by scikit-learn {saved}, here is {here}: what it would answer is not known. Save it "
            f"with {here}, export it to ONNX, or say --other-release and give a --sample that holds the answers it should give"
        )


def _labels(estimator: Any) -> Sequence[object] | None:
    """Raises Refusal for classifiers without probabilities."""
    if not is_classifier(estimator):
        return None
    if not hasattr(estimator, "predict_proba"):
        last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
        raise ImportRefused(
            f"{type(last).__name__} gives no probabilities: wrap it in CalibratedClassifierCV, which does, and fit again"
        )
    labels = estimator.classes_
    if isinstance(labels, list):
        raise ImportRefused("the model predicts several targets at once; one is served")
    return list(labels)


def _original(estimator: Any, of_classes: bool, named: bool) -> Callable[[pd.DataFrame], FloatMatrix]:
    def scores(frame: pd.DataFrame) -> FloatMatrix:
        rows = frame if named else frame.to_numpy(dtype=float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = estimator.predict_proba(rows) if of_classes else estimator.predict(rows)
        return np.asarray(found, dtype=float).reshape(len(frame), -1)

    return scores


# --- columns -----------------------------------------------------------------------------------------------------------


def _columns(estimator: Any, names: list[str] | None) -> list[Column]:
    """Names from the fit, else from the sample; categories from the encoders. Raises Refusal."""
    count = int(estimator.n_features_in_)
    own = [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    if names and not own:
        check_count(count, names)
    columns = [Column(name, "number") for name in own or names or numbered(count)]
    for place, levels in _categories(estimator, range(count), own):
        columns[place] = Column(columns[place].name, "category", categories=tuple(sorted(levels)))
    return columns


def _categories(step: Any, places: Sequence[int], names: Sequence[str]) -> Iterator[tuple[int, set[str]]]:
    """Columns of text and their categories, from the encoders of a pipeline."""
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            yield from _categories(part, places, names)
            if hasattr(part, "transformers_") or hasattr(part, "categories_"):
                return  # what follows sees other columns
    elif hasattr(step, "transformers_"):
        for _, part, chosen in step.transformers_:
            if not isinstance(part, str):
                yield from _categories(part, selected_columns(chosen, places, names), names)
    elif hasattr(step, "categories_"):
        for place, levels in zip(places, step.categories_, strict=True):
            if np.asarray(levels).dtype.kind in "OU":
                yield place, {level for level in levels if isinstance(level, str)}


# --- translation -------------------------------------------------------------------------------------------------------


def _translations(estimator: Any, columns: list[Column], of_classes: bool) -> Iterator[Translation]:
    """Encoders and scorers that should be equal to the original, the exact ones first. Raises Refusal when there is none."""
    before, last = (estimator.steps[:-1], estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else ([], estimator)
    with contextlib.suppress(UnsupportedStep, ValueError, KeyError, AttributeError):
        if isinstance(last, TREES + FORESTS + GRADIENT + BOOSTINGS):
            encoder = preprocessing([step for _, step in before], columns)
            trees = checked(_trees(last, len(encoder.features)))
            if not _splits_far_out(trees, encoder):
                yield encoder, trees, DOUBLE
    encoder, found = plain_encoder(columns), False
    for tensor, kind, close in ((DoubleTensorType, "float64", DOUBLE), (FloatTensorType, "float32", SINGLE)):
        for apart in (False, True):
            with contextlib.suppress(Exception):  # skl2onnx and onnxruntime raise nearly anything for what they do not know
                yield encoder, _graph(estimator, columns, of_classes, tensor, kind, apart), close
                found = True
    if not found:
        steps = " → ".join(type(step).__name__ for step in [*(step for _, step in before), last])
        raise ImportRefused(
            f"no translation of {steps} is known. Forests, trees and boosting translate after StandardScaler, SimpleImputer, "
            "OneHotEncoder and OrdinalEncoder, with or without a ColumnTransformer; other models where skl2onnx knows them"
        )


def _splits_far_out(trees: LightGBMScorer, encoder: Encoder) -> bool:
    """Whether a split lies where the encoder's numbers are cut off."""
    splits = " ".join(re.findall(r"^threshold=(.*)$", trees.text, re.MULTILINE)).split()
    return any(isinstance(feature, Standardized) for feature in encoder.features) and any(
        abs(float(at)) >= CLIP for at in splits
    )


def _trees(model: Any, features: int) -> LightGBMScorer:
    """Raises ValueError, KeyError."""
    if getattr(model, "n_outputs_", 1) != 1:
        raise ValueError("several targets")
    if isinstance(model, BOOSTINGS):
        return boosted_trees(model, features)
    if isinstance(model, GRADIENT):
        return gradient_trees(model, features)
    return forest_trees(model if isinstance(model, FORESTS) else _Single(model), features)


class _Single:
    """One tree in the form of a forest."""

    def __init__(self, tree: Any) -> None:
        self.estimators_ = [tree]
        if is_classifier(tree):
            self.n_classes_ = tree.n_classes_


def _graph(estimator: Any, columns: list[Column], of_classes: bool, tensor: Any, kind: str, apart: bool) -> OnnxScorer:
    """One input tensor, or an input a column, as text needs it and a ColumnTransformer by names. Raises nearly anything."""
    texts = any(column.is_text for column in columns)
    if texts and not apart:
        raise ValueError("text needs an input a column")
    types: list[tuple[str, Any]] = [("x", tensor([None, len(columns)]))]
    feeds: tuple[OnnxInput, ...] = (OnnxInput("x", kind, 0, (len(columns),)),)
    if apart:
        types = [(c.name, StringTensorType([None, 1]) if c.is_text else tensor([None, 1])) for c in columns]
        kinds = ["text" if column.is_text else kind for column in columns]
        feeds = tuple(
            OnnxInput(column.name, own, place, (1,), column.categories)
            for place, (column, own) in enumerate(zip(columns, kinds, strict=True))
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {id(estimator): {"zipmap": False}} if of_classes else None
        model = convert_sklearn(estimator, initial_types=types, options=options, target_opset=OPSETS)
    return OnnxScorer(model.SerializeToString(), feeds, model.graph.output[1 if of_classes else 0].name, len(columns))

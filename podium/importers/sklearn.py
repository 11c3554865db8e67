"""scikit-learn estimators and LightGBM's wrappers: constructed from the allow-list, then converted.

Forests become LightGBM text models, which reproduce scikit-learn's scores exactly. Other estimators are converted by
skl2onnx, in float64 where its operators support it, else in float32. Every conversion is compared with the original.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
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
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from sklearn.utils.validation import check_is_fitted

from podium.importers.booster_stand_ins import (
    BoosterEstimator,
    CatBoostEstimator,
    LightGBMEstimator,
    PickledBooster,
    XGBoostEstimator,
    catboost_estimator,
    pickled_bytes,
    pickled_text,
    xgboost_estimator,
)
from podium.importers.catboost import no_texts
from podium.importers.errors import ImportRefused
from podium.importers.estimator_scores import (
    best_estimator,
    class_labels,
    last_step,
    score_function,
    score_warnings,
    scores_rows,
    threshold_decision,
)
from podium.importers.imported_model import (
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    Conversion,
    ImportedModel,
    check_column_count,
    numbered_names,
    plain_encoder,
    target_of,
)
from podium.importers.lightgbm import booster_model
from podium.importers.lightgbm_text import LightGBMText
from podium.importers.old_names import CHANGED_SINCE, VERIFIED, release
from podium.importers.several_targets import has_several_targets, of_one_target
from podium.importers.sklearn_graph import served_scores
from podium.importers.sklearn_graph_columns import Columns, Unsupported
from podium.importers.sklearn_preprocessing import UnsupportedStep, preprocessing, selected_columns
from podium.importers.text_vectorizers import takes_one_text, text_columns
from podium.importers.unpickling import InertObject
from podium.models.encoder import Encoder
from podium.models.features import CLIP, Standardized
from podium.models.lightgbm_export import boosted_trees, forest_trees, gradient_trees
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.models.runner_scorer import RunnerScorer
from podium.models.scorers import LightGBMScorer
from podium.models.tree_checks import check_trees
from podium.schema.columns import Column

FORESTS = (ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor)
TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
HISTOGRAM_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
GRADIENT_BOOSTING = (GradientBoostingClassifier, GradientBoostingRegressor)
OPSETS = {"": 18, "ai.onnx.ml": 3}
OLDEST_RELEASE = (0, 19)
UNFITTED = "the pickle holds a model that is not fitted: fit it before saving"
SEVERAL_REMEDY = (
    "save the fitted model alone with joblib.dump, and pass transformers in files of their own with --preprocessing"
)


def read_estimator(
    estimator: Any,
    target: str,
    class_names: tuple[str, ...],
    names: list[str] | None,
    texts: Callable[[str], Sequence[str]] = no_texts,
    file: bytes | None = None,
    output: int | None = None,
) -> ImportedModel:
    """Read a fitted estimator. Raises ImportRefused.

    `names` are the columns of a sample, for a model fitted without names, and `texts` returns the texts in one of them. `file`
    is the pickle, which is served by scikit-learn if the estimator cannot be converted. `output` is the number of the target
    to read, of an estimator with several.
    """
    decision = threshold_decision(estimator)
    estimator = best_estimator(estimator)
    if isinstance(estimator, PickledBooster):
        estimator = _booster(estimator)
    if type(estimator) is CatBoostEstimator and hasattr(estimator, "n_features_in_"):
        estimator = catboost_estimator(estimator.content)
    last = last_step(estimator)
    if isinstance(last, BoosterEstimator) and not hasattr(last, "n_features_in_"):
        raise ImportRefused(UNFITTED)
    if isinstance(estimator, LightGBMText | LightGBMEstimator):
        text = estimator if isinstance(estimator, LightGBMText) else estimator.text
        return booster_model(text.text, target, class_names, getattr(estimator, "classes_", None))
    if not isinstance(estimator, BaseEstimator) or not (
        is_classifier(estimator) or is_regressor(estimator) or scores_rows(estimator)
    ):
        if isinstance(estimator, Mapping | Sequence):
            raise ImportRefused(f"the file holds a {type(estimator).__name__} of several objects: {SEVERAL_REMEDY}")
        raise ImportRefused(
            f"{type(estimator).__name__} is neither a classifier nor a regressor: pickle the fitted estimator or pipeline"
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise ImportRefused(UNFITTED) from None
    if isinstance(last, CatBoostEstimator):
        last.learn_categories(names or [], texts)
    original = estimator
    if has_several_targets(estimator, output):
        estimator, file = of_one_target(estimator, output or 0), None  # a runner returns all targets
    labels = class_labels(estimator)
    columns = _columns(estimator, names)
    runner = RunnerScorer(file, tuple(columns), len(labels) if labels else 1) if file else None
    conversions = _conversions(estimator, columns, labels is not None, runner)
    kind = estimator.package_name if isinstance(estimator, BoosterEstimator) else "scikit-learn"
    reference = f"scikit-learn {sklearn.__version__}"
    if isinstance(last, XGBoostEstimator | CatBoostEstimator):
        reference = f"Podium's own evaluation of {last.package_name}'s trees"
    return ImportedModel(
        kind,
        plain_encoder(columns),
        conversions,
        replace(target_of(target, labels, class_names), decision=decision),
        score_function(original, columns, output),
        reference,
        is_named=bool(names) or hasattr(estimator, "feature_names_in_"),
        sums_to_one=not isinstance(last, CatBoostEstimator) or last.model.link != "logistic each",
        warnings=(*(last.model.warnings if isinstance(last, CatBoostEstimator) else ()), *score_warnings(estimator)),
    )


def _booster(booster: PickledBooster) -> LightGBMText | XGBoostEstimator:
    """Read a pickled booster, whose state is a text of LightGBM or bytes of XGBoost. Raises ImportRefused."""
    is_text = isinstance(booster.content(), str)
    return pickled_text(booster) if is_text else xgboost_estimator(pickled_bytes(booster))


def check_release(content: Any) -> None:
    """Require the installed release, or an older one for estimators whose older states are known. Raises ImportRefused."""
    installed = release(sklearn.__version__)
    for kind, version in _saved_versions(content, set()):
        is_known = kind in VERIFIED and CHANGED_SINCE.get(kind, OLDEST_RELEASE) <= release(version) <= installed
        if release(version) != installed and not is_known:
            raise ImportRefused(
                f"{kind} was saved by scikit-learn {version}, but {sklearn.__version__} is installed, so its predictions may "
                "differ. Pass --other-release and a --sample that contains the target, and check the score"
            )


def _saved_versions(value: Any, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield each estimator's class and the release that saved it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[Any] = ()
    if isinstance(value, InertObject):
        if version := value.get("_sklearn_version"):
            yield value.kind, str(version)
        parts = [value.state]
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        parts = value.flat if isinstance(value, np.ndarray) else value
    for part in parts:
        yield from _saved_versions(part, seen)


def _columns(estimator: Any, names: list[str] | None) -> list[Column]:
    """The columns, with names from the fit or else the sample, and categories from the encoders. Raises ImportRefused."""
    is_text = takes_one_text(estimator)
    count = 1 if is_text else int(estimator.n_features_in_)
    fitted_names = [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    if names and not fitted_names:
        check_column_count(count, names)
    columns = [Column(name, "number") for name in fitted_names or names or numbered_names(count)]
    for index, categories in _categories(estimator, range(count), fitted_names):
        columns[index] = Column(columns[index].name, "category", categories=tuple(sorted(categories)))
    for selected in (0,) if is_text else text_columns(estimator):
        index = fitted_names.index(selected) if isinstance(selected, str) else int(selected)
        columns[index] = Column(columns[index].name, "text")
    used = _selected_names(estimator)
    return columns if used is None else [column for column in columns if column.name in used]


def _selected_names(estimator: Any) -> set[str] | None:
    """The columns of the fit that the first step of a pipeline selects; None if it takes all.

    Selections become names, since positions would count the columns that are not selected.
    """
    first = estimator.steps[0][1] if isinstance(estimator, Pipeline) else None
    if not isinstance(first, ColumnTransformer) or not hasattr(first, "feature_names_in_"):
        return None
    names = [str(name) for name in first.feature_names_in_]
    kept = [entry for entry in first.transformers_ if not (isinstance(entry[1], str) and entry[1] == "drop")]
    first.transformers_ = [
        (name, part, _selected(names, selection, is_text=takes_one_text(part))) for name, part, selection in kept
    ]
    return {name for _, _, selected in first.transformers_ for name in ([selected] if isinstance(selected, str) else selected)}


def _selected(names: list[str], selection: Any, *, is_text: bool) -> str | list[str]:
    """Return the names of selected columns; of the only one for a vectorizer, which takes no table."""
    selected = [names[index] for index in selected_columns(selection, range(len(names)), names)]
    return selected[0] if is_text else selected


def _categories(step: Any, indices: Sequence[int], names: Sequence[str]) -> Iterator[tuple[int, set[str]]]:
    """The text columns and their categories, from the encoders of a pipeline."""
    if isinstance(step, BoosterEstimator):
        yield from ((indices[index], set(texts)) for index, texts in step.text_columns.items())
    elif getattr(step, "_preprocessor", None) is not None:
        yield from _categories(step._preprocessor, indices, names)
    elif isinstance(step, Pipeline):
        for _, part in step.steps:
            yield from _categories(part, indices, names)
            if hasattr(part, "transformers_") or hasattr(part, "categories_"):
                return  # later steps read transformed columns
    elif hasattr(step, "transformers_"):
        for _, part, selection in step.transformers_:
            if not isinstance(part, str):
                yield from _categories(part, selected_columns(selection, indices, names), names)
    elif hasattr(step, "categories_"):
        for index, categories in zip(indices, step.categories_, strict=True):
            if np.asarray(categories).dtype.kind in "OU":
                yield index, {category for category in categories if isinstance(category, str)}


def _conversions(
    estimator: Any, columns: list[Column], classification: bool, runner: RunnerScorer | None
) -> Iterator[Conversion]:
    """The possible conversions, exact ones first and the runner last. Raises ImportRefused if there is none."""
    if any(column.kind == "text" for column in columns):
        yield _runner_of_texts(columns, runner)
        return
    steps, last = (estimator.steps[:-1], estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else ([], estimator)
    with contextlib.suppress(UnsupportedStep, Unsupported, ValueError, KeyError, AttributeError):
        encoder = preprocessing([step for _, step in steps] + _own_steps(last), columns, _text_codes(last))
        yield from _tree_conversion(last, encoder)
    encoder, converted = plain_encoder(columns), False
    with contextlib.suppress(Unsupported, ValueError, KeyError, AttributeError, TypeError, IndexError):
        scorer = _graph_scorer(estimator, columns)
        yield Conversion(encoder, scorer, FLOAT32_TOLERANCE if isinstance(last, XGBoostEstimator) else FLOAT64_TOLERANCE)
        converted = True
    for tensor_type, kind, tolerance in (
        (DoubleTensorType, "float64", FLOAT64_TOLERANCE),
        (FloatTensorType, "float32", FLOAT32_TOLERANCE),
    ):
        for by_column in (False, True):
            with contextlib.suppress(Exception):  # skl2onnx and onnxruntime may raise any exception for unsupported estimators
                types, inputs = _onnx_inputs(columns, tensor_type, kind, by_column)
                scorer = _onnx_scorer(estimator, types, inputs, len(columns), classification)
                yield Conversion(encoder, scorer, tolerance)
                converted = True
    if runner:
        yield Conversion(encoder, runner, FLOAT64_TOLERANCE)
    elif not converted:
        pipeline = " → ".join(type(step).__name__ for step in [*(step for _, step in steps), last])
        raise ImportRefused(
            f"{pipeline} cannot be converted. docs/how-to/import-a-model.md lists the supported estimators: fit with these. "
            "For a function of your own, compute its result before the model, as a column of the table"
        )


def _runner_of_texts(columns: list[Column], runner: RunnerScorer | None) -> Conversion:
    """Return a runner, in which scikit-learn reads the texts. Raises ImportRefused."""
    if runner is None:
        raise ImportRefused(
            "models that read texts are scored in a sandboxed process, which constructs only what Podium itself allows: import "
            "the file without PODIUM_IMPORT_ALLOWED"
        )
    return Conversion(plain_encoder(columns), runner, FLOAT64_TOLERANCE)


def _own_steps(model: Any) -> list[Any]:
    """The preprocessing within histogram boosting, which encodes its categories."""
    own = getattr(model, "_preprocessor", None)
    return [] if own is None else [own]


def _text_codes(model: Any) -> dict[int, tuple[str, ...]]:
    """The categories that a model itself encodes, by column."""
    return model.text_columns if isinstance(model, BoosterEstimator) else {}


def _tree_conversion(model: Any, encoder: Encoder) -> Iterator[Conversion]:
    """Convert trees to LightGBM's text. Raises ValueError, KeyError."""
    features = len(encoder.features)
    tolerance = FLOAT32_TOLERANCE if isinstance(model, XGBoostEstimator) else FLOAT64_TOLERANCE
    if isinstance(model, LightGBMEstimator):
        binary = model.text.outputs == 1 and is_classifier(model)
        trees = LightGBMScorer(model.text.text, model.text.features, model.text.outputs, binary_probability=binary)
    elif isinstance(model, BoosterEstimator):
        tree_model = model.tree_model()
        if tree_model is None:
            raise ValueError("a linear model")
        trees = tree_model.scorer()
    elif isinstance(model, TREES + FORESTS + GRADIENT_BOOSTING + HISTOGRAM_BOOSTING):
        trees = _trees(model, features)
    else:
        return
    check_trees(trees.text, features, trees.outputs)
    if not _has_clipped_thresholds(trees, encoder):
        yield Conversion(encoder, trees, tolerance)


def _has_clipped_thresholds(trees: LightGBMScorer, encoder: Encoder) -> bool:
    """True if a split threshold is outside the range to which the encoder clips standardized numbers."""
    thresholds = " ".join(re.findall(r"^threshold=(.*)$", trees.text, re.MULTILINE)).split()
    return any(isinstance(feature, Standardized) for feature in encoder.features) and any(
        abs(float(threshold)) >= CLIP for threshold in thresholds
    )


def _trees(model: Any, features: int) -> LightGBMScorer:
    """Convert a tree, a forest or boosted trees. Raises ValueError, KeyError."""
    if getattr(model, "n_outputs_", 1) != 1:
        raise ValueError("several targets")
    if isinstance(model, HISTOGRAM_BOOSTING):
        return boosted_trees(model, features)
    if isinstance(model, GRADIENT_BOOSTING):
        return gradient_trees(model, features)
    return forest_trees(model if isinstance(model, FORESTS) else _ForestOfOne(model), features)


class _ForestOfOne:
    """A single tree with the attributes of a forest."""

    def __init__(self, tree: Any) -> None:
        self.estimators_ = [tree]
        if is_classifier(tree):
            self.n_classes_ = tree.n_classes_


def _graph_scorer(estimator: Any, columns: list[Column]) -> OnnxScorer:
    """Convert with Podium's own operators. Raises Unsupported, or other exceptions for states that are not fitted."""
    output = served_scores(estimator, Columns.of_input(columns))
    return output.graph.scorer(len(columns), output)


OnnxTypes = list[tuple[str, Any]]


def _onnx_inputs(
    columns: list[Column], tensor_type: Any, kind: str, by_column: bool
) -> tuple[OnnxTypes, tuple[OnnxInput, ...]]:
    """One tensor, or one input per column, as required by text and by a ColumnTransformer with names. Raises ValueError."""
    if not by_column:
        if any(column.is_text for column in columns):
            raise ValueError("text needs one input per column")
        types: OnnxTypes = [("x", tensor_type([None, len(columns)]))]
        return types, (OnnxInput("x", kind, 0, (len(columns),)),)
    types = [(c.name, StringTensorType([None, 1]) if c.is_text else tensor_type([None, 1])) for c in columns]
    inputs = tuple(
        OnnxInput(column.name, "text" if column.is_text else kind, index, (1,), column.categories)
        for index, column in enumerate(columns)
    )
    return types, inputs


def _onnx_scorer(
    estimator: Any, types: OnnxTypes, inputs: tuple[OnnxInput, ...], n_features: int, classification: bool
) -> OnnxScorer:
    """Convert with skl2onnx, which may raise any exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {id(estimator): {"zipmap": False}} if classification else None
        model = convert_sklearn(estimator, initial_types=types, options=options, target_opset=OPSETS)
    return OnnxScorer(model.SerializeToString(), inputs, model.graph.output[1 if classification else 0].name, n_features)

"""Read pickles of older releases of scikit-learn: bring the state of its objects into the current form.

The state of a pickled estimator is data: arrays and parameters. It is changed to the form that the installed release expects
before the object gets it. Sources: the release notes of scikit-learn 0.20 to 1.9 and of numpy 2.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from sklearn._loss.loss import (
    AbsoluteError,
    ExponentialLoss,
    HalfBinomialLoss,
    HalfGammaLoss,
    HalfMultinomialLoss,
    HalfPoissonLoss,
    HalfSquaredError,
    HuberLoss,
    PinballLoss,
)
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import _CalibratedClassifier
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import AdaBoostClassifier, IsolationForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.ensemble._iforest import _average_path_length
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors._base import NeighborsBase
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm._base import BaseLibSVM
from sklearn.tree._tree import NODE_DTYPE, Tree
from sklearn.utils.extmath import softmax

from podium.importers.old_names import RemovedObject, release
from podium.importers.sklearn_preprocessing import selected_columns
from podium.importers.tree_model import logistic

State = dict[str, Any]


def upgraded(instance: Any, state: Any) -> Any:
    """Return the state in the form that the installed release expects; other states are returned unchanged."""
    if not isinstance(state, dict):
        return state
    for kind, upgrade in UPGRADES.items():
        if isinstance(instance, kind):
            state = upgrade(instance, dict(state))
    return state


def _tree(tree: Tree, state: State) -> State:
    """Older nodes lack the side of missing values; before 1.3, the leaves of a classifier hold counts, not shares."""
    state["nodes"] = _with_dtype(state["nodes"], NODE_DTYPE)
    values = state["values"]
    totals = values.sum(axis=2, keepdims=True)
    if tree.max_n_classes > 1 and not np.allclose(totals, 1.0):
        state["values"] = np.ascontiguousarray(values / np.where(totals == 0, 1.0, totals))
    return state


def _histogram_tree(_: TreePredictor, state: State) -> State:
    nodes = state["nodes"]
    moved = {"threshold": "num_threshold"}
    state["nodes"] = _with_dtype(nodes, np.dtype(PREDICTOR_RECORD_DTYPE), moved)
    for name in ("binned_left_cat_bitsets", "raw_left_cat_bitsets"):
        state.setdefault(name, np.zeros((0, 8), dtype=np.uint32))
    return state


def _with_dtype(nodes: np.ndarray, dtype: np.dtype, moved: Mapping[str, str] | None = None) -> np.ndarray:
    """Copy the fields to an array of another structured type; fields that did not exist become 0."""
    if nodes.dtype == dtype:
        return nodes
    result = np.zeros(nodes.shape, dtype=dtype)
    for name in nodes.dtype.names or ():
        current = (moved or {}).get(name, name)
        if current in (dtype.names or ()):
            result[current] = nodes[name]
    return result


def _estimator(estimator: BaseEstimator, state: State) -> State:
    """Add parameters with their defaults, and the number of input columns."""
    for old, new in RENAMED_ATTRIBUTES.items():
        if old in state and isinstance(getattr(type(estimator), old, None), property):
            state.setdefault(new, state.pop(old))
    for old, new in RENAMED_PARAMETERS.items():
        if old in state:
            state.setdefault(new, state[old])
    for parameter in inspect.signature(type(estimator).__init__).parameters.values():
        if parameter.default is not parameter.empty:
            state.setdefault(parameter.name, parameter.default)
    names = state.get("_feature_names_in", state.get("_df_columns"))
    if names is not None:
        state.setdefault("feature_names_in_", np.asarray(names, dtype=object))
    count = _column_count(state)
    if count is not None and not isinstance(getattr(type(estimator), "n_features_in_", None), property):
        state.setdefault("n_features_in_", count)
    return state


RENAMED_ATTRIBUTES = {
    "probA_": "_probA",
    "probB_": "_probB",
    "n_support_": "_n_support",
    "n_features_": "n_features_in_",
}
"""Attributes that became properties, with the attributes that they read."""

RENAMED_PARAMETERS = {
    "base_estimator": "estimator",
    "base_estimator_": "estimator_",
    "sigma_": "var_",
    "sparse": "sparse_output",
    "probA_": "_probA",
    "probB_": "_probB",
    "_le": "_label_encoder",
}
"""Parameters and attributes with another name now."""


def _column_count(state: State) -> int | None:
    """Return the number of input columns, from the shapes of fitted arrays or from the parts."""
    for name in ("n_features_", "_n_features", "n_features"):
        if isinstance(state.get(name), int | np.integer):
            return int(state[name])
    if isinstance(state.get("shape_fit_"), tuple):
        return int(state["shape_fit_"][1])
    for name in ("coef_", "means_", "theta_", "_fit_X", "mean_", "scale_", "statistics_", "data_min_", "components_"):
        if isinstance(state.get(name), np.ndarray) and state[name].ndim:
            return int(state[name].shape[-1])
    coefficients = state.get("coefs_")
    if coefficients:
        return int(coefficients[0].shape[0])
    parts = [part for name in ("estimators_", "calibrated_classifiers_") for part in _items(state.get(name, ()))]
    counts = (getattr(getattr(part, "estimator", part), "n_features_in_", None) for part in parts)
    return next((int(count) for count in counts if count is not None), None)


def _items(value: Any) -> Iterable[Any]:
    return value.flat if isinstance(value, np.ndarray) else value


def _gradient_boosting(model: Any, state: State) -> State:
    """Build the loss from the parameters, and the constant initial prediction from its estimator."""
    if "init_" not in state:
        return state
    classes = state.get("n_classes_", 1)
    state["_loss"] = _loss(state, classes, isinstance(model, ClassifierMixin))
    state.setdefault("n_trees_per_iteration_", classes if isinstance(model, ClassifierMixin) and classes > 2 else 1)
    if isinstance(state["init_"], RemovedObject):
        state["init_"] = _initial_estimator(state["init_"], state)
    return state


def _histogram_boosting(model: Any, state: State) -> State:
    if "_predictors" not in state:
        return state
    classes = len(state["classes_"]) if isinstance(model, ClassifierMixin) else 1
    state["_loss"] = _loss(state, classes, isinstance(model, ClassifierMixin))
    for name in ("is_categorical_", "_preprocessor"):
        state.setdefault(name, None)
    state["_baseline_prediction"] = np.asarray(state["_baseline_prediction"], dtype=float).reshape(1, -1)
    state["_bin_mapper"] = state.get("_bin_mapper", state.get("bin_mapper_"))
    state.setdefault("_n_features", getattr(state["_bin_mapper"], "n_features_in_", state.get("n_features_in_")))
    state["_in_fit"] = False
    return state


def _loss(state: State, classes: int, is_classification: bool) -> Any:
    """Return the loss for the parameters of a boosting model. Raises KeyError."""
    name = str(state["loss"])
    if is_classification and name == "exponential":
        return ExponentialLoss()
    if is_classification:
        return HalfMultinomialLoss(n_classes=classes) if classes > 2 else HalfBinomialLoss()
    quantile = state.get("quantile")
    return LOSSES[name](state.get("alpha", 0.9) if quantile is None else quantile)


LOSSES: dict[str, Callable[[float], Any]] = {
    **dict.fromkeys(("ls", "least_squares", "squared_error"), lambda _: HalfSquaredError()),
    **dict.fromkeys(("lad", "least_absolute_deviation", "absolute_error"), lambda _: AbsoluteError()),
    "huber": lambda _: HuberLoss(),
    "quantile": lambda quantile: PinballLoss(quantile=quantile),
    "poisson": lambda _: HalfPoissonLoss(),
    "gamma": lambda _: HalfGammaLoss(),
}
"""Losses of regression by all their names; their parameters do not change predictions."""


def _initial_estimator(initial: RemovedObject, state: State) -> Any:
    """Return a dummy estimator with the same raw prediction as an estimator of scikit-learn 0.19 or 0.20."""
    kind = type(initial).__name__
    fields = initial.__dict__
    if kind == "ZeroEstimator":
        return "zero"
    if kind in ("MeanEstimator", "QuantileEstimator"):
        constant = float(fields["mean" if kind == "MeanEstimator" else "quantile"])
        return _with_state(DummyRegressor(), constant_=np.array([[constant]]), n_outputs_=1)
    if kind == "PriorProbabilityEstimator":  # its raw prediction is the share, without a logarithm
        shares = softmax(np.asarray(fields["priors"], dtype=float)[None])[0]
    else:
        share = float(logistic((2.0 if kind == "ScaledLogOddsEstimator" else 1.0) * fields["prior"]))
        shares = np.array([1.0 - share, share])
    return _with_state(
        DummyClassifier(),
        classes_=state["classes_"],
        n_classes_=len(shares),
        class_prior_=shares,
        n_outputs_=1,
        _strategy="prior",
    )


def _with_state(estimator: Any, **state: Any) -> Any:
    estimator.__dict__.update(state)
    return estimator


class OneVsRestLogistic(LogisticRegression):  # type: ignore[misc]
    """Logistic regression with one binary model per class, the default before scikit-learn 0.22."""

    def predict_proba(self, rows: Any) -> Any:
        return self._predict_proba_lr(rows)


def _logistic(model: LogisticRegression, state: State) -> State:
    if "classes_" not in state:
        return state
    kind = state.get("multi_class", "multinomial")
    is_separate = kind in ("ovr", "warn") or (kind in ("auto", "deprecated") and state.get("solver") == "liblinear")
    if is_separate and len(state["classes_"]) > 2:
        model.__class__ = OneVsRestLogistic
    return state


class OneVsRestDiscriminant(LinearDiscriminantAnalysis):  # type: ignore[misc]
    """Discriminant analysis with a logistic function per class, as before scikit-learn 0.22."""

    def predict_proba(self, rows: Any) -> Any:
        return self._predict_proba_lr(rows)


def _discriminant(model: LinearDiscriminantAnalysis, state: State) -> State:
    if release(state.get("_sklearn_version", "0")) < (0, 22) and len(state.get("classes_", ())) > 2:
        model.__class__ = OneVsRestDiscriminant
    return state


class RealAdaBoost(AdaBoostClassifier):  # type: ignore[misc]
    """AdaBoost with the algorithm SAMME.R, the default before scikit-learn 1.6 (Zhu et al., 2009)."""

    def decision_function(self, rows: Any) -> Any:
        total = sum(_centered_logarithm(tree.predict_proba(rows)) for tree in self.estimators_)
        total = (self.n_classes_ - 1) * total / self.estimator_weights_.sum()
        return total[:, 1] - total[:, 0] if self.n_classes_ == 2 else total


def _centered_logarithm(shares: np.ndarray) -> np.ndarray:
    logarithms = np.log(np.clip(shares, np.finfo(float).eps, None))
    return np.asarray(logarithms - logarithms.mean(axis=1, keepdims=True))


def _ada_boost(model: AdaBoostClassifier, state: State) -> State:
    if state.get("algorithm") == "SAMME.R":
        model.__class__ = RealAdaBoost
    return state


def _isolation_forest(_: IsolationForest, state: State) -> State:
    trees = [tree.tree_ for tree in state.get("estimators_", [])]
    features = range(state.get("n_features_in_", 0))
    state.setdefault("estimators_features_", [np.array(features)] * len(trees))
    state.setdefault("_max_samples", state.get("max_samples_"))
    state.setdefault("_max_features", len(features))
    state.setdefault("_decision_path_lengths", [tree.compute_node_depths() for tree in trees])
    state.setdefault("_average_path_length_per_tree", [_average_path_length(tree.n_node_samples) for tree in trees])
    return state


def _imputer(_: SimpleImputer, state: State) -> State:
    state["missing_values"] = np.nan if state.get("missing_values") == "NaN" else state.get("missing_values", np.nan)
    state.setdefault("indicator_", None)
    if "statistics_" in state:
        state.setdefault("_fit_dtype", state["statistics_"].dtype)
        state.setdefault("_fill_dtype", state["_fit_dtype"])
    return state


def _encoder(_: OneHotEncoder, state: State) -> State:
    """Older encoders group no categories; before 0.21, they keep the dropped ones in another attribute."""
    state.setdefault("_infrequent_enabled", False)
    state.setdefault("drop_idx_", None)
    dropped = state["drop_idx_"]
    state.setdefault("_drop_idx_after_grouping", None if dropped is None else np.asarray(dropped, dtype=object))
    if "categories_" in state:
        counts = [len(categories) for categories in state["categories_"]]
        kept = [count - (dropped is not None and dropped[index] is not None) for index, count in enumerate(counts)]
        state.setdefault("_n_features_outs", kept)
    return state


def _support_vectors(model: BaseLibSVM, state: State) -> State:
    """Before 0.22, regression kept no numbers of support vectors per class."""
    if "support_" in state and isinstance(model, RegressorMixin):
        state["_n_support"] = np.full(2, len(state["support_"]), dtype=np.int32)
    return state


def _bins(_: _BinMapper, state: State) -> State:
    count = len(state.get("bin_thresholds_", ()))
    state.setdefault("is_categorical_", np.zeros(count, dtype=np.uint8))
    return state


def _by_column(step: ColumnTransformer, state: State) -> State:
    """Older releases do not keep which columns a part reads, and keep the word `passthrough` in place of a step."""
    if "transformers_" not in state:
        return state
    names = [str(name) for name in state.get("feature_names_in_", ())]
    everything = range(int(state["n_features_in_"]))
    parts = [(name, _passed(part), _selection(columns)) for name, part, columns in state["transformers_"]]
    state["transformers_"] = parts
    state.setdefault("_remainder", ("remainder", state["remainder"], []))
    selected = {name: selected_columns(selection, everything, names) for name, _, selection in parts}
    state.setdefault("_transformer_to_input_indices", selected)
    state.setdefault("_n_features", len(everything))
    return state


def _selection(columns: Any) -> Any:
    """Return a selection; scikit-learn 1.5 to 1.8 keep the remaining columns in a list of their own."""
    return columns.__dict__["data"] if isinstance(columns, RemovedObject) else columns


def _passed(part: Any) -> Any:
    return FunctionTransformer() if isinstance(part, str) and part == "passthrough" else part


def _calibrated(_: _CalibratedClassifier, state: State) -> State:
    for old, new in {"base_estimator": "estimator", "calibrators_": "calibrators", "classes_": "classes"}.items():
        if old in state:
            state.setdefault(new, state[old])
    return state


def _isotonic(_: IsotonicRegression, state: State) -> State:
    for axis in "Xy":
        if f"_necessary_{axis}_" in state:
            state.setdefault(f"{axis}_thresholds_", state[f"_necessary_{axis}_"])
    return state


def _neighbors(_: NeighborsBase, state: State) -> State:
    """Search by comparing with all rows: an index gives the same neighbours."""
    if "_fit_X" in state:
        state.setdefault("n_samples_fit_", state["_fit_X"].shape[0])
    state["_tree"] = None
    if state.get("_fit_method") in ("kd_tree", "ball_tree"):
        state["_fit_method"] = "brute"
    return state


UPGRADES: dict[type, Callable[[Any, State], State]] = {
    Tree: _tree,
    TreePredictor: _histogram_tree,
    BaseEstimator: _estimator,
    BaseGradientBoosting: _gradient_boosting,
    BaseHistGradientBoosting: _histogram_boosting,
    LogisticRegression: _logistic,
    LinearDiscriminantAnalysis: _discriminant,
    AdaBoostClassifier: _ada_boost,
    NeighborsBase: _neighbors,
    IsolationForest: _isolation_forest,
    SimpleImputer: _imputer,
    OneHotEncoder: _encoder,
    BaseLibSVM: _support_vectors,
    _BinMapper: _bins,
    ColumnTransformer: _by_column,
    _CalibratedClassifier: _calibrated,
    IsotonicRegression: _isotonic,
}
"""Changes by class, applied in this order; each leaves a current state as it is."""

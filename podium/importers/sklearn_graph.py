"""scikit-learn estimators as float64 ONNX graphs, written from their fitted attributes.

The formulas are those of scikit-learn's own `predict`, `predict_proba` and `decision_function`. Each function returns the name
of a tensor of shape (rows, outputs). Ensembles call these functions for their parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
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
from sklearn.ensemble._iforest import _average_path_length
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import RANSACRegressor, SGDClassifier, SGDRegressor
from sklearn.linear_model._base import LinearClassifierMixin, LinearModel
from sklearn.linear_model._glm.glm import _GeneralizedLinearRegressor
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.tree._classes import BaseDecisionTree

from podium.importers.booster_stand_ins import BoosterEstimator, CatBoostEstimator, XGBoostEstimator
from podium.importers.estimator_scores import best_estimator, last_step, predicts_largest_decision
from podium.importers.graph_builder import GraphBuilder
from podium.importers.old_releases import OneVsRestDiscriminant, OneVsRestLogistic, RealAdaBoost
from podium.importers.sklearn_graph_steps import Columns, Unsupported, columns, inverse_transform, transform
from podium.importers.tree_graph import WeightedTree, sum_of_trees
from podium.models.lightgbm_export import TreeNodes, histogram_nodes, sklearn_nodes

Graph = GraphBuilder
Converter = Callable[[Graph, Any, Columns], str]


def scores(graph: Graph, estimator: Any, x: Columns) -> str:
    """Return class probabilities, or predicted values. Raises Unsupported."""
    return _convert(SCORES, graph, estimator, x)


def served_scores(graph: Graph, estimator: Any, x: Columns) -> str:
    """Return the scores that `estimator_scores.score_function` does, also without probabilities. Raises Unsupported."""
    if not is_classifier(estimator) or hasattr(estimator, "predict_proba") or not predicts_largest_decision(estimator):
        return scores(graph, estimator, x)
    return (_logistic if len(estimator.classes_) == 2 else _softmax)(graph, decisions(graph, estimator, x))


def decisions(graph: Graph, estimator: Any, x: Columns) -> str:
    """Return what `decision_function` returns, with one column for two classes. Raises Unsupported."""
    return _convert(DECISIONS, graph, estimator, x)


def _convert(table: dict[Any, Converter], graph: Graph, estimator: Any, x: Columns) -> str:
    for kinds, converter in table.items():
        if isinstance(estimator, kinds):
            return converter(graph, estimator, x)
    raise Unsupported(f"{type(estimator).__name__} is not known")


# --- compositions ------------------------------------------------------------------------------------------------------


def _pipeline(function: Converter) -> Converter:
    def convert(graph: Graph, pipeline: Pipeline, x: Columns) -> str:
        for _, step in pipeline.steps[:-1]:
            x = transform(graph, step, x)
        return function(graph, pipeline.steps[-1][1], x)

    return convert


def _within(function: Converter) -> Converter:
    return lambda graph, model, x: function(graph, best_estimator(model), x)


def _mean(graph: Graph, parts: Sequence[str], weights: Sequence[float] | None = None) -> str:
    shares = np.full(len(parts), 1.0) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    weighted = [graph.add("Mul", part, share) for part, share in zip(parts, shares.tolist(), strict=True)]
    return graph.add("Sum", *weighted)


def _voting(graph: Graph, model: Any, x: Columns) -> str:
    if getattr(model, "voting", "soft") == "hard":
        return _mean(graph, [_vote(graph, part, x) for part in model.estimators_], model._weights_not_none)
    return _mean(graph, [scores(graph, part, x) for part in model.estimators_], model._weights_not_none)


def _vote(graph: Graph, part: Any, x: Columns) -> str:
    """Return 1 for the class that a classifier predicts, and 0 for the others."""
    if isinstance(last_step(part), SVC | NuSVC) and hasattr(part, "predict_proba"):
        raise Unsupported("support vectors, which do not predict the class with the largest probability")
    output = served_scores(graph, part, x)
    return graph.add(
        "Gather", graph.constant(np.eye(len(part.classes_))), graph.add("ArgMax", output, axis=1, keepdims=0), axis=0
    )


def _stacking(graph: Graph, model: Any, x: Columns) -> str:
    parts = [
        _stacked(graph, part, method, x, len(getattr(model, "classes_", ())))
        for part, method in zip(model.estimators_, model.stack_method_, strict=True)
        if not isinstance(part, str)
    ]
    if model.passthrough:
        parts.append(x.tensor)
    return scores(graph, model.final_estimator_, columns(graph.add("Concat", *parts, axis=1)))


def _stacked(graph: Graph, part: Any, method: str, x: Columns, classes: int) -> str:
    if method == "predict" and is_classifier(part):
        raise Unsupported("stacked class labels")
    output = decisions(graph, part, x) if method == "decision_function" else scores(graph, part, x)
    return _column(graph, output, 1) if method == "predict_proba" and classes == 2 else output


def _bagging(graph: Graph, model: Any, x: Columns) -> str:
    parts = []
    for part, selected in zip(model.estimators_, model.estimators_features_, strict=True):
        output = scores(graph, part, x.select(graph, np.asarray(selected).tolist()))
        if is_classifier(model) and len(part.classes_) != len(model.classes_):
            output = graph.add("MatMul", output, np.eye(len(model.classes_))[np.asarray(part.classes_, dtype=int)])
        parts.append(output)
    return _mean(graph, parts)


def _one_vs_rest(graph: Graph, model: OneVsRestClassifier, x: Columns) -> str:
    parts = [_column(graph, scores(graph, part, x), 1) for part in model.estimators_]
    return _both(graph, parts[0]) if len(parts) == 1 else _shares(graph, graph.add("Concat", *parts, axis=1))


def _one_vs_rest_decisions(graph: Graph, model: OneVsRestClassifier, x: Columns) -> str:
    return graph.add("Concat", *(decisions(graph, part, x) for part in model.estimators_), axis=1)


def _calibrated(graph: Graph, model: CalibratedClassifierCV, x: Columns) -> str:
    return _mean(graph, [_calibrated_part(graph, part, x, len(model.classes_)) for part in model.calibrated_classifiers_])


def _calibrated_part(graph: Graph, part: _CalibratedClassifier, x: Columns, classes: int) -> str:
    if part.method not in ("sigmoid", "isotonic"):
        raise Unsupported(f"the calibration {part.method}")
    if hasattr(part.estimator, "decision_function"):
        raw = decisions(graph, part.estimator, x)
    else:
        raw = scores(graph, part.estimator, x)
        raw = _column(graph, raw, 1) if classes == 2 else raw
    known = part.estimator.classes_
    positions = np.searchsorted(part.classes, known).tolist() if classes > 2 else [1]
    found = {
        position: _calibrate(graph, calibrator, _column(graph, raw, index))
        for index, (position, calibrator) in enumerate(zip(positions, part.calibrators, strict=True))
    }
    if classes == 2:
        return _both(graph, found[1])
    zero = graph.add("Mul", next(iter(found.values())), 0.0)
    return _shares(graph, graph.add("Concat", *(found.get(index, zero) for index in range(classes)), axis=1))


def _calibrate(graph: Graph, calibrator: Any, raw: str) -> str:
    if isinstance(calibrator, _SigmoidCalibration):
        return graph.add("Sigmoid", graph.add("Add", graph.add("Mul", raw, -calibrator.a_), -calibrator.b_))
    return _isotonic(graph, calibrator, columns(raw))


def _isotonic(graph: Graph, model: IsotonicRegression, x: Columns) -> str:
    """Interpolate between the thresholds: a sum of clipped slopes."""
    if model.out_of_bounds != "clip":
        raise Unsupported("an isotonic regression that is undefined out of its range")
    knots, values = np.asarray(model.X_thresholds_, dtype=float), np.asarray(model.y_thresholds_, dtype=float)
    return interpolate(graph, x.tensor, knots, values)


def interpolate(graph: Graph, x: str, knots: np.ndarray, values: np.ndarray) -> str:
    """Interpolate linearly between strictly increasing knots, with constant ends."""
    if len(knots) < 2:
        return graph.constant_rows(x, values[:1])
    steps = np.diff(knots)
    parts = graph.add("Div", graph.add("Sub", x, knots[None, :-1]), steps[None])
    parts = graph.add("Min", graph.add("Max", parts, 0.0), 1.0)
    return graph.add("Add", graph.add("MatMul", parts, np.diff(values)[:, None]), float(values[0]))


def _transformed_target(graph: Graph, model: TransformedTargetRegressor, x: Columns) -> str:
    return inverse_transform(graph, model.transformer_, scores(graph, model.regressor_, x))


# --- links -------------------------------------------------------------------------------------------------------------


def _column(graph: Graph, tensor: str, index: int) -> str:
    return graph.add("Gather", tensor, graph.integers([index]), axis=1)


def _both(graph: Graph, second: str) -> str:
    """Return the probabilities of both classes."""
    return graph.add("Concat", graph.add("Sub", 1.0, second), second, axis=1)


def _logistic(graph: Graph, sums: str, factor: float = 1.0) -> str:
    return _both(graph, graph.add("Sigmoid", graph.add("Mul", sums, factor)))


def _softmax(graph: Graph, sums: str) -> str:
    return graph.add("Softmax", sums, axis=1)


def _shares(graph: Graph, numbers: str) -> str:
    """Divide by the sum of the row; a row of zeros gets equal shares."""
    total = graph.add("ReduceSum", numbers, graph.integers([1]), keepdims=1)
    is_zero = graph.add("Equal", total, 0.0)
    filled = graph.add("Where", is_zero, graph.add("Add", graph.add("Mul", numbers, 0.0), 1.0), numbers)
    return graph.add("Div", filled, graph.add("ReduceSum", filled, graph.integers([1]), keepdims=1))


def _power(graph: Graph, logarithms: str, link: str) -> str:
    return {
        "identity": lambda: logarithms,
        "exp": lambda: graph.add("Exp", logarithms),
        "logistic": lambda: _logistic(graph, logarithms),
        "logistic each": lambda: graph.add("Sigmoid", logarithms),
        "double logistic": lambda: _logistic(graph, logarithms, 2.0),
        "softmax": lambda: _softmax(graph, logarithms),
    }[link]()


LINKS = {
    "HalfBinomialLoss": "logistic",
    "ExponentialLoss": "double logistic",
    "HalfMultinomialLoss": "softmax",
    "HalfPoissonLoss": "exp",
    "HalfGammaLoss": "exp",
    "HalfTweedieLoss": "exp",
    **dict.fromkeys(("HalfSquaredError", "AbsoluteError", "HuberLoss", "PinballLoss", "HalfTweedieLossIdentity"), "identity"),
}
"""Functions from raw predictions to scores, by scikit-learn's loss."""


# --- linear models -----------------------------------------------------------------------------------------------------


def linear(graph: Graph, x: str, coefficients: Any, intercepts: Any) -> str:
    """Return x · coefficients + intercepts for (outputs, features) coefficients."""
    weights = np.atleast_2d(np.asarray(coefficients, dtype=float))
    return graph.add("Add", graph.add("MatMul", x, weights.T), np.broadcast_to(intercepts, (1, len(weights))))


def _linear_model(graph: Graph, model: Any, x: Columns) -> str:
    return linear(graph, x.tensor, model.coef_, model.intercept_)


def _linear_classifier(graph: Graph, model: Any, x: Columns) -> str:
    if not hasattr(model, "predict_proba"):
        raise Unsupported(f"{type(model).__name__} has no probabilities")
    sums = decisions(graph, model, x)
    if isinstance(model, SGDClassifier) and model.loss != "log_loss":
        raise Unsupported(f"the loss {model.loss}")
    if len(model.classes_) == 2:
        return _logistic(graph, sums)
    if isinstance(model, OneVsRestLogistic | OneVsRestDiscriminant | SGDClassifier):
        return _shares(graph, graph.add("Sigmoid", sums))
    return _softmax(graph, sums)


def _generalized_linear(graph: Graph, model: _GeneralizedLinearRegressor, x: Columns) -> str:
    kind = type(model._get_loss()).__name__
    return _power(graph, linear(graph, x.tensor, model.coef_, model.intercept_), LINKS[kind])


def _quadratic(graph: Graph, model: QuadraticDiscriminantAnalysis, x: Columns) -> str:
    parts = []
    for mean, rotation, scaling, prior in zip(model.means_, model.rotations_, model.scalings_, model.priors_, strict=True):
        moved = graph.add("MatMul", graph.add("Sub", x.tensor, mean[None]), rotation * scaling**-0.5)
        distance = graph.add("ReduceSumSquare", moved, graph.integers([1]), keepdims=1)
        constant = -0.5 * float(np.sum(np.log(scaling))) + math.log(prior)
        parts.append(graph.add("Add", graph.add("Mul", distance, -0.5), constant))
    return _softmax(graph, graph.add("Concat", *parts, axis=1))


def _naive_bayes(graph: Graph, model: Any, x: Columns) -> str:
    """Sum the logarithms of the likelihoods, which are quadratic in x for normal columns, else linear."""
    if isinstance(model, naive_bayes.GaussianNB):
        variance, mean = model.var_, model.theta_
        squares = graph.add("Mul", graph.add("Sub", graph.add("Unsqueeze", x.tensor, graph.integers([1])), mean[None]), 1.0)
        squares = graph.add("Div", graph.add("Mul", squares, squares), 2.0 * variance[None])
        sums = graph.add("Neg", graph.add("ReduceSum", squares, graph.integers([2]), keepdims=0))
        constants = np.log(model.class_prior_) - 0.5 * np.log(2.0 * np.pi * variance).sum(axis=1)
        return _softmax(graph, graph.add("Add", sums, constants[None]))
    source, weights = x.tensor, model.feature_log_prob_
    constants = getattr(model, "class_log_prior_", 0.0) if not isinstance(model, naive_bayes.ComplementNB) else 0.0
    if isinstance(model, naive_bayes.BernoulliNB):
        if model.binarize is not None:
            source = graph.add("Cast", graph.add("Greater", source, float(model.binarize)), to=TensorProto.DOUBLE)
        absent = np.log(1 - np.exp(weights))
        weights, constants = weights - absent, constants + absent.sum(axis=1)
    return _softmax(graph, linear(graph, source, weights, constants))


def _perceptron(graph: Graph, model: BaseMultilayerPerceptron, x: Columns) -> str:
    functions = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}
    output = x.tensor
    for layer, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
        output = linear(graph, output, weights.T, bias)
        if layer < len(model.coefs_):
            output = graph.add(functions[model.activation], output)
    return _power(graph, output, model.out_activation_)


# --- distances and kernels ---------------------------------------------------------------------------------------------


def _distances(graph: Graph, x: str, points: np.ndarray, power: float) -> str:
    """Return the distances |x - point|^power summed over the columns, without the root."""
    difference = graph.add("Sub", graph.add("Unsqueeze", x, graph.integers([1])), np.asarray(points, dtype=float)[None])
    powers = graph.add("Mul", difference, difference) if power == 2 else graph.add("Pow", graph.add("Abs", difference), power)
    return graph.add("ReduceSum", powers, graph.integers([2]), keepdims=0)


def _neighbors(graph: Graph, model: Any, x: Columns) -> str:
    powers = {"euclidean": 2.0, "manhattan": 1.0, "minkowski": (model.effective_metric_params_ or {}).get("p", 2.0)}
    if model.effective_metric_ not in powers or model.weights not in ("uniform", "distance"):
        raise Unsupported("neighbours by another metric or weight")
    power = float(powers[model.effective_metric_])
    distances = graph.add("Neg", _distances(graph, x.tensor, model._fit_X, power))
    nearest = graph.add("TopK", distances, graph.integers([model.n_neighbors]), outputs=2, which=1, axis=1)
    values = np.asarray(model._y, dtype=float).reshape(len(model._fit_X), -1)
    if is_classifier(model):
        values = np.eye(len(model.classes_))[np.asarray(model._y, dtype=int)]
    found = graph.add("Gather", graph.constant(values), nearest, axis=0)
    if model.weights == "uniform":
        return graph.add("ReduceMean", found, graph.integers([1]), keepdims=0)
    closest = graph.add("Neg", graph.add("GatherElements", distances, nearest, axis=1))
    weights = _inverse_distances(graph, graph.add("Pow", closest, 1.0 / power))
    weighted = graph.add("ReduceSum", graph.add("Mul", found, weights), graph.integers([1]), keepdims=0)
    return graph.add("Div", weighted, graph.add("ReduceSum", weights, graph.integers([1]), keepdims=0))


def _inverse_distances(graph: Graph, distances: str) -> str:
    """Return (rows, neighbours, 1) weights: 1/distance, or, if a neighbour is at distance 0, 1 for all of these and 0 else."""
    is_zero = graph.add("Cast", graph.add("Equal", distances, 0.0), to=TensorProto.DOUBLE)
    has_zero = graph.add("Greater", graph.add("ReduceMax", is_zero, graph.integers([1]), keepdims=1), 0.0)
    weights = graph.add("Where", has_zero, is_zero, graph.add("Reciprocal", distances))
    return graph.add("Unsqueeze", weights, graph.integers([2]))


def _kernel(graph: Graph, model: Any, x: str) -> str:
    """Return the kernel of a row and each support vector."""
    vectors = np.asarray(model.support_vectors_, dtype=float)
    if model.kernel == "rbf":
        return graph.add("Exp", graph.add("Mul", _distances(graph, x, vectors, 2.0), -float(model._gamma)))
    product = graph.add("MatMul", x, vectors.T)
    if model.kernel == "linear":
        return product
    scaled = graph.add("Add", graph.add("Mul", product, float(model._gamma)), float(model.coef0))
    if model.kernel == "poly":
        return graph.add("Pow", scaled, float(model.degree))
    if model.kernel == "sigmoid":
        return graph.add("Tanh", scaled)
    raise Unsupported("a kernel of its own")


def _support_vectors(graph: Graph, model: Any, x: Columns) -> str:
    if is_classifier(model) and len(model.classes_) > 2:
        raise Unsupported("support vectors of more than two classes")
    return linear(graph, _kernel(graph, model, x.tensor), model.dual_coef_, model.intercept_)


def _nearest_center(graph: Graph, model: _BaseKMeans, x: Columns) -> str:
    """Return 1 for the nearest center, and 0 for the others."""
    distances = _distances(graph, x.tensor, model.cluster_centers_, 2.0)
    nearest = graph.add("ArgMin", distances, axis=1, keepdims=0)
    return graph.add("Gather", graph.constant(np.eye(len(model.cluster_centers_))), nearest, axis=0)


# --- trees -------------------------------------------------------------------------------------------------------------


def _float32(graph: Graph, x: Columns) -> str:
    """Round to float32, as scikit-learn's trees do."""
    return graph.add("Cast", graph.add("Cast", x.tensor, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)


def _forest(graph: Graph, model: Any, x: Columns) -> str:
    trees = [model] if isinstance(model, BaseDecisionTree) else model.estimators_
    if model.n_outputs_ != 1:
        raise Unsupported("several targets")
    outputs = int(model.n_classes_) if is_classifier(model) else 1
    nodes = [sklearn_nodes(tree.tree_) for tree in trees]
    parts = [(tree, output, output, 1.0 / len(trees)) for tree in nodes for output in range(outputs)]
    return sum_of_trees(graph, _float32(graph, x), parts, [0.0] * outputs)


def _gradient_sums(graph: Graph, model: BaseGradientBoosting, x: Columns) -> str:
    base = np.ravel(model._raw_predict_init(np.zeros((1, model.n_features_in_)))).tolist()
    trees = [(tree, output) for iteration in model.estimators_ for output, tree in enumerate(iteration)]
    parts = [(sklearn_nodes(tree.tree_), 0, output, float(model.learning_rate)) for tree, output in trees]
    return sum_of_trees(graph, _float32(graph, x), parts, base)


def _histogram_sums(graph: Graph, model: BaseHistGradientBoosting, x: Columns) -> str:
    if getattr(model, "_preprocessor", None) is not None:
        x = transform(graph, model._preprocessor, x)
    base = np.ravel(model._baseline_prediction).tolist()
    parts = [(tree, 0, index % len(base), 1.0) for index, tree in enumerate(histogram_nodes(model))]
    return sum_of_trees(graph, x.tensor, parts, base)


def _boosting(graph: Graph, model: Any, x: Columns) -> str:
    sums = decisions(graph, model, x) if is_classifier(model) else _boosted_sums(graph, model, x)
    return _power(graph, sums, LINKS[type(model._loss).__name__])


def _boosted_sums(graph: Graph, model: Any, x: Columns) -> str:
    sums = _gradient_sums if isinstance(model, BaseGradientBoosting) else _histogram_sums
    return sums(graph, model, x)


def _isolation_forest(graph: Graph, model: IsolationForest, x: Columns) -> str:
    """Return `score_samples`, from the depths of the leaves (Liu et al., 2008)."""
    parts: list[WeightedTree] = []
    for tree, selected in zip(model.estimators_, model.estimators_features_, strict=True):
        nodes = sklearn_nodes(tree.tree_)
        depths = _depths(nodes) + _average_path_length(tree.tree_.n_node_samples)
        feature = np.where(nodes.left < 0, 0, np.asarray(selected)[nodes.feature])
        moved = TreeNodes(feature, nodes.threshold, nodes.left, nodes.right, nodes.missing_left, depths[:, None], nodes.cover)
        parts.append((moved, 0, 0, 1.0))
    depth = sum_of_trees(graph, _float32(graph, x), parts, [0.0])
    scale = len(parts) * float(_average_path_length([model._max_samples])[0])
    return graph.add("Neg", graph.add("Pow", 2.0, graph.add("Mul", depth, -1.0 / scale)))


def _depths(nodes: TreeNodes) -> np.ndarray:
    depths = np.zeros(len(nodes.left))
    for node in np.flatnonzero(nodes.left >= 0):  # children come after their parent
        depths[nodes.left[node]] = depths[nodes.right[node]] = depths[node] + 1
    return depths


def _ada_boost_sums(graph: Graph, model: AdaBoostClassifier, x: Columns) -> str:
    classes = len(model.classes_)
    parts = []
    for part, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        shares = scores(graph, part, x)
        if isinstance(model, RealAdaBoost):
            logarithm = graph.add("Log", graph.add("Max", shares, np.finfo(float).eps))
            mean = graph.add("ReduceMean", logarithm, graph.integers([1]), keepdims=1)
            parts.append(graph.add("Mul", graph.add("Sub", logarithm, mean), float(classes - 1)))
        else:
            best = graph.add("ArgMax", shares, axis=1, keepdims=0)
            votes = (np.eye(classes) * (1 + 1 / (classes - 1)) - 1 / (classes - 1)) * weight
            parts.append(graph.add("Gather", graph.constant(votes), best, axis=0))
    total = graph.add("Mul", graph.add("Sum", *parts), 1.0 / float(np.sum(model.estimator_weights_)))
    return graph.add("MatMul", total, np.array([[-1.0], [1.0]])) if classes == 2 else total


def _ada_boost(graph: Graph, model: AdaBoostClassifier, x: Columns) -> str:
    sums = decisions(graph, model, x)
    classes = len(model.classes_)
    return _logistic(graph, sums) if classes == 2 else _softmax(graph, graph.add("Mul", sums, 1.0 / (classes - 1)))


def _constant(graph: Graph, model: Any, x: Columns) -> str:
    values = np.ravel(model.class_prior_ if is_classifier(model) else model.constant_)
    if is_classifier(model) and model.strategy != "prior":
        raise Unsupported(f"the strategy {model.strategy}")
    return graph.constant_rows(x.tensor, values)


def _booster(graph: Graph, model: BoosterEstimator, x: Columns) -> str:
    if isinstance(model, CatBoostEstimator):
        return _cat_boost(graph, model, x)
    trees = model.tree_model()
    if model.text_columns or trees is None:
        if isinstance(model, XGBoostEstimator) and model.model.is_linear:
            return _power(graph, linear(graph, _float32(graph, x), model.model.weights, model.model.bias), model.model.link)
        raise Unsupported("text columns of a booster within an ensemble")
    source = _float32(graph, x) if trees.float32 else x.tensor
    if trees.missing == trees.missing:
        source = graph.add("Where", graph.add("Equal", source, trees.missing), float("nan"), source)
    parts = [(nodes, 0, target, 1.0) for nodes, target in zip(trees.trees, trees.targets, strict=True)]
    return _power(graph, sum_of_trees(graph, source, parts, trees.base), trees.link)


def _cat_boost(graph: Graph, model: CatBoostEstimator, x: Columns) -> str:
    if any(x.categories[column] != texts for column, texts in model.text_columns.items()):
        raise Unsupported("text columns of a booster after other steps")
    return _power(graph, model.model.add_sums_to(graph, x.tensor), model.model.link)


NAIVE_BAYES = (naive_bayes.GaussianNB, naive_bayes.BernoulliNB, naive_bayes.MultinomialNB, naive_bayes.ComplementNB)
BOOSTING = (BaseGradientBoosting, BaseHistGradientBoosting)
FORESTS = (BaseDecisionTree, ForestClassifier, ForestRegressor)

SCORES: dict[Any, Converter] = {
    BoosterEstimator: _booster,
    Pipeline: _pipeline(scores),
    (BaseSearchCV, FrozenEstimator): _within(scores),
    (VotingClassifier, VotingRegressor): _voting,
    (StackingClassifier, StackingRegressor): _stacking,
    IsolationForest: _isolation_forest,
    (BaggingClassifier, BaggingRegressor): _bagging,
    OneVsRestClassifier: _one_vs_rest,
    CalibratedClassifierCV: _calibrated,
    TransformedTargetRegressor: _transformed_target,
    FORESTS: _forest,
    BOOSTING: _boosting,
    AdaBoostClassifier: _ada_boost,
    _GeneralizedLinearRegressor: _generalized_linear,
    RANSACRegressor: lambda graph, model, x: scores(graph, model.estimator_, x),
    LinearClassifierMixin: _linear_classifier,
    (LinearModel, SGDRegressor): _linear_model,
    QuadraticDiscriminantAnalysis: _quadratic,
    NAIVE_BAYES: _naive_bayes,
    BaseMultilayerPerceptron: _perceptron,
    (KNeighborsClassifier, KNeighborsRegressor): _neighbors,
    (SVR, NuSVR): _support_vectors,
    IsotonicRegression: _isotonic,
    _BaseKMeans: _nearest_center,
    (DummyClassifier, DummyRegressor): _constant,
}
"""Converters by class; the first match counts."""

DECISIONS: dict[Any, Converter] = {
    Pipeline: _pipeline(decisions),
    (BaseSearchCV, FrozenEstimator): _within(decisions),
    BOOSTING: _boosted_sums,
    AdaBoostClassifier: _ada_boost_sums,
    LinearClassifierMixin: _linear_model,
    (SVC, NuSVC): _support_vectors,
    OneVsRestClassifier: _one_vs_rest_decisions,
}

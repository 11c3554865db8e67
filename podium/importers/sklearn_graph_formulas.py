"""scikit-learn's models of numbers and of distances as float64 ONNX operators, written from their fitted attributes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn import naive_bayes
from sklearn.base import is_classifier
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import SGDClassifier
from sklearn.linear_model._glm.glm import _GeneralizedLinearRegressor
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron

from podium.importers.graph_builder import Tensor, concat, where
from podium.importers.old_releases import OneVsRestDiscriminant, OneVsRestLogistic
from podium.importers.sklearn_graph_columns import Columns, Unsupported

# --- links -------------------------------------------------------------------------------------------------------------


def both(second: Tensor) -> Tensor:
    """Return the probabilities of both classes."""
    return concat([1.0 - second, second])


def softmax(sums: Tensor) -> Tensor:
    return sums.apply("Softmax", axis=1)


def shares(numbers: Tensor) -> Tensor:
    """Divide by the sum of the row; a row of zeros gets equal shares."""
    filled = where(numbers.reduce("ReduceSum") == 0.0, numbers * 0.0 + 1.0, numbers)
    return filled / filled.reduce("ReduceSum")


LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda sums: sums,
    "exp": lambda sums: sums.map(np.exp),
    "logistic": lambda sums: both(sums.map(expit)),
    "logistic each": lambda sums: sums.map(expit),
    "double logistic": lambda sums: both((sums * 2.0).map(expit)),
    "softmax": softmax,
}
"""Functions from sums to scores."""

LINK_OF_LOSS = {
    "HalfBinomialLoss": "logistic",
    "ExponentialLoss": "double logistic",
    "HalfMultinomialLoss": "softmax",
    "HalfPoissonLoss": "exp",
    "HalfGammaLoss": "exp",
    "HalfTweedieLoss": "exp",
    **dict.fromkeys(("HalfSquaredError", "AbsoluteError", "HuberLoss", "PinballLoss", "HalfTweedieLossIdentity"), "identity"),
}
"""The link of raw predictions, by scikit-learn's loss."""


# --- linear models -----------------------------------------------------------------------------------------------------


def linear(x: Tensor, coefficients: Any, intercepts: Any) -> Tensor:
    """Return x · coefficients + intercepts for (outputs, features) coefficients."""
    weights = np.atleast_2d(np.asarray(coefficients, dtype=float))
    return x @ weights.T + np.broadcast_to(intercepts, (1, len(weights)))


def linear_model(model: Any, x: Columns) -> Tensor:
    return linear(x.tensor, model.coef_, model.intercept_)


def linear_classifier(model: Any, x: Columns) -> Tensor:
    if not hasattr(model, "predict_proba"):
        raise Unsupported(f"{type(model).__name__} has no probabilities")
    sums = linear_model(model, x)
    if isinstance(model, SGDClassifier) and model.loss != "log_loss":
        raise Unsupported(f"the loss {model.loss}")
    if len(model.classes_) == 2:
        return LINKS["logistic"](sums)
    if isinstance(model, OneVsRestLogistic | OneVsRestDiscriminant | SGDClassifier):
        return shares(sums.map(expit))
    return softmax(sums)


def generalized_linear(model: _GeneralizedLinearRegressor, x: Columns) -> Tensor:
    return LINKS[LINK_OF_LOSS[type(model._get_loss()).__name__]](linear_model(model, x))


def quadratic(model: QuadraticDiscriminantAnalysis, x: Columns) -> Tensor:
    parts = []
    for mean, rotation, scaling, prior in zip(model.means_, model.rotations_, model.scalings_, model.priors_, strict=True):
        distance = ((x.tensor - mean[None]) @ (rotation * scaling**-0.5)).reduce("ReduceSumSquare")
        parts.append(distance * -0.5 + (-0.5 * float(np.sum(np.log(scaling))) + math.log(prior)))
    return softmax(concat(parts))


def normal_bayes(model: naive_bayes.GaussianNB, x: Columns) -> Tensor:
    """Sum the logarithms of the likelihoods, which are quadratic in x."""
    variance = model.var_
    difference = x.tensor.expand(1) - model.theta_[None]
    sums = -(difference * difference / (2.0 * variance[None])).reduce("ReduceSum", 2, keepdims=False)
    constants = np.log(model.class_prior_) - 0.5 * np.log(2.0 * np.pi * variance).sum(axis=1)
    return softmax(sums + constants[None])


def linear_bayes(model: Any, x: Columns) -> Tensor:
    """Sum the logarithms of the likelihoods, which are linear in x."""
    source, weights = x.tensor, model.feature_log_prob_
    constants = getattr(model, "class_log_prior_", 0.0) if not isinstance(model, naive_bayes.ComplementNB) else 0.0
    if isinstance(model, naive_bayes.BernoulliNB):
        if model.binarize is not None:
            source = (source > float(model.binarize)).number()
        absent = np.log(1 - np.exp(weights))
        weights, constants = weights - absent, constants + absent.sum(axis=1)
    return softmax(linear(source, weights, constants))


def perceptron(model: BaseMultilayerPerceptron, x: Columns) -> Tensor:
    functions = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}
    output = x.tensor
    for layer, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
        output = linear(output, weights.T, bias)
        if layer < len(model.coefs_):
            output = output.apply(functions[model.activation])
    return LINKS[model.out_activation_](output)


def isotonic(model: IsotonicRegression, x: Columns) -> Tensor:
    """Interpolate linearly between the thresholds, as a sum of clipped slopes, with constant ends."""
    if model.out_of_bounds != "clip":
        raise Unsupported("an isotonic regression that is undefined out of its range")
    knots, values = np.asarray(model.X_thresholds_, dtype=float), np.asarray(model.y_thresholds_, dtype=float)
    if len(knots) < 2:
        return x.tensor.constant_rows(values[:1])
    parts = ((x.tensor - knots[None, :-1]) / np.diff(knots)[None]).clip(0.0, 1.0)
    return parts @ np.diff(values)[:, None] + float(values[0])


def constant(model: Any, x: Columns) -> Tensor:
    if is_classifier(model) and model.strategy != "prior":
        raise Unsupported(f"the strategy {model.strategy}")
    return x.tensor.constant_rows(np.ravel(model.class_prior_ if is_classifier(model) else model.constant_))


# --- distances and kernels ---------------------------------------------------------------------------------------------


def _distances(x: Tensor, points: np.ndarray, power: float) -> Tensor:
    """Return the distances |x - point|^power summed over the columns, without the root."""
    difference = x.expand(1) - np.asarray(points, dtype=float)[None]
    powers = difference * difference if power == 2 else difference.map(np.absolute) ** power
    return powers.reduce("ReduceSum", 2, keepdims=False)


def neighbors(model: Any, x: Columns) -> Tensor:
    powers = {"euclidean": 2.0, "manhattan": 1.0, "minkowski": (model.effective_metric_params_ or {}).get("p", 2.0)}
    if model.effective_metric_ not in powers or model.weights not in ("uniform", "distance"):
        raise Unsupported("neighbours by another metric or weight")
    power, graph = float(powers[model.effective_metric_]), x.tensor.graph
    distances = -_distances(x.tensor, model._fit_X, power)
    _, nearest = graph.add_with_outputs(2, "TopK", distances, [model.n_neighbors], axis=1)
    values = np.asarray(model._y, dtype=float).reshape(len(model._fit_X), -1)
    if is_classifier(model):
        values = np.eye(len(model.classes_))[np.asarray(model._y, dtype=int)]
    found = graph.look_up(values, nearest)
    if model.weights == "uniform":
        return found.reduce("ReduceMean", keepdims=False)
    closest = -distances.apply("GatherElements", nearest, axis=1)
    weights = _inverse_distances(closest ** (1.0 / power))
    return (found * weights).reduce("ReduceSum", keepdims=False) / weights.reduce("ReduceSum", keepdims=False)


def _inverse_distances(distances: Tensor) -> Tensor:
    """Return (rows, neighbours, 1) weights: 1/distance, or, if a neighbour is at distance 0, 1 for all of these and 0 else."""
    is_zero = (distances == 0.0).number()
    return where(is_zero.reduce("ReduceMax") > 0.0, is_zero, distances.map(np.reciprocal)).expand(2)


def _kernel(model: Any, x: Tensor) -> Tensor:
    """Return the kernel of a row and each support vector."""
    vectors = np.asarray(model.support_vectors_, dtype=float)
    if model.kernel == "rbf":
        return (_distances(x, vectors, 2.0) * -float(model._gamma)).map(np.exp)
    product = x @ vectors.T
    if model.kernel == "linear":
        return product
    scaled = product * float(model._gamma) + float(model.coef0)
    if model.kernel == "poly":
        return scaled ** float(model.degree)
    if model.kernel == "sigmoid":
        return scaled.map(np.tanh)
    raise Unsupported("a kernel of its own")


def support_vectors(model: Any, x: Columns) -> Tensor:
    if is_classifier(model) and len(model.classes_) > 2:
        raise Unsupported("support vectors of more than two classes")
    return linear(_kernel(model, x.tensor), model.dual_coef_, model.intercept_)


def nearest_center(model: _BaseKMeans, x: Columns) -> Tensor:
    """Return 1 for the nearest center, and 0 for the others."""
    nearest = _distances(x.tensor, model.cluster_centers_, 2.0).apply("ArgMin", axis=1, keepdims=0)
    return x.tensor.graph.look_up(np.eye(len(model.cluster_centers_)), nearest)

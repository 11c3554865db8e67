"""statsmodels models as estimators, fitted by maximum likelihood without regularization."""

from __future__ import annotations

import warnings

import numpy as np
import statsmodels.api as sm
from statsmodels.tools.sm_exceptions import ModelWarning

from podium.models.scorers import LinearScorer
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Target


class GeneralizedLinearModel:
    """Binomial GLM with a logit link, multinomial logit, or least squares, depending on the task.

    The first class is the reference class.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def fit(self, features: FloatMatrix, target: FloatVector) -> GeneralizedLinearModel:
        rows = _with_constant(features)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # perfect separation and slow convergence show in the scores
            warnings.simplefilter("ignore", RuntimeWarning)
            if self.target.task == "binary":
                self.results_ = sm.GLM(target, rows, family=sm.families.Binomial()).fit()
            elif self.target.task == "multiclass":
                self.results_ = sm.MNLogit(target, rows).fit(method="lbfgs", maxiter=500, disp=0, skip_hessian=True)
            else:
                self.results_ = sm.OLS(target, rows).fit()
        return self

    def predict(self, features: FloatMatrix) -> FloatVector:
        """Return the value, the probability of the second of two classes, or the probabilities of all classes."""
        return np.asarray(self.results_.predict(_with_constant(features)))

    def predict_proba(self, features: FloatMatrix) -> FloatMatrix:
        predicted = self.predict(features)
        if self.target.task == "binary":
            return np.column_stack([1.0 - predicted, predicted])
        return predicted.reshape(len(features), -1)

    def scorer(self) -> LinearScorer:
        """Return the fitted coefficients as a scorer; those of the reference class are zero."""
        params = np.asarray(self.results_.params, dtype=float)
        params = params.reshape(len(params), -1).T
        if self.target.task == "multiclass":
            params = np.vstack([np.zeros(params.shape[1]), params])
        link = {"binary": "logistic", "multiclass": "softmax"}.get(self.target.task, "identity")
        return LinearScorer(tuple(map(tuple, params[:, 1:].tolist())), tuple(params[:, 0].tolist()), link)


def _with_constant(features: FloatMatrix) -> FloatMatrix:
    return np.column_stack([np.ones(len(features)), features])

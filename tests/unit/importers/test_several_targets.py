"""One target of a model that was fitted on several."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, MultiTaskLasso, Ridge
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult

RANDOM = np.random.default_rng(0)
X = pd.DataFrame(RANDOM.normal(size=(200, 3)), columns=list("abc"))
Y = pd.DataFrame({"p": X["a"] * 2 + X["b"], "q": X["c"] - X["a"], "r": X["b"] ** 2})
CLASSES = pd.DataFrame(
    {"p": np.where(Y["p"] > 0, "yes", "no"), "q": np.array(["a", "b", "c", "d"])[np.digitize(Y["q"], [-1, 0, 1])]}
)
REGRESSORS: dict[str, Any] = {
    "tree": DecisionTreeRegressor(max_depth=6),
    "forest": RandomForestRegressor(10),
    "extra trees": ExtraTreesRegressor(5, max_depth=5),
    "linear": LinearRegression(),
    "ridge without intercept": Ridge(fit_intercept=False),
    "lasso of several tasks": MultiTaskLasso(0.01),
    "neighbors": KNeighborsRegressor(3),
    "network": MLPRegressor(hidden_layer_sizes=(5,), max_iter=50, solver="lbfgs"),
    "one each": MultiOutputRegressor(Ridge()),
    "pipeline": make_pipeline(StandardScaler(), RandomForestRegressor(5)),
    "pipeline of one each": make_pipeline(StandardScaler(), MultiOutputRegressor(DecisionTreeRegressor(max_depth=4))),
}
CLASSIFIERS: dict[str, Any] = {
    "tree": DecisionTreeClassifier(max_depth=5),
    "forest": RandomForestClassifier(10),
    "one each": MultiOutputClassifier(LogisticRegression()),
}


def imported(estimator: Any, output: int | None) -> ImportResult:
    sample = pd.concat([X, Y], axis=1).to_csv(index=False).encode()
    return convert(ImportRequest("m.pkl", pickle.dumps(estimator), "m", "p", sample=sample, output=output))


@pytest.mark.filterwarnings("ignore:lbfgs failed")
@pytest.mark.parametrize("name", REGRESSORS)
def test_each_target_of_a_regressor_is_imported_as_the_original_predicts_it(name: str) -> None:
    estimator = REGRESSORS[name].fit(X, Y)
    for output in range(3):
        result = imported(estimator, output)
        assert (result.signature.target.task, result.runner) == ("regression", "")
        assert result.compared >= 200 and result.largest_difference <= result.allowed_difference


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_target_of_a_classifier_has_its_own_classes(name: str) -> None:
    estimator = CLASSIFIERS[name].fit(X, CLASSES)
    assert imported(estimator, 0).signature.target.classes == ("no", "yes")
    result = imported(estimator, 1)
    assert len(result.signature.target.classes) == 4
    assert result.largest_difference <= result.allowed_difference


def test_the_target_must_be_named_if_there_are_several_and_only_then() -> None:
    several, one = LinearRegression().fit(X, Y), LinearRegression().fit(X, Y["p"])
    for output in (None, 3):
        with pytest.raises(ImportRefused, match="predicts 3 targets: choose one with --output, 0 to 2"):
            imported(several, output)
    with pytest.raises(ImportRefused, match="leave out --output"):
        imported(one, 0)
    with pytest.raises(ImportRefused, match="Fit one model per target"):
        imported(RegressorChain(Ridge()).fit(X, Y), 1)

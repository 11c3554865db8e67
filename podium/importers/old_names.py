"""Pickles of older releases: current names of moved globals, removed classes, and which releases were verified."""

from __future__ import annotations

import re
from typing import Any

Global = tuple[str, str]

MOVED_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "_loss": "sklearn._loss._loss",
    "pandas.core.frame": "pandas",
    "pandas.core.series": "pandas",
    "pandas.core.indexes.numeric": "pandas",
    "pandas.core.indexes.base": "pandas",
    "pandas.core.indexes.multi": "pandas",
    "sklearn.ensemble.bagging": "sklearn.ensemble._bagging",
    "sklearn.ensemble.forest": "sklearn.ensemble._forest",
    "sklearn.ensemble.gradient_boosting": "sklearn.ensemble._gb",
    "sklearn.ensemble.iforest": "sklearn.ensemble._iforest",
    "sklearn.ensemble.voting": "sklearn.ensemble._voting",
    "sklearn.ensemble.voting_classifier": "sklearn.ensemble._voting",
    "sklearn.ensemble.weight_boosting": "sklearn.ensemble._weight_boosting",
    "sklearn.externals.joblib.numpy_pickle": "joblib.numpy_pickle",
    "sklearn.impute": "sklearn.impute._base",
    "sklearn.linear_model.base": "sklearn.linear_model._base",
    "sklearn.linear_model.coordinate_descent": "sklearn.linear_model._coordinate_descent",
    "sklearn.linear_model.logistic": "sklearn.linear_model._logistic",
    "sklearn.linear_model.ridge": "sklearn.linear_model._ridge",
    "sklearn.linear_model.stochastic_gradient": "sklearn.linear_model._stochastic_gradient",
    "sklearn.neighbors._dist_metrics": "sklearn.metrics._dist_metrics",
    "sklearn.neighbors.classification": "sklearn.neighbors._classification",
    "sklearn.neighbors.dist_metrics": "sklearn.metrics._dist_metrics",
    "sklearn.neighbors.ball_tree": "sklearn.neighbors._ball_tree",
    "sklearn.neighbors.kd_tree": "sklearn.neighbors._kd_tree",
    "sklearn.neighbors.regression": "sklearn.neighbors._regression",
    "sklearn.neural_network.multilayer_perceptron": "sklearn.neural_network._multilayer_perceptron",
    "sklearn.preprocessing.data": "sklearn.preprocessing._data",
    "sklearn.preprocessing.imputation": "sklearn.impute._base",
    "sklearn.preprocessing.label": "sklearn.preprocessing._label",
    "sklearn.svm.classes": "sklearn.svm._classes",
    "sklearn.tree.tree": "sklearn.tree._classes",
    "sklearn.utils": "sklearn.utils._bunch",
}
"""Current names of modules; `numpy.core` became `numpy._core` with all its modules."""

MOVED_NAMES: dict[Global, Global] = {
    ("numpy.random", "__RandomState_ctor"): ("numpy.random._pickle", "__randomstate_ctor"),
    ("pandas", "Int64Index"): ("pandas", "Index"),
    ("pandas", "Float64Index"): ("pandas", "Index"),
    ("pandas", "_new_Index"): ("pandas.core.indexes.base", "_new_Index"),
    ("sklearn.impute._base", "Imputer"): ("sklearn.impute._base", "SimpleImputer"),
    ("sklearn.preprocessing._data", "OneHotEncoder"): ("sklearn.preprocessing._encoders", "OneHotEncoder"),
}

REBUILT_MODULES = (
    *("sklearn._loss._loss", "sklearn.ensemble._gb_losses", "sklearn.ensemble._hist_gradient_boosting.loss"),
    *("sklearn.metrics._dist_metrics", "sklearn.neighbors._kd_tree", "sklearn.neighbors._ball_tree"),
)
"""Modules of parts that are rebuilt from the parameters or the arrays of their owner: losses, and indexes of neighbours."""
OLD_CLASSES = {
    ("sklearn.ensemble._gb", name)
    for name in (
        *("BinomialDeviance", "MultinomialDeviance", "ExponentialLoss", "LeastSquaresError", "LeastAbsoluteError"),
        *("HuberLossFunction", "QuantileLossFunction", "LogOddsEstimator", "ScaledLogOddsEstimator"),
        *("PriorProbabilityEstimator", "MeanEstimator", "QuantileEstimator", "ZeroEstimator"),
    )
} | {("sklearn.compose._column_transformer", "_RemainderColsList")}


def current_name(module: str, name: str) -> Global:
    """Return the current module and name of a global."""
    if module == "numpy.core" or module.startswith("numpy.core."):
        module = "numpy._core" + module.removeprefix("numpy.core")
    module = MOVED_MODULES.get(module, module)
    return MOVED_NAMES.get((module, name), (module, name))


class RemovedObject:
    """Stands for an object whose class was removed: its state is kept as data."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


def removed_class(global_name: Global) -> type[RemovedObject] | None:
    """Return a class that stands for a removed class, or for a part that is rebuilt from the parameters of its owner."""
    if global_name in OLD_CLASSES or global_name[0] in REBUILT_MODULES:
        return type(global_name[1], (RemovedObject,), {})
    return None


def release(version: Any) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", str(version))[:2])


VERIFIED = frozenset(
    re.findall(
        r"\w+",
        """
        AdaBoostClassifier BaggingClassifier BaggingRegressor CalibratedClassifierCV ColumnTransformer DecisionTreeClassifier
        DecisionTreeRegressor DummyClassifier DummyRegressor ElasticNet ExtraTreeClassifier ExtraTreeRegressor
        ExtraTreesClassifier ExtraTreesRegressor FunctionTransformer GaussianNB GradientBoostingClassifier
        GradientBoostingRegressor GridSearchCV HistGradientBoostingClassifier HistGradientBoostingRegressor Imputer
        IsolationForest KNeighborsClassifier KNeighborsRegressor LabelBinarizer LabelEncoder Lasso LinearDiscriminantAnalysis
        LinearRegression LogisticRegression MLPClassifier MLPRegressor MinMaxScaler OneHotEncoder OrdinalEncoder Pipeline
        RandomForestClassifier RandomForestRegressor RandomizedSearchCV Ridge SVC SVR SimpleImputer StackingClassifier
        StackingRegressor StandardScaler TransformedTargetRegressor VotingClassifier VotingRegressor
        _BinMapper _CalibratedClassifier _SigmoidCalibration
        """,
    )
)
"""Estimators of scikit-learn 0.19 to today that were compared with the release that wrote them, or share the code of such."""

CHANGED_SINCE = {"IsolationForest": (0, 21)}
"""Verified estimators whose formula was another one before this release."""

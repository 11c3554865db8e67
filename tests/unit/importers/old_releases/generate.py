"""Write small models with the libraries of the Python that runs this program, and their predictions for ROWS rows.

    python generate.py FOLDER

The archive holds such folders, written by scikit-learn 0.19.2 to 1.5.2, statsmodels 0.10.2 to 0.14.1, LightGBM 3.0.0 and
3.3.5, and XGBoost 1.7.6 and 3.2.0. The program runs with Python 3.6 and newer.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

try:
    import joblib
except ImportError:
    from sklearn.externals import joblib

ROWS = 8
random = np.random.RandomState(3)
X = pd.DataFrame({"a": random.normal(size=90).round(2), "b": (random.normal(size=90) * 10).round(1)}, columns=["a", "b"])
X["c"] = random.uniform(0, 5, 90).round(2)
T = X.assign(t=np.array(["k", "l", "m"])[random.randint(0, 3, 90)])
Y = ((X.a + X.b / 10 + random.normal(size=90) / 2) > 0).astype(int).values
Y3 = np.array(["u", "v", "w"])[np.digitize(X.a + X.b / 10 + random.normal(size=90) / 2, [-0.7, 0.7])]
Z = (X.a * 2 + X.c + random.normal(size=90) / 10).values
NUMBERS = X.values


def sklearn_models():
    from sklearn import ensemble, naive_bayes, neighbors, preprocessing, svm, tree
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    two = {"n_estimators": 2, "max_depth": 2, "random_state": 0}
    scaler, logistic = preprocessing.StandardScaler(), LogisticRegression(solver="lbfgs")
    yield "logistic", make_pipeline(scaler, logistic), NUMBERS, Y
    yield "ovr", LogisticRegression(solver="liblinear"), NUMBERS, Y3
    yield "ridge", make_pipeline(preprocessing.MinMaxScaler(), Ridge()), NUMBERS, Z
    yield "tree", tree.DecisionTreeClassifier(max_depth=2), NUMBERS, Y3
    yield "forest", ensemble.RandomForestClassifier(**two), NUMBERS, Y
    yield "extra", ensemble.ExtraTreesRegressor(**two), NUMBERS, Z
    yield "boosting", ensemble.GradientBoostingClassifier(**two), NUMBERS, Y
    yield "boosting3", ensemble.GradientBoostingClassifier(**two), NUMBERS, Y3
    yield "quantile", ensemble.GradientBoostingRegressor(loss="quantile", alpha=0.3, **two), NUMBERS, Z
    yield "exponential", ensemble.GradientBoostingClassifier(loss="exponential", **two), NUMBERS, Y
    yield "ada", ensemble.AdaBoostClassifier(n_estimators=2), NUMBERS, Y
    yield "bagging", ensemble.BaggingClassifier(tree.DecisionTreeClassifier(max_depth=2), n_estimators=2), NUMBERS, Y
    yield "isolation", ensemble.IsolationForest(n_estimators=2, max_samples=8), NUMBERS, None
    yield "svr", svm.SVR(gamma="auto", epsilon=2.0), NUMBERS, Z
    yield "bayes", naive_bayes.GaussianNB(), NUMBERS, Y3
    yield "neighbors", neighbors.KNeighborsClassifier(), NUMBERS, Y
    yield "lda", LinearDiscriminantAnalysis(), NUMBERS, Y3
    yield "calibrated", CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2), NUMBERS, Y
    voters = [("a", logistic), ("b", naive_bayes.GaussianNB())]
    yield "voting", ensemble.VotingClassifier(voters, voting="soft"), NUMBERS, Y
    try:
        from sklearn.impute import SimpleImputer as Imputer
    except ImportError:
        from sklearn.preprocessing import Imputer
    yield "imputed", make_pipeline(Imputer(), logistic), NUMBERS, Y
    try:
        from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    except ImportError:
        return
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore")
    steps = [("n", Imputer(), ["a", "b"]), ("t", encoder, ["t"])]
    yield (
        "columns",
        make_pipeline(ColumnTransformer(steps, remainder="passthrough"), tree.DecisionTreeClassifier(max_depth=3)),
        T,
        Y,
    )
    yield "target", TransformedTargetRegressor(LinearRegression(), transformer=scaler), NUMBERS, Z
    try:
        try:
            from sklearn.experimental import enable_hist_gradient_boosting  # noqa: F401
        except ImportError:
            pass
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, StackingClassifier
    except ImportError:
        return
    yield "histogram", HistGradientBoostingClassifier(max_iter=2, max_depth=2, max_bins=8), NUMBERS, Y
    yield "histogram3", HistGradientBoostingClassifier(max_iter=2, max_depth=2, max_bins=8), NUMBERS, Y3
    yield "histogram-r", HistGradientBoostingRegressor(max_iter=2, max_depth=2, max_bins=8), NUMBERS, Z
    yield "stacking", StackingClassifier(voters, cv=2), NUMBERS, Y


def lightgbm_models():
    import lightgbm

    yield "lightgbm", lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4), X, Y


def xgboost_models():
    import xgboost
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    two = {"n_estimators": 2, "max_depth": 2, "random_state": 0}
    gaps = X.mask(random.rand(90, 3) < 0.1)
    steps = [("n", StandardScaler(), ["a", "b"]), ("t", OneHotEncoder(handle_unknown="ignore"), ["t"])]
    yield "xgb", xgboost.XGBClassifier(**two), gaps.fillna(X[:ROWS]), Y
    yield "xgb3", xgboost.XGBClassifier(**two), X, np.digitize(X.a, [-0.7, 0.7])
    yield "xgb-r", xgboost.XGBRegressor(**two), NUMBERS, Z
    yield "xgb-poisson", xgboost.XGBRegressor(objective="count:poisson", **two), X, np.round(Z - Z.min())
    yield "xgb-dart", xgboost.XGBRegressor(booster="dart", rate_drop=0.5, **two), X, Z
    yield "xgb-linear", xgboost.XGBRegressor(booster="gblinear"), X, Z
    yield "xgb-forest", xgboost.XGBRFClassifier(**two), X, Y
    yield "xgb-zero", xgboost.XGBRegressor(missing=0.0, **two), X.round(0), Z
    yield "xgb-pipeline", make_pipeline(ColumnTransformer(steps), xgboost.XGBClassifier(**two)), T, Y
    if xgboost.__version__ >= "3.1":
        categories = T.assign(t=pd.Categorical(T.t))
        model = xgboost.XGBRegressor(enable_categorical=True, max_cat_to_onehot=1, **two)
        yield "xgb-category", model, categories, Z + 10 * categories.t.cat.codes.values * 7 % 4


def statsmodels_results():
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    exog, table = sm.add_constant(X[["b", "a"]]), T.assign(y=Y)
    yield "logit", sm.Logit(pd.Series(Y, name="y"), exog).fit(disp=0), exog
    yield "glm", sm.GLM(Y, exog, family=sm.families.Binomial()).fit(), exog
    yield "formula", smf.logit("y ~ a + C(t)", table).fit(disp=0), table


def predicted(model, rows):
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    return (model.score_samples if hasattr(model, "offset_") and hasattr(model, "score_samples") else model.predict)(rows)


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    predictions = {}
    for models in (sklearn_models, lightgbm_models, xgboost_models):
        try:
            for name, model, rows, target in models():
                model.fit(rows, target)
                joblib.dump(model, str(folder / (name + ".joblib")))
                predictions[name] = predicted(model, rows[:ROWS]).tolist()
                if name.startswith("xgb") and hasattr(model, "save_model"):
                    for kind in ("json", "ubj"):
                        model.save_model(str(folder / (name + "." + kind)))
        except ImportError:
            continue
    try:
        for name, result, rows in statsmodels_results():
            predictions["sm-" + name] = np.asarray(result.predict(rows[:ROWS])).tolist()
            result.remove_data()
            result.save(str(folder / ("sm-" + name + ".pkl")))
    except ImportError:
        pass
    (folder / "predictions.json").write_text(json.dumps(predictions))
    T[:ROWS].to_csv(str(folder / "rows.csv"), index=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]))

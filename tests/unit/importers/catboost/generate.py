"""Write small CatBoost models, the rows to compare them on, and CatBoost's own predictions.

    python generate.py FOLDER
    tar -C FOLDER -cJf files.tar.xz .

The archive holds files of CatBoost 1.2.10; those of 1.2 were compared, too. Rows are JSON, because some numbers are infinite.
"""

import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor, Pool
from sklearn.ensemble import VotingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

random = np.random.RandomState(5)
N = 1200
LETTERS = [chr(97 + number) * length for number, length in enumerate((1, 3, 4, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 200))]
X = pd.DataFrame({"a": random.normal(size=N).round(2), "b": (random.normal(size=N) * 10).round(1)})
X["c"] = random.uniform(0, 5, N).round(2)
T = X.assign(
    s=np.array(["ä", "b c", "d"])[random.randint(0, 3, N)],
    t=np.array(LETTERS)[random.randint(0, len(LETTERS), N)],
    u=random.randint(0, 6, N),
)
X.loc[::7, "a"] = np.nan
T.loc[::7, "a"] = np.nan
NUMBERS, CATEGORIES = ["a", "b", "c"], ["s", "t", "u"]
NOISE = random.normal(size=N)
SUM = np.nan_to_num(X.a) + X.b / 10 + NOISE / 2
Y, Y3 = (SUM > 0).astype(int), np.digitize(SUM, [-0.7, 0.7])
Z = np.abs(SUM) + 0.1
MIXED = random.randint(0, 2, (6, 200, 2, 3))[
    T.u, T.t.str.len() % 200, (T.b > 0).astype(int), T.s.map({"ä": 0, "b c": 1, "d": 2})
]

ROWS = T.head(40).copy()
ROWS.loc[:5, "a"] = [np.nan, np.inf, -np.inf, 1e300, -1e300, 3.4028235e38]
ROWS.loc[6:9, "b"] = [np.nan, 1e30, -1e30, 1e-320]
ROWS.loc[10:12, "c"] = [np.nan, np.inf, -np.inf]
ROWS.loc[10:16, "t"] = "new"
ROWS.loc[14:20, "s"] = "other"
ROWS.loc[18:24, "u"] = 77
"""Numbers at the limits, missing numbers, and categories that no training row has."""
SMALL = {"iterations": 4, "depth": 3, "verbose": 0, "allow_writing_files": False, "random_seed": 0, "thread_count": 1}
LOSSES = (
    *("RMSE", "MAE", "Quantile:alpha=0.3", "LogLinQuantile", "MAPE", "Huber:delta=1", "Expectile:alpha=0.3", "Lq:q=3"),
    *("LogCosh", "RMSPE", "Poisson", "Tweedie:variance_power=1.5", "Cox"),
)


EXPLAINED = ("SymmetricTree", "SymmetricTree-3", "Depthwise", "Lossguide-3", "RMSE")


def models():
    """Yield the name, the fitted model, its columns, and the function that predicts."""
    for policy in ("SymmetricTree", "Depthwise", "Lossguide"):
        yield policy, CatBoostClassifier(grow_policy=policy, **SMALL).fit(X, Y), NUMBERS
        yield f"{policy}-3", CatBoostClassifier(grow_policy=policy, **SMALL).fit(X, Y3), NUMBERS
    for mode in ("Min", "Max"):
        yield f"nan-{mode}", CatBoostRegressor(nan_mode=mode, **SMALL).fit(X, SUM), NUMBERS
    yield "mixed-nan", CatBoostRegressor(per_float_feature_quantization="0:nan_mode=Max", **SMALL).fit(X, SUM), NUMBERS
    for loss in LOSSES:
        yield loss.split(":")[0], CatBoostRegressor(loss_function=loss, **SMALL).fit(X, Z), NUMBERS
    labels = np.array(["low", "middle", "high"])[Y3]
    yield "each", CatBoostClassifier(loss_function="MultiClassOneVsAll", **SMALL).fit(X, labels), NUMBERS
    yield "texts", CatBoostClassifier(**SMALL).fit(X, labels), NUMBERS
    yield "absent", CatBoostClassifier(class_names=[2, 1, 0], loss_function="MultiClass", **SMALL).fit(X, Y * 2), NUMBERS
    yield "booleans", CatBoostClassifier(**SMALL).fit(X, Y == 1), NUMBERS
    yield "floats", CatBoostClassifier(**SMALL).fit(X, Y3 + 0.5), NUMBERS
    yield "share", CatBoostClassifier(loss_function="CrossEntropy", **SMALL).fit(X, 1 / (1 + Z)), NUMBERS
    yield "focal", CatBoostClassifier(loss_function="Focal:focal_alpha=0.5;focal_gamma=1", **SMALL).fit(X, Y), NUMBERS
    yield "nameless", CatBoostClassifier(**SMALL).fit(X.values, Y), NUMBERS
    yield "plain", CatBoost({"loss_function": "Logloss", **SMALL}).fit(X, Y), NUMBERS
    yield "unused", CatBoostRegressor(ignored_features=[1], **SMALL).fit(X, SUM), NUMBERS
    scaled = CatBoostRegressor(**SMALL).fit(X, SUM)
    scaled.set_scale_and_bias(2.5, -1.25)
    yield "scaled", scaled, NUMBERS
    yield "constant", CatBoostRegressor(**SMALL).fit(X * 0, Z), NUMBERS
    group = np.arange(N) // 10
    yield "ranker", CatBoostRanker(loss_function="QueryRMSE", **SMALL).fit(X, Z, group_id=group), NUMBERS
    bigger = {**SMALL, "iterations": 8, "depth": 4, "cat_features": CATEGORIES, "learning_rate": 0.5}
    columns = NUMBERS + CATEGORIES
    yield "one-hot", CatBoostClassifier(one_hot_max_size=99, **bigger).fit(T, MIXED), columns
    single = {"max_ctr_complexity": 1, "model_size_reg": 0, **bigger}
    kinds = {"simple_ctr": ["Borders", "Buckets:Prior=0.3", "BinarizedTargetMeanValue", "Counter"]}
    yield "statistics", CatBoostClassifier(**kinds, **single).fit(T, MIXED), columns
    yield "statistics-3", CatBoostClassifier(**single).fit(T, MIXED + (T.u == 3)), columns
    yield "grown", CatBoostClassifier(grow_policy="Lossguide", max_leaves=8, **single).fit(T, MIXED), columns
    several = {"max_ctr_complexity": 4, "model_size_reg": 0, "one_hot_max_size": 3, **bigger}
    kinds["combinations_ctr"] = ["Borders", "Counter", "BinarizedTargetMeanValue"]
    yield "combinations", CatBoostClassifier(**kinds, **several).fit(T, MIXED), columns
    yield "combinations-r", CatBoostRegressor(**several).fit(T, MIXED + Z), columns
    nameless = {**several, "cat_features": [3, 4, 5]}
    yield "nameless-c", CatBoostClassifier(**nameless).fit(T.values, MIXED), columns


def write(folder):
    expected, contributions = {}, {}
    for name, model, columns in models():
        rows = ROWS[columns] if name != "nameless" and name != "nameless-c" else ROWS[columns].values
        pool = Pool(T, MIXED, cat_features=CATEGORIES) if "s" in columns else None
        model.save_model(str(folder / f"{name}.cbm"))
        model.save_model(str(folder / f"{name}.json"), format="json")
        if pool is not None and not name.startswith("nameless"):
            model.save_model(str(folder / f"{name}-pool.json"), format="json", pool=pool)
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model, 4))
        is_classifier = isinstance(model, CatBoostClassifier) or name == "plain"
        scores = np.asarray(model.predict(rows, "Probability") if is_classifier else model.predict(rows))
        expected[name] = (scores[:, [0, 2]] if name == "absent" else scores).tolist()
        if name in EXPLAINED:
            contributions[name] = model.get_feature_importance(Pool(rows), type="ShapValues").tolist()
    for name, model, table in (
        ("pipeline", make_pipeline(StandardScaler(), CatBoostClassifier(**SMALL)), X),
        ("pipeline-c", make_pipeline(CatBoostClassifier(cat_features=CATEGORIES, **SMALL)), T),
        ("voting", VotingClassifier([("c", CatBoostClassifier(**SMALL)), ("b", GaussianNB())], voting="soft"), X.fillna(0)),
    ):
        model.fit(table, Y)
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model, 4))
        rows = ROWS[table.columns].assign(**ROWS[NUMBERS].clip(-1e9, 1e9).fillna(0))
        expected[name] = model.predict_proba(rows).tolist()
    for name, model in (
        ("uncertain", CatBoostRegressor(loss_function="RMSEWithUncertainty", **SMALL).fit(X, Z)),
        ("targets", CatBoostRegressor(loss_function="MultiRMSE", **SMALL).fit(X, np.column_stack([Z, SUM]))),
        ("text", CatBoostClassifier(text_features=["s"], **SMALL).fit(T[["a", "s"]], Y)),
        (
            "embedding",
            CatBoostClassifier(embedding_features=[0], **SMALL).fit([[list(row)] for row in T[["b", "c"]].values[:40]], Y[:40]),
        ),
    ):
        model.save_model(str(folder / f"refused-{name}.cbm"))
    (folder / "refused-unfitted.pkl").write_bytes(pickle.dumps(CatBoostClassifier(**SMALL), 4))
    (folder / "rows.json").write_text(json.dumps(ROWS.astype({"u": str}).to_dict("list")))
    T.head(200).to_csv(folder / "sample.csv", index=False)
    (folder / "contributions.json").write_text(json.dumps(contributions))
    (folder / "predictions.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]))

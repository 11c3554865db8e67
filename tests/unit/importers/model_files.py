"""Model files as written by their libraries."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import joblib
import lightgbm
import numpy as np
import onnx
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, PoissonRegressor, Ridge, TweedieRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor


def people(rows: int = 240) -> pd.DataFrame:
    """Return rows of height (cm), weight (kg), shoe size (EU), town and sex."""
    random = np.random.default_rng(5)
    man = random.random(rows) < 0.5
    return pd.DataFrame(
        {
            "height": np.where(man, random.normal(178, 7, rows), random.normal(165, 6, rows)).round(1),
            "weight": np.where(man, random.normal(80, 9, rows), random.normal(64, 8, rows)).round(1),
            "shoe": np.where(man, random.normal(43, 1.5, rows), random.normal(38.5, 1.5, rows)).round(1),
            "town": random.choice(["Aachen", "Bonn", "Köln"], rows),
            "sex": np.where(man, "male", "female"),
        }
    )


NUMBERS = ["height", "weight", "shoe"]


def numbers_csv(names: list[str], rows: int = 60) -> bytes:
    """Return a sample of standard normal numbers."""
    table = pd.DataFrame(np.random.default_rng(2).normal(size=(rows, len(names))), columns=names)
    return table.to_csv(index=False).encode()


def fitted(estimator: Any, text: bool = False, named: bool = True) -> Any:
    table = people()
    inputs = table[[*NUMBERS, "town"]] if text else table[NUMBERS]
    target = table["sex"] if is_classifier(estimator) else table["weight"] + table["shoe"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(inputs if named else inputs.to_numpy(), target)


def mixed() -> list[tuple[str, Any]]:
    """Return classifiers of different kinds for an ensemble."""
    tree, forest = DecisionTreeClassifier(max_depth=3, random_state=0), HistGradientBoostingClassifier(max_iter=3)
    return [("a", make_pipeline(StandardScaler(), LogisticRegression())), ("b", tree), ("c", forest)]


def forest_of_two() -> RandomForestClassifier:
    return RandomForestClassifier(2, max_depth=3, random_state=0)


def with_gaps() -> pd.DataFrame:
    return (
        numeric_people()
        .mask(np.random.default_rng(1).random((240, len(numeric_people().columns))) < 0.1)
        .assign(kids=numeric_people()["kids"])
    )


def joblib_bytes(estimator: Any, compress: Any = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(estimator, file, compress=compress)
    return file.getvalue()


def pipeline_with_text() -> Any:
    steps = [("n", StandardScaler(), NUMBERS), ("t", OneHotEncoder(handle_unknown="ignore"), ["town"])]
    return fitted(make_pipeline(ColumnTransformer(steps), LogisticRegression()), text=True)


def encoded_text_and(model: Any, encoder: Any, numbers: Any = "passthrough") -> Any:
    steps = [("n", numbers, NUMBERS), ("t", encoder, ["town"])]
    return fitted(make_pipeline(ColumnTransformer(steps), model), text=True)


def lightgbm_classifier() -> lightgbm.LGBMClassifier:
    table = people()
    frame = table[[*NUMBERS, "town"]].astype({"town": "category"})
    return lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, cat_smooth=0.1, min_child_samples=5).fit(frame, table["sex"])


def onnx_of(estimator: Any, zipmap: bool) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {id(estimator): {"zipmap": zipmap}}
        model = convert_sklearn(estimator, initial_types=[("x", FloatTensorType([None, 3]))], options=options)
    data: bytes = model.SerializeToString()
    return data


def onnx_by_column() -> bytes:
    """Return a graph of y = 2a - b + 1 with one input per column."""
    tensor = onnx.helper.make_tensor_value_info
    inputs = [tensor(name, onnx.TensorProto.FLOAT, [None, 1]) for name in ("a", "b")]
    numbers = [onnx.numpy_helper.from_array(np.array([n], np.float32), name) for n, name in ((2, "two"), (1, "one"))]
    nodes = [
        onnx.helper.make_node("Mul", ["a", "two"], ["m"]),
        onnx.helper.make_node("Sub", ["m", "b"], ["s"]),
        onnx.helper.make_node("Add", ["s", "one"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [tensor("y", onnx.TensorProto.FLOAT, [None, 1])], numbers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 10
    data: bytes = model.SerializeToString()
    return data


def archive(member: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr(member, "x")
    return file.getvalue()


def sigmoid_network() -> bytes:
    """Return a graph of sigmoid(2a - b) with one output."""
    tensor = onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.array([[2.0], [-1.0]], np.float32), "w")
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["s"]), onnx.helper.make_node("Sigmoid", ["s"], ["y"])]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(nodes, "g", [tensor("x", kind, [None, 2])], [tensor("y", kind, [None, 1])], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 10
    data: bytes = model.SerializeToString()
    return data


def numeric_people() -> pd.DataFrame:
    table = people()
    noise = np.random.default_rng(0).random(len(table)) < 0.15  # without noise the classes are separable and the fit diverges
    return table.assign(male=((table["sex"] == "male") ^ noise).astype(int), kids=(table["shoe"] - 34).clip(lower=0).round())


def with_spaces() -> pd.DataFrame:
    table = numeric_people()
    return table.assign(**{"shoe size": table["shoe"], "code": pd.Categorical(table["town"]).codes})


def design_matrix() -> pd.DataFrame:
    return sm.add_constant(numeric_people()[["height", "weight"]])


def fit_statsmodels(model: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pickle.dumps(model.fit(disp=0))


def removed_data(model: Any, summarized: bool = False) -> bytes:
    """Return a result saved without its rows; a summary before keeps the names of the columns in a cache."""
    result = model.fit(disp=0)
    if summarized:
        result.summary()
    file = io.BytesIO()
    result.save(file, remove_data=True)
    return file.getvalue()


FAMILIES = sm.families

MODELS: dict[str, Callable[[], bytes]] = {
    "logistic.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), LogisticRegression()))),
    "named.pkl": lambda: pickle.dumps(fitted(LogisticRegression(max_iter=500))),
    "zlib.joblib": lambda: joblib_bytes(fitted(DecisionTreeClassifier(max_depth=4)), ("zlib", 3)),
    "gzip.joblib": lambda: joblib_bytes(fitted(DecisionTreeRegressor(max_depth=5)), ("gzip", 3)),
    "xz.joblib": lambda: joblib_bytes(fitted(RandomForestClassifier(12, random_state=0)), ("xz", 1)),
    "bz2.joblib": lambda: joblib_bytes(fitted(ExtraTreesRegressor(9, random_state=0)), ("bz2", 1)),
    "protocol2.pkl": lambda: pickle.dumps(fitted(GaussianNB()), protocol=2),
    "boosting.joblib": lambda: joblib_bytes(fitted(GradientBoostingClassifier(n_estimators=9))),
    "histogram.joblib": lambda: joblib_bytes(fitted(HistGradientBoostingClassifier(max_iter=9))),
    "histogram-r.joblib": lambda: joblib_bytes(fitted(HistGradientBoostingRegressor(max_iter=9))),
    "svc.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), SVC(probability=True)))),
    "calibrated.joblib": lambda: joblib_bytes(fitted(CalibratedClassifierCV(LinearSVC(), ensemble=False))),
    "neighbours.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), KNeighborsClassifier()))),
    "perceptron.joblib": lambda: joblib_bytes(
        fitted(make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(5,), max_iter=30)))
    ),
    "imputed.joblib": lambda: joblib_bytes(fitted(make_pipeline(SimpleImputer(), LinearRegression()))),
    "searched.joblib": lambda: joblib_bytes(fitted(GridSearchCV(DecisionTreeClassifier(), {"max_depth": [2, 3]}))),
    "voting.joblib": lambda: joblib_bytes(fitted(VotingClassifier(mixed(), voting="soft", weights=[2, 1, 1]))),
    "voting-r.joblib": lambda: joblib_bytes(fitted(VotingRegressor([("a", LinearRegression()), ("b", SVR())]))),
    "stacking.joblib": lambda: joblib_bytes(fitted(StackingClassifier(mixed(), passthrough=True))),
    "stacking-r.joblib": lambda: joblib_bytes(
        fitted(StackingRegressor([("a", Lasso(0.1)), ("b", KNeighborsRegressor(weights="distance"))], RandomForestRegressor(5)))
    ),
    "bagging.joblib": lambda: joblib_bytes(fitted(BaggingClassifier(LogisticRegression(max_iter=500), 4, max_features=2))),
    "bagging-r.joblib": lambda: joblib_bytes(fitted(BaggingRegressor(n_estimators=4))),
    "ada-boost.joblib": lambda: joblib_bytes(fitted(AdaBoostClassifier(n_estimators=4))),
    "isotonic.joblib": lambda: joblib_bytes(fitted(CalibratedClassifierCV(forest_of_two(), method="isotonic", cv=2))),
    "sigmoid.joblib": lambda: joblib_bytes(
        fitted(CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression())))
    ),
    "lda.joblib": lambda: joblib_bytes(fitted(LinearDiscriminantAnalysis())),
    "lda-before.joblib": lambda: joblib_bytes(fitted(make_pipeline(LinearDiscriminantAnalysis(), LogisticRegression()))),
    "qda.joblib": lambda: joblib_bytes(fitted(QuadraticDiscriminantAnalysis())),
    "bernoulli.joblib": lambda: joblib_bytes(fitted(BernoulliNB(binarize=60.0))),
    "multinomial.joblib": lambda: joblib_bytes(fitted(make_pipeline(MinMaxScaler(clip=True), MultinomialNB()))),
    "manhattan.joblib": lambda: joblib_bytes(fitted(KNeighborsClassifier(3, p=1, weights="distance"))),
    "svr.joblib": lambda: joblib_bytes(fitted(make_pipeline(RobustScaler(), SVR(kernel="poly")))),
    "isolation.joblib": lambda: joblib_bytes(fitted(IsolationForest(n_estimators=9, random_state=0))),
    "k-means.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), KMeans(3, random_state=0)))),
    "target-log.joblib": lambda: joblib_bytes(
        fitted(TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1))
    ),
    "target-power.joblib": lambda: joblib_bytes(fitted(TransformedTargetRegressor(Ridge(), transformer=PowerTransformer()))),
    "dummy.joblib": lambda: joblib_bytes(fitted(DummyClassifier())),
    "mini-batches.joblib": lambda: joblib_bytes(fitted(MiniBatchKMeans(3, n_init=1, random_state=0))),
    "target-scaled.joblib": lambda: joblib_bytes(fitted(TransformedTargetRegressor(Ridge(), transformer=StandardScaler()))),
    "function.joblib": lambda: joblib_bytes(fitted(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()))),
    "bins.joblib": lambda: joblib_bytes(fitted(make_pipeline(KBinsDiscretizer(4, encode="onehot-dense"), Ridge()))),
    "quantiles.joblib": lambda: joblib_bytes(fitted(make_pipeline(QuantileTransformer(n_quantiles=9), Ridge()))),
    "power.joblib": lambda: joblib_bytes(fitted(make_pipeline(PowerTransformer(), LogisticRegression()))),
    "polynomial.joblib": lambda: joblib_bytes(fitted(make_pipeline(PolynomialFeatures(3), StandardScaler(), Ridge()))),
    "normalizer.joblib": lambda: joblib_bytes(fitted(make_pipeline(Normalizer(), SelectKBest(k=2), GaussianNB()))),
    "components.joblib": lambda: joblib_bytes(fitted(make_pipeline(PCA(2, whiten=True), LogisticRegression()))),
    "indicator.joblib": lambda: joblib_bytes(
        make_pipeline(SimpleImputer(add_indicator=True), Ridge()).fit(with_gaps()[NUMBERS], with_gaps()["kids"])
    ),
    "text-union.joblib": lambda: joblib_bytes(
        encoded_text_and(Ridge(), OneHotEncoder(), FeatureUnion([("a", MaxAbsScaler()), ("b", Binarizer(threshold=70.0))]))
    ),
    "poisson.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), PoissonRegressor()))),
    "tweedie.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), TweedieRegressor(power=1.5)))),
    "one-vs-rest.joblib": lambda: joblib_bytes(
        OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(people()[NUMBERS], people()["town"])
    ),
    "text-infrequent.joblib": lambda: joblib_bytes(
        encoded_text_and(LogisticRegression(), OneHotEncoder(min_frequency=83, handle_unknown="infrequent_if_exist"))
    ),
    "text-target.joblib": lambda: joblib_bytes(encoded_text_and(LogisticRegression(), TargetEncoder(random_state=0))),
    "text-imputed.joblib": lambda: joblib_bytes(
        encoded_text_and(
            RandomForestClassifier(5),
            make_pipeline(
                SimpleImputer(strategy="most_frequent"), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
            ),
            SimpleImputer(),
        )
    ),
    "text-lightgbm.joblib": lambda: joblib_bytes(
        encoded_text_and(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1), OneHotEncoder(handle_unknown="ignore"))
    ),
    "voting-lightgbm.joblib": lambda: joblib_bytes(
        fitted(
            VotingClassifier([("a", lightgbm.LGBMClassifier(n_estimators=3, verbose=-1)), ("b", GaussianNB())], voting="soft")
        )
    ),
    "histogram-categories.joblib": lambda: joblib_bytes(
        HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5).fit(
            people()[[*NUMBERS, "town"]].astype({"town": "category"}), people()["sex"]
        )
    ),
    "text.joblib": lambda: joblib_bytes(pipeline_with_text()),
    "text-forest.joblib": lambda: joblib_bytes(
        encoded_text_and(RandomForestClassifier(9), OneHotEncoder(handle_unknown="ignore"), StandardScaler())
    ),
    "text-dropped.joblib": lambda: joblib_bytes(
        encoded_text_and(GradientBoostingClassifier(n_estimators=5), OneHotEncoder(drop="first"))
    ),
    "text-ordinal.joblib": lambda: joblib_bytes(
        encoded_text_and(
            HistGradientBoostingClassifier(max_iter=5),
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            make_pipeline(SimpleImputer(), StandardScaler()),
        )
    ),
    "three-classes.joblib": lambda: joblib_bytes(
        HistGradientBoostingClassifier(max_iter=4).fit(people()[NUMBERS], people()["town"])
    ),
    "lightgbm.joblib": lambda: joblib_bytes(lightgbm_classifier()),
    "booster.pkl": lambda: pickle.dumps(lightgbm_classifier().booster_),
    "lightgbm.txt": lambda: lightgbm_classifier().booster_.model_to_string().encode(),
    "logit-formula.pkl": lambda: fit_statsmodels(smf.logit("male ~ height + C(town) + weight", numeric_people())),
    "logit-matrix.pkl": lambda: fit_statsmodels(sm.Logit(numeric_people()["male"], design_matrix())),
    "glm-binomial.pkl": lambda: fit_statsmodels(smf.glm("male ~ height + town", numeric_people(), family=FAMILIES.Binomial())),
    "glm-poisson.pkl": lambda: fit_statsmodels(sm.GLM(numeric_people()["kids"], design_matrix(), family=FAMILIES.Poisson())),
    "ols.pkl": lambda: pickle.dumps(smf.ols("weight ~ height + town", numeric_people()).fit()),
    "formula-log.pkl": lambda: fit_statsmodels(smf.logit("male ~ np.log(height) + weight", numeric_people())),
    "formula-products.pkl": lambda: pickle.dumps(
        smf.ols("weight ~ height * C(town) + I(shoe**2) + np.sqrt(shoe + 1) - 1", numeric_people()).fit()
    ),
    "formula-quoted.pkl": lambda: fit_statsmodels(
        smf.glm("kids ~ Q('shoe size') + town:height", with_spaces(), family=FAMILIES.Poisson())
    ),
    "formula-splines.pkl": lambda: fit_statsmodels(
        smf.logit("male ~ bs(height, df=5) + cr(weight, df=3):C(town) + center(shoe) + cc(shoe, df=4)", numeric_people())
    ),
    "formula-classes.pkl": lambda: fit_statsmodels(smf.mnlogit("code ~ I(height / 100) + weight", with_spaces())),
    "formula-removed.pkl": lambda: removed_data(smf.ols("weight ~ height * town + np.log(shoe)", numeric_people())),
    "mnlogit.pkl": lambda: fit_statsmodels(sm.MNLogit(pd.Categorical(numeric_people()["town"]).codes, design_matrix())),
    "plain.onnx": onnx_by_column,
}
"""By file name, functions that return the bytes."""

NAMELESS: dict[str, Callable[[], bytes]] = {
    "arrays.joblib": lambda: joblib_bytes(fitted(make_pipeline(StandardScaler(), LogisticRegression()), named=False)),
    "probit-array.pkl": lambda: fit_statsmodels(
        sm.Probit(numeric_people()["male"].to_numpy(), sm.add_constant(people()[NUMBERS].to_numpy()))
    ),
    "logit-removed.pkl": lambda: removed_data(sm.Logit(numeric_people()["male"], sm.add_constant(people()[NUMBERS]))),
    "zipmap.onnx": lambda: onnx_of(fitted(LogisticRegression(max_iter=500)), True),
    "tensor.onnx": lambda: onnx_of(fitted(RandomForestClassifier(5, random_state=0)), False),
}
"""Models of the columns `NUMBERS` whose files do not name them."""

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a-scaler": (lambda: joblib_bytes(StandardScaler().fit(people()[NUMBERS])), "neither a classifier nor a regressor"),
    "a-coding-of-sums": (lambda: pickle.dumps(smf.ols("weight ~ C(town, Sum)", numeric_people()).fit()), "is not a column"),
    "a-frame": (lambda: pickle.dumps(people()), "holds a DataFrame"),
    "text": (lambda: b"hello", "unknown file format"),
    "an-empty-file": (lambda: b"", "unknown file format"),
    "a-truncated-joblib": (lambda: joblib_bytes(fitted(RandomForestClassifier(5)))[:-300], "damaged"),
    "a-truncated-zlib": (lambda: joblib_bytes(fitted(RandomForestClassifier(5)), 3)[:-30], "damaged"),
    "a-truncated-lightgbm": (lambda: lightgbm_classifier().booster_.model_to_string().encode()[:1500], "LightGBM model is in"),
    "a-truncated-onnx": (lambda: onnx_by_column()[:-20], "unknown file format|not a valid"),
    "a-skops-file": (lambda: archive("schema.json"), "this is a skops file.*joblib.dump"),
    "a-pytorch-file": (lambda: archive("archive/data.pkl"), "this is a PyTorch file.*torch.onnx.export"),
    "arrays-of-numpy": (lambda: archive("arr_0.npy"), "archive of numpy arrays"),
    "another-archive": (lambda: archive("readme.txt"), "holds readme.txt, not a model"),
    "a-zip": (lambda: b"PK\x03\x04 and more", "not a complete Keras network"),
}
"""By name, functions that return the bytes of a file that is refused, and the message."""

"""The part of an import that runs in a fork server and its sandboxed child."""

from __future__ import annotations

import codecs
import functools
import io
import pickle

import h5py
import joblib
import numpy as np
import pandas as pd
import statsmodels.api as sm
from lightgbm import LGBMClassifier
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from podium.importers import unpickling
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.estimator_loader import import_libraries
from podium.importers.import_request import ImportRequest
from podium.sandbox.child_process import Work
from podium.sandbox.fork_server import Worker


def warm_up_libraries() -> None:
    """Convert toy models first, so that all lazy imports happen before the sandbox forbids opening files."""
    rows = np.arange(12.0).reshape(6, 2)
    table = pd.DataFrame(rows, columns=["a", "b"]).assign(t=["x", "y"] * 3)
    steps = [("n", StandardScaler(), ["a", "b"]), ("t", OneHotEncoder(), ["t"])]
    labels = [0, 1, 0, 1, 1, 0]
    pipeline = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(table, labels)
    for model in (
        pipeline,
        RandomForestClassifier(2).fit(table[["a", "b"]], labels),
        HistGradientBoostingClassifier(max_iter=1).fit(table[["a", "b"]], labels),
        KNeighborsClassifier(2).fit(table[["a", "b"]], labels),
        KMeans(2).fit(table[["a", "b"]]),
        make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=1, verbose=-1)).fit(table[["a", "b"]], labels),
    ):
        convert(ImportRequest("x", pickle.dumps(model), "m", "y"))
    import_libraries()
    convert(ImportRequest("x", pickle.dumps(sm.OLS(table["a"], sm.add_constant(table[["b"]] ** 2)).fit()), "m", "y"))
    parquet = io.BytesIO()
    table.assign(y=labels).to_parquet(parquet)
    for sample in (table.assign(y=labels).to_csv(index=False).encode(), parquet.getvalue()):
        convert(ImportRequest("x", pickle.dumps(pipeline), "m", "y", sample=sample))
    for encoding in ("ascii", "latin-1", "cp437"):  # codecs are imported on first use
        codecs.lookup(encoding)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["x"] = rows
    h5py.File(memory)["x"][:]


def prepare(request: ImportRequest) -> Work:
    """Read the list of allowed globals outside the sandbox, which forbids opening files."""
    return functools.partial(_convert, request, unpickling.allowed_globals(request.allowed))


def _convert(request: ImportRequest, allowed: unpickling.AllowedGlobals) -> str:
    with joblib.parallel_config(backend="sequential"):  # the sandbox forbids starting processes
        return convert(request, allowed).to_json()


WORKER = Worker(warm_up_libraries, prepare, expected=(ImportRefused,))

"""The child that turns one file: a request on standard input, `turned` or `refused` with the rest on standard output."""

from __future__ import annotations

import codecs
import functools
import io
import os
import pickle
import sys

import h5py
import joblib
import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.sandbox.process_limits import enter_sandbox


def rehearse() -> None:
    """Turn small models, so that every library has opened what it will need: afterwards no file can be."""
    rows = np.arange(12.0).reshape(6, 2)
    table = pd.DataFrame(rows, columns=["a", "b"]).assign(t=["x", "y"] * 3)
    parts = [("n", StandardScaler(), ["a", "b"]), ("t", OneHotEncoder(), ["t"])]
    labels = [0, 1, 0, 1, 1, 0]
    pipeline = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, labels)
    for model in (
        pipeline,
        RandomForestClassifier(2).fit(rows, labels),
        HistGradientBoostingClassifier(max_iter=1).fit(rows, labels),
    ):
        convert(ImportRequest("x", pickle.dumps(model), "m", "y"))
    convert(ImportRequest("x", pickle.dumps(sm.OLS(rows[:, 0], sm.add_constant(rows[:, 1] ** 2)).fit()), "m", "y"))
    parquet = io.BytesIO()
    table.assign(y=labels).to_parquet(parquet)
    for sample in (table.assign(y=labels).to_csv(index=False).encode(), parquet.getvalue()):
        convert(ImportRequest("x", pickle.dumps(pipeline), "m", "y", sample=sample))
    for encoding in ("ascii", "latin-1", "cp437"):  # modules that are imported when a file first needs them
        codecs.lookup(encoding)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["x"] = rows
    h5py.File(memory)["x"][:]


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    request = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    enter = functools.partial(enter_sandbox, request["seconds"], request["max_bytes"], answers)
    try:
        rehearse()
        with joblib.parallel_config(backend="sequential"):  # others would start processes or threads
            words = "turned\n" + convert(request["wish"], enter).to_json()
    except ImportRefused as refusal:
        words = f"refused\n{refusal}"
    except MemoryError:
        words = "refused\nthe file needs more memory than an import may have"
    except Exception as error:
        words = f"refused\nthe file made its reader fail ({type(error).__name__})"
    with os.fdopen(answers, "w") as pipe:
        pipe.write(words)
    os._exit(0)  # without the exit handlers that a file may have set


if __name__ == "__main__":
    main()

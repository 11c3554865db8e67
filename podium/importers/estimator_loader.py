"""Estimators of scikit-learn that a runner process scores with scikit-learn itself."""

from __future__ import annotations

import importlib
import pickle

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from podium.importers import unpickling
from podium.importers.estimator_scores import best_estimator, score_function
from podium.importers.state_checks import validate_state
from podium.models.onnx_scorer import text_of
from podium.sandbox.runner import Answer, Loader
from podium.schema.columns import Column

COLUMNS = (Column("a", "number"), Column("t", "category", categories=("x", "y")))
"""The columns of the models with which the libraries are tried."""


def import_libraries() -> None:
    """Import every module that a pickle may name, and what they load on first use, since the sandbox forbids opening files."""
    for module in sorted({module for module, _ in unpickling.allowed_globals()}):
        importlib.import_module(module)
    rows = pd.DataFrame({"a": [0.0, 1.0], "t": ["x", "y"]})
    steps = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["t"]))
    for model in (LogisticRegression(), KNeighborsClassifier(1), HistGradientBoostingClassifier(max_iter=1)):
        pipeline = make_pipeline(steps, model).fit(rows, [0, 1])
        load(pickle.dumps((pickle.dumps(pipeline), COLUMNS)))(np.zeros((1, 2)).tobytes())


def load(content: bytes) -> Answer:
    """Construct the estimator from the allow-list. Raises ImportRefused."""
    file, columns = pickle.loads(content)  # noqa: S301 - written by `RunnerScorer`; the file in it is bytes
    allowed = unpickling.allowed_globals()
    validate_state(unpickling.scan(file, allowed)[0])
    scores = score_function(best_estimator(unpickling.construct(file, allowed)), columns)
    names = [column.name for column in columns]

    def answer(request: bytes) -> bytes:
        frame = pd.DataFrame(np.frombuffer(request).reshape(-1, len(names)), columns=names)
        texts = {c.name: [text_of(code, c.categories) for code in frame[c.name]] for c in columns if c.is_text}
        frame = frame.assign(**texts)
        with joblib.parallel_config(backend="sequential"):  # the sandbox forbids starting processes
            return np.vstack([scores(frame.iloc[row : row + 1]) for row in range(len(frame))]).tobytes()

    return answer


LOADER = Loader(import_libraries, load)

"""Estimators of scikit-learn that a runner process scores with scikit-learn itself."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
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
        load(pickle.dumps((pickle.dumps(pipeline), COLUMNS)))(pickle.dumps(np.zeros((1, 2))))
    texts = make_pipeline(TfidfVectorizer(strip_accents="unicode", stop_words="english"), LogisticRegression())
    texts.fit(["good text", "bad text"], [0, 1])
    load(pickle.dumps((pickle.dumps(texts), (Column("t", "text"),))))(pickle.dumps(np.array([["text"]], object)))


def load(content: bytes) -> Answer:
    """Construct the estimator from the allow-list. Raises ImportRefused."""
    file, columns = pickle.loads(content)  # noqa: S301 - written by `RunnerScorer`; the file in it is bytes
    allowed = unpickling.allowed_globals()
    validate_state(unpickling.scan(file, allowed)[0])
    scores = score_function(best_estimator(unpickling.construct(file, allowed)), columns)

    def answer(request: bytes) -> bytes:
        features = pickle.loads(request)  # noqa: S301 - written by `RunnerScorer`
        frame = pd.DataFrame({column.name: _cells(column, features[:, index]) for index, column in enumerate(columns)})
        with joblib.parallel_config(backend="sequential"):  # the sandbox forbids starting processes
            return np.vstack([scores(frame.iloc[row : row + 1]) for row in range(len(frame))]).tobytes()

    return answer


def _cells(column: Column, features: np.ndarray) -> Any:
    """Return the cells of a column: numbers, texts, or the categories with these codes."""
    if column.kind == "text":
        return features
    if column.is_text:
        return [text_of(code, column.categories) for code in features]
    return features.astype(float)


LOADER = Loader(import_libraries, load)

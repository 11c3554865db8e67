"""CatBoost's files predict what CatBoost predicted; catboost/generate.py made them. Damaged ones are refused."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.importers.booster_stand_ins import catboost_estimator
from podium.importers.catboost import read_catboost
from podium.importers.catboost_binary import read_binary
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.golden_rows import GOLDEN, verified_fast_path
from podium.models.model import Model
from podium.models.onnx_scorer import OnnxScorer
from podium.models.scorers import LightGBMScorer
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE


def members() -> dict[str, bytes]:
    with tarfile.open(Path(__file__).parent / "catboost" / "files.tar.xz") as archive:
        return {file.name: content.read() for file in archive if (content := archive.extractfile(file))}


def model_name(file: str) -> str:
    return PurePath(file).stem.removesuffix("-pool")


FILES = members()
EXPECTED: dict[str, Any] = json.loads(FILES["predictions.json"])
ROWS = pd.DataFrame(json.loads(FILES["rows.json"]))
SAMPLE = pd.read_csv(io.BytesIO(FILES["sample.csv"]))
NUMBERS, CATEGORIES = ["a", "b", "c"], ["s", "t", "u"]
MODELS = [name for name in FILES if model_name(name) in EXPECTED]
WITH_CATEGORIES = ("one-hot", "statistics", "statistics-3", "grown", "combinations", "combinations-r", "nameless-c")
COMBINATIONS = ("combinations", "combinations-r", "nameless-c")


def expected(name: str) -> np.ndarray:
    scores = np.array(EXPECTED[name])
    return scores if scores.ndim == 2 else scores[:, None]


def imported(data: bytes, sample: pd.DataFrame | None = None) -> ImportResult:
    return convert(ImportRequest("m", data, "m", "y", sample=None if sample is None else sample.to_csv(index=False).encode()))


def model_of(result: ImportResult) -> Model:
    return load(result.files["models/m.pkl"])


@pytest.mark.parametrize("file", MODELS)
def test_a_file_predicts_what_catboost_predicted(file: str) -> None:
    name = model_name(file)
    columns = NUMBERS + CATEGORIES if name in WITH_CATEGORIES else NUMBERS
    result = imported(FILES[file], SAMPLE[columns])
    model, rows = model_of(result), ROWS[columns]
    if name == "pipeline":  # scikit-learn's scaler accepts no infinite numbers
        rows = rows.clip(-1e9, 1e9)
    assert result.kind == ("scikit-learn" if name == "pipeline" else "CatBoost")
    assert result.allowed_difference == 1e-9
    assert [column.name for column in model.signature.inputs] == columns
    assert isinstance(model.scorer, OnnxScorer if name in COMBINATIONS else LightGBMScorer)
    with np.errstate(over="ignore"):
        assert np.allclose(model.scores(rows), expected(name), rtol=1e-12, atol=1e-12)
    assert verified_fast_path(model, GOLDEN.validate_json(result.files[GOLDEN_FILE])) is not None

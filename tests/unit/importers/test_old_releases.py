"""Files that older releases wrote predict what these releases predicted; old_releases/generate.py made them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import pytest

from podium.importers.comparison_rows import sample_rows
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.serialization import load
from podium.tables.readers import read_table

ARCHIVE = Path(__file__).parent / "old_releases" / "files.tar.xz"


def members() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        files = ((member.name, archive.extractfile(member)) for member in archive.getmembers() if member.isfile())
        return {name: file.read() for name, file in files if file}


FILES = members()
UNTOLD = ("xgb-zero.json", "xgb-zero.ubj")
"""XGBoost's own files do not tell which number marks missing cells."""
CHANGED = ("0.19.2/isolation.joblib", "0.20.4/isolation.joblib")
"""The formula of the scores was another one."""
MODELS = [
    name
    for name in FILES
    if not name.endswith(("predictions.json", "rows.csv")) and PurePath(name).name not in UNTOLD and name not in CHANGED
]


def imported(name: str, table: pd.DataFrame) -> ImportResult:
    return convert(ImportRequest(PurePath(name).name, FILES[name], "m", "y", sample=table.to_csv(index=False).encode()))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_an_older_release_predicts_what_that_release_predicted(name: str) -> None:
    path = PurePath(name)
    rows = pd.read_csv(io.BytesIO(FILES[f"{path.parent}/rows.csv"]))
    reads_text = path.stem in ("columns", "xgb-pipeline", "xgb-category", "sm-formula")
    table = rows if reads_text else rows[["a", "b", "c"]]
    if path.stem in ("sm-logit", "sm-glm"):
        table = rows[["b", "a"]]
    if path.stem == "xgb-zero":
        table = table.round(0)
    result = imported(name, table)
    model = load(result.files["models/m.pkl"])
    typed = sample_rows(read_table(table.to_csv(index=False).encode()), model.signature.inputs)
    scores = model.scores(typed)[:8]
    expected = np.array(json.loads(FILES[f"{path.parent}/predictions.json"])[path.stem])
    if expected.ndim == 1:
        expected = np.column_stack([1 - expected, expected]) if scores.shape[1] == 2 else expected[:, None]
    assert np.allclose(scores, expected, rtol=3e-6, atol=3e-6)


def test_the_archive_covers_the_supported_releases() -> None:
    folders = {PurePath(name).parts[0] for name in FILES}
    assert folders >= {"0.19.2", "0.20.4", "0.22.2", "0.24.2", "1.0.2", "1.2.2", "1.3.2", "1.5.2"}
    assert folders >= {"xgboost-1.7.6", "xgboost-3.2.0"}
    assert len(MODELS) > 250


@pytest.mark.parametrize("name", CHANGED)
def test_an_estimator_with_another_formula_is_refused(name: str) -> None:
    with pytest.raises(ImportRefused, match="IsolationForest was saved by scikit-learn 0"):
        imported(name, pd.read_csv(io.BytesIO(FILES["0.19.2/rows.csv"]))[["a", "b", "c"]])

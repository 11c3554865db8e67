"""Trees of CatBoost give CatBoost's own sums for any number, close to the borders as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catboost import CatBoost, Pool

from podium.models.catboost_trees import catboost_trees
from podium.models.lightgbm_export import weighted_boosters
from podium.models.scorers import LightGBMScorer
from podium.schema.arrays import FloatMatrix

OBJECTIVES = {
    "Logloss": "objective=binary sigmoid:1",
    "MultiClass": "objective=multiclass num_class:3",
    "RMSE": "objective=regression",
}
SETTINGS = {"iterations": 40, "depth": 4, "thread_count": 1, "random_seed": 0, "allow_writing_files": False}


def table(loss: str) -> tuple[FloatMatrix, np.ndarray]:
    """Column 1 has missing numbers, column 2 is large, and column 3 has neighbours of 64 bits that are equal in 32 bits."""
    random = np.random.default_rng(3)
    features = random.normal(size=(600, 4))
    features[::5, 1] = np.nan
    features[:, 2] *= 1e30
    features[:, 3] = 16_777_216.0 + random.integers(0, 9, 600) / 4
    signal = features[:, 0] + np.nan_to_num(features[:, 1]) + features[:, 2] / 1e30 + features[:, 3] % 3
    if loss == "RMSE":
        return features, 1000.0 + signal
    return features, np.digitize(signal, [1.0] if loss == "Logloss" else [0.0, 2.0]).astype(float)


def fitted(loss: str, folder: Path, **settings: Any) -> tuple[CatBoost, dict[str, Any]]:
    features, labels = table(loss)
    model = CatBoost({**SETTINGS, "loss_function": loss, "logging_level": "Silent", **settings}).fit(Pool(features, labels))
    model.save_model(str(folder / "model.json"), format="json")
    return model, json.loads((folder / "model.json").read_bytes())


def hard_rows(content: dict[str, Any]) -> FloatMatrix:
    """Return rows with numbers at the borders and next to them, in 32 and 64 bits, and at the limits."""
    rows = list(table("RMSE")[0][:50])
    for column in content["features_info"]["float_features"]:
        for border in column["borders"][:40]:
            near = np.float32(border)
            with np.errstate(over="ignore"):
                before, after = np.nextafter(near, -np.float32(np.inf)), np.nextafter(near, np.float32(np.inf))
            for number in (before, near, (float(near) + float(after)) / 2, after):
                for value in (np.nextafter(float(number), -np.inf), float(number), np.nextafter(float(number), np.inf)):
                    rows.append(rows[len(rows) % 50].copy())
                    rows[-1][column["flat_feature_index"]] = value
    for value in (np.nan, np.inf, -np.inf, 1e300, -1e300, 3.4028235e38, 3.4028236e38, 1e-320, -0.0):
        for index in range(4):
            rows.append(rows[index].copy())
            rows[-1][index] = value
    return np.array(rows)


def expected(model: CatBoost, rows: FloatMatrix, loss: str, rounds: int = 0) -> FloatMatrix:
    kind = "RawFormulaVal" if loss == "RMSE" else "Probability"
    return np.asarray(model.predict(rows, prediction_type=kind, ntree_end=rounds)).reshape(len(rows), -1)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_numbers_at_the_borders_and_limits_have_the_scores_of_catboost(loss: str, tmp_path: Path) -> None:
    model, content = fitted(loss, tmp_path)
    rows = hard_rows(content)
    scorer = catboost_trees(content, 4, OBJECTIVES[loss])
    scores = scorer.scores(rows)
    assert np.allclose(scores, expected(model, rows, loss), rtol=1e-14, atol=1e-14)
    vector, score = scorer.compiled()
    for row, known in zip(rows.tolist(), scores.tolist(), strict=True):
        vector[:] = row
        assert list(score()) == known
    assert scorer.check(4) == len(scores[0])


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("rounds", [1, 7, 40, 99])
def test_the_first_rounds_are_a_model(loss: str, rounds: int, tmp_path: Path) -> None:
    model, content = fitted(loss, tmp_path)
    rows = table(loss)[0]
    scores = catboost_trees(content, 4, OBJECTIVES[loss], rounds).scores(rows)
    assert np.allclose(scores, expected(model, rows, loss, min(rounds, 40)), rtol=1e-14, atol=1e-14)


def test_merged_models_have_the_weighted_sums_and_covers(tmp_path: Path) -> None:
    models = [fitted("RMSE", tmp_path, depth=depth) for depth in (2, 5)]
    rows = hard_rows(models[1][1])
    scorers = [catboost_trees(content, 4, OBJECTIVES["RMSE"]) for _, content in models]
    merged = weighted_boosters([(scorers[0], 0.3), (scorers[1], 0.9)])
    with np.errstate(over="ignore"):
        sums = [expected(model, rows, "RMSE") for model, _ in models]
    assert merged.float32
    assert np.allclose(merged.scores(rows), 0.3 * sums[0] + 0.9 * sums[1], rtol=1e-12, atol=1e-12)
    _assert_contributions_add_up(merged, rows[:60])


def _assert_contributions_add_up(scorer: LightGBMScorer, rows: FloatMatrix) -> None:
    explainer = scorer.explainer(range(4), 4)
    assert np.allclose(explainer.base + explainer.of(rows).sum(axis=2), scorer.scores(rows), rtol=1e-9, atol=1e-9)


def test_contributions_are_those_of_catboost(tmp_path: Path) -> None:
    model, content = fitted("RMSE", tmp_path)
    features, labels = table("RMSE")
    explainer = catboost_trees(content, 4, OBJECTIVES["RMSE"]).explainer(range(4), 4)
    known = model.get_feature_importance(Pool(features, labels), type="ShapValues")
    assert np.allclose(explainer.of(features)[:, 0], known[:, :-1], rtol=1e-9, atol=1e-9)

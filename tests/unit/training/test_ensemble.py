"""The models of the folds together are the model that is served, and what is ranked is what is served."""

from __future__ import annotations

import time
from dataclasses import replace

import lightgbm
import numpy as np
import pandas as pd
import pytest

from podium.models.lightgbm_export import weighted_boosters
from podium.models.scorers import EnsembleScorer, LightGBMScorer, LinearScorer, NotExplainable, mean_of_linear
from podium.models.serialization import dump, load
from podium.project import BadProject, Project, parse_project
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Target
from podium.tables.labeled_rows import LabeledRows
from podium.training.candidates import Candidate
from podium.training.ensemble import ensemble_of
from podium.training.families import DEFAULT_FAMILIES
from podium.training.local_run import leaderboard, train_candidates
from podium.training.project_kinds import kind_of
from podium.training.reading import read_training_table
from podium.training.splits import training_rows
from podium.training.weighting import calibration, greedy_weights, link_of, raw_scores

TARGETS = {
    "binary": Target("y", "binary", (0, 1)),
    "multiclass": Target("y", "multiclass", (0, 1, 2)),
    "regression": Target("y", "regression"),
}


def table(rows: int = 300) -> tuple[FloatMatrix, FloatMatrix]:
    random = np.random.default_rng(1)
    features = random.normal(size=(rows, 4))
    return features, features[:, 0] * features[:, 1] + 0.3 * random.normal(size=rows)


def boosters(task: str) -> list[LightGBMScorer]:
    features, y = table()
    labels = y if task == "regression" else np.digitize(y, [0.0] if task == "binary" else [-0.3, 0.3]).astype(float)
    make = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    fitted = [make(n_estimators=trees, num_leaves=7, verbosity=-1).fit(features, labels) for trees in (5, 12)]
    outputs = 3 if task == "multiclass" else 1
    return [LightGBMScorer(each.booster_.model_to_string(), 4, outputs, binary_probability=task == "binary") for each in fitted]


@pytest.mark.parametrize("task", TARGETS)
def test_weighted_boosters_have_the_weighted_sums_before_the_link(task: str) -> None:
    features, _ = table()
    first, second = boosters(task)
    raw = [raw_scores(scorer.scores(features), TARGETS[task]) for scorer in (first, second)]
    merged = weighted_boosters([(first, 0.25), (second, 0.75)])
    expected = link_of(TARGETS[task])(0.25 * raw[0] + 0.75 * raw[1])
    assert np.allclose(merged.scores(features), expected, rtol=0, atol=1e-12)
    assert merged.check(4) == (2 if task == "binary" else merged.outputs)


def test_the_mean_of_linear_models_has_the_mean_of_their_sums() -> None:
    features, _ = table()
    parts = [
        LinearScorer(((1.0, 2.0, 0.0, 1.0),), (0.5,), "logistic"),
        LinearScorer(((0.0, 4.0, 1.0, 1.0),), (1.5,), "logistic"),
    ]
    raw = [raw_scores(part.scores(features), TARGETS["binary"]) for part in parts]
    mean = mean_of_linear([(parts[0], 0.5), (parts[1], 0.5)])
    assert np.allclose(mean.scores(features), link_of(TARGETS["binary"])((raw[0] + raw[1]) / 2), rtol=0, atol=1e-12)


def test_weights_are_chosen_as_long_as_they_help() -> None:
    truth = np.linspace(0.0, 1.0, 50)
    parts = [(truth + 0.3)[:, None], (truth - 0.3)[:, None], np.zeros((50, 1))]
    weights = greedy_weights(parts, truth, lambda known, scores: -float(np.mean((scores[:, 0] - known) ** 2)))
    assert weights == [0.5, 0.5, 0.0]
    assert greedy_weights(parts[:1], truth, lambda known, scores: 1.0) == [1.0]


def test_some_rows_of_a_large_table_decide() -> None:
    truth = np.linspace(0.0, 1.0, 50_000)
    sizes = set()

    def score(known: np.ndarray, scores: FloatMatrix) -> float:
        sizes.add((len(known), len(scores)))
        return -float(np.mean((scores[:, 0] - known) ** 2))

    assert greedy_weights([(truth + 0.3)[:, None], (truth - 0.3)[:, None]], truth, score) == [0.5, 0.5]
    assert sizes == {(10_000, 10_000)}


def trained(frame: pd.DataFrame, **entries: object) -> tuple[LabeledRows, Project, list[Candidate]]:
    project = parse_project({"name": "p", "data": "s3://podium/x", "target": "y", **entries}, "p")
    rows = kind_of(project).prepare(read_training_table(frame.to_csv(index=False).encode(), project, ""))
    return rows, project, train_candidates(rows, project)


def mixed_frame(task: str, rows: int = 250) -> pd.DataFrame:
    features, y = table(rows)
    frame = pd.DataFrame(features, columns=list("abcd")).assign(t=np.where(features[:, 2] > 0, "u", "v"))
    frame["y"] = y + features[:, 3]
    return frame if task == "regression" else frame.assign(y=np.where(frame["y"] > 0, "yes", "no"))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_what_is_served_is_what_was_ranked(task: str) -> None:
    """Each family's scores on the test rows are those of its stored file, one row at a time too."""
    rows, project, candidates = trained(mixed_frame(task), n_trials=2)
    board = leaderboard(rows, candidates, project)
    assert board["better_than_constant"].iloc[0]
    inputs = rows.inputs
    for candidate in candidates:
        stored = load(dump(candidate.model))
        scores = candidate.model.scores(inputs)
        assert np.array_equal(stored.scores(inputs), scores)
        score_row = stored.compiled()
        assert np.array_equal([score_row(row) for row in inputs.itertuples(index=False, name=None)], scores)
    by_family = {candidate.model.family: candidate for candidate in candidates}
    ensemble = by_family.get("ensemble")
    if ensemble:
        assert isinstance(ensemble.model.scorer, EnsembleScorer)
        assert sum(ensemble.params["weights"].values()) == pytest.approx(1.0, abs=1e-3)


def test_every_row_has_an_out_of_fold_prediction() -> None:
    rows, project, candidates = trained(mixed_frame("binary"), families=["linear", "random-forest", "lightgbm"], n_trials=2)
    count = len(training_rows(rows, project).target)
    for candidate in candidates:
        assert candidate.validation_rows.tolist() == list(range(count))
        assert np.isfinite(candidate.validation_scores).all()


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_shuffled_target_is_not_better_than_a_constant(task: str) -> None:
    frame = mixed_frame(task)
    frame["y"] = np.random.default_rng(100).permutation(frame["y"])
    rows, project, candidates = trained(frame, n_trials=2)
    board = leaderboard(rows, candidates, project)
    assert not board["better_than_constant"].any()


def test_the_leaderboard_compares_the_same_rows_of_all_models() -> None:
    """A much worse model is not tied, whichever way its validation rows were drawn."""
    frame = mixed_frame("binary").assign(y=np.where(table(250)[0][:, 0] > 0, "yes", "no"))
    rows, project, candidates = trained(frame, families=["linear", "random-forest"], n_trials=1, ensemble=False)
    best, worst = sorted(candidates, key=lambda candidate: -candidate.score_val)
    noise = replace(worst, validation_scores=worst.validation_scores[::-1], score_val=0.5)
    board = leaderboard(rows, [best, noise], project)
    assert board["tied_with_best"].tolist() == [True, False]
    assert board["better_than_constant"].tolist() == [True, False]


def test_identical_models_are_tied() -> None:
    rows, project, candidates = trained(mixed_frame("binary"), families=["linear"], ensemble=False)
    board = leaderboard(rows, candidates * 5, project)
    assert board["tied_with_best"].all()


@pytest.mark.slow
def test_a_longer_budget_is_not_needed_for_a_small_table() -> None:
    started = time.monotonic()
    _, _, candidates = trained(mixed_frame("regression", 60), budget="1h")
    assert len(candidates) >= 4
    assert time.monotonic() - started < 120


def test_a_tiny_budget_tries_the_first_setting_of_every_family() -> None:
    _, _, candidates = trained(mixed_frame("binary"), budget="1s", ensemble=False)
    assert [candidate.model.family for candidate in candidates] == list(DEFAULT_FAMILIES)


@pytest.mark.parametrize("budget", ["", "30", "s", "0s", "-5s", "1.5h", "30 s"])
def test_a_budget_is_a_number_with_a_unit(budget: str) -> None:
    with pytest.raises(BadProject, match="budget"):
        parse_project({"name": "p", "target": "y", "budget": budget}, "p")


def test_budgets_are_seconds() -> None:
    project = parse_project({"name": "p", "target": "y"}, "p")
    assert [project.with_budget(text).budget_seconds for text in ("30s", "5m", "2h")] == [30.0, 300.0, 7200.0]
    with pytest.raises(BadProject, match="--budget"):
        project.with_budget("soon")


def test_contributions_of_an_ensemble_of_numbers_add_up_to_its_prediction() -> None:
    features, _ = table()
    linear = LinearScorer(((1.0, 2.0, 0.0, 1.0),), (0.5,), "identity")
    ensemble = EnsembleScorer((linear, *boosters("regression")), (0.5, 0.3, 0.2))
    explainer = ensemble.explainer([0, 0, 1, 2], 3)
    total = explainer.base + explainer.of(features).sum(axis=2)
    assert np.allclose(total, ensemble.scores(features), rtol=0, atol=1e-9)
    with pytest.raises(NotExplainable, match="ask for one of them"):
        EnsembleScorer(tuple(boosters("binary")), (0.5, 0.5)).explainer([0, 0, 1, 2], 3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_that_are_too_sure_are_calibrated(task: str, factor: float) -> None:
    random = np.random.default_rng(0)
    classes = ("a", "b") if task == "binary" else ("a", "b", "c")
    sums = random.normal(size=(4000, 1 if task == "binary" else 3))
    target = Target("y", task, classes)
    probabilities = link_of(target)(sums)
    truth = np.array([random.choice(len(classes), p=row) for row in probabilities], dtype=float)
    assert calibration(sums / factor, truth, target) == pytest.approx(factor, rel=0.1)
    assert calibration(sums, np.zeros(4000), Target("y", "regression")) == 1.0


@pytest.mark.parametrize(("limit", "members"), [(10_000, 2), (1e-6, 0)])
def test_a_slow_ensemble_is_left_out(limit: float, members: int) -> None:
    entries = {"families": ["linear", "random-forest"], "n_trials": 1, "gates": {"max_latency_ms": limit}, "ensemble": False}
    rows, project, (low, high) = trained(mixed_frame("regression"), **entries)
    project = project.model_copy(update={"ensemble": True})
    truth = rows.target.to_numpy()[:, None]
    pair = [replace(low, validation_scores=truth - 1.0), replace(high, validation_scores=truth + 1.0)]
    ensemble = ensemble_of(pair, rows, project)
    assert len(ensemble.params["weights"] if ensemble else ()) == members

"""Preparation, splits, feature selection, ranking and the data report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.models.metrics import UnknownMetric, metric_name
from podium.project import Project
from podium.schema.columns import Target
from podium.schema.data_errors import BadData
from podium.schema.reading import Finding
from podium.settings import StoreSettings
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.readers import read_table
from podium.training.data_report import build_data_report, report_html
from podium.training.feature_selection import select_features
from podium.training.local_run import leaderboard, train_candidates, train_locally
from podium.training.project_kinds import prepare
from podium.training.splits import folds, train_and_test, training_rows
from podium.training.version_files import VersionReservation
from tests import tables


def project(**entries: object) -> Project:
    return Project.model_validate({"name": "x", "data": "s3://podium/x", "target": "y", **entries})


def rows_of(frame: pd.DataFrame, **entries: object) -> LabeledRows:
    return prepare(read_table(frame.to_csv(index=False).encode()), project(**entries))


def test_cleaning_drops_unusable_rows_and_columns_with_a_note() -> None:
    frame = tables.flowers().rename(columns={"kind": "y"}).astype({"y": object})
    frame.loc[0, "y"] = None
    frame = pd.concat([frame, frame.iloc[[5]]])
    rows = rows_of(frame.assign(same="x"), cleaning={"drop_duplicates": True})
    assert len(rows.inputs) == len(rows.target) == 239
    assert list(map(str, rows.findings)) == [
        'y: its 3 whole numbers are classes, not amounts [task = "regression"]',
        "same: left out: constant",
        "y: 1 row without a target left out: empty",
        "1 repeated row left out [cleaning.drop_duplicates = false]",
    ]


def test_marks_for_missing_values_and_thousands_separators_get_a_note() -> None:
    cells = {"dose": [1.5, 2, "#N/A", 3, 4] * 10, "price": ["35,230", "120,500"] * 25, "y": ["NA", "b", "a", "a", "b"] * 10}
    rows = rows_of(pd.DataFrame(cells))
    assert [column.kind for column in rows.signature.inputs] == ["number", "number"]
    assert list(map(str, rows.findings)) == [
        'dose: 10 cells are missing values: #N/A [columns.dose.na_values = ["#N/A"]]',
        'price: read as amounts; commas are thousands separators; 1,500 is 1500, not 1.5 [reading.decimal = ","]',
        "y: 10 rows without a target left out: NA",
    ]


def test_a_target_with_thousands_separators_gets_a_note() -> None:
    rows = rows_of(
        pd.DataFrame(
            {"area": [number * 7 % 31 for number in range(50)], "y": [f"{number},{number}" for number in range(100, 600, 10)]}
        )
    )
    assert rows.signature.target.task == "regression"
    message = "read as amounts; commas are thousands separators; 1,500 is 1500, not 1.5"
    assert Finding("y", message, 'reading.decimal = ","') in rows.findings


def test_zeros_can_be_declared_missing() -> None:
    frame = pd.DataFrame({"dose": [0, 1, 2, 3, 4] * 10, "z": range(50), "y": ["a", "b"] * 25})
    rows = rows_of(frame, columns={"dose": {"na_values": ["0"]}}, cleaning={"drop_duplicates": False})
    assert rows.inputs["dose"].isna().sum() == 10
    assert rows.signature.inputs[0].low == 1


def test_prepared_rows_round_trip_through_parquet() -> None:
    rows = prepare(
        read_table(tables.mixed().to_csv(index=False).encode()), project(target="bought", columns=tables.MIXED_COLUMNS)
    )
    again = labeled_rows_from_parquet(labeled_rows_to_parquet(rows))
    pd.testing.assert_frame_equal(again.inputs, rows.inputs)
    pd.testing.assert_series_equal(again.target, rows.target, check_names=False)
    assert (again.signature, again.findings) == (rows.signature, rows.findings)


def test_too_few_rows_are_rejected() -> None:
    with pytest.raises(BadData, match="usable rows"):
        rows_of(pd.DataFrame({"a": [1, 2, 3], "y": [0, 1, 0]}))


def test_a_stratified_split_keeps_class_shares_and_is_reproducible() -> None:
    rows = rows_of(tables.flowers(), target="kind")
    train, test = train_and_test(rows, project(target="kind"))
    assert not set(train) & set(test)
    assert len(test) == 48
    shares = [rows.target.iloc[indices].value_counts(normalize=True).sort_index() for indices in (train, test)]
    assert np.allclose(shares[0], shares[1], atol=0.03)
    assert np.array_equal(train_and_test(rows, project(target="kind"))[1], test)


def test_a_test_row_stays_a_test_row_when_the_table_changes() -> None:
    for entries in ({"target": "kind"}, {"target": "kind", "split": {"kind": "random"}}):
        whole = rows_of(tables.flowers(600), **entries)
        fewer = rows_of(tables.flowers(600).sample(frac=0.9, random_state=3), **entries)
        trained, _ = (
            set(map(tuple, whole.rows(indices).inputs.to_numpy().tolist()))
            for indices in train_and_test(whole, project(**entries))
        )
        test = set(map(tuple, fewer.rows(train_and_test(fewer, project(**entries))[1]).inputs.to_numpy().tolist()))
        assert len(test & trained) <= 0.1 * len(test)
        other = train_and_test(whole, project(**entries, seed=1))[1]
        assert not np.array_equal(other, train_and_test(whole, project(**entries))[1])


def test_a_time_split_tests_on_the_latest_rows() -> None:
    frame = tables.mixed()
    entries = {"target": "bought", "split": {"kind": "time", "column": "since"}, "columns": tables.MIXED_COLUMNS}
    rows = rows_of(frame, **entries)
    train, test = train_and_test(rows, project(**entries))
    assert rows.inputs["since"].iloc[train].max() <= rows.inputs["since"].iloc[test].min()
    for fit, check in folds(rows.rows(train), project(**entries)):
        training = rows.rows(train).inputs["since"]
        assert training.iloc[fit].max() <= training.iloc[check].min()


def test_a_grouped_split_never_divides_a_group() -> None:
    frame = tables.flowers().assign(batch=[f"b{row // 8}" for row in range(240)])
    entries = {"target": "kind", "split": {"kind": "grouped", "column": "batch"}, "columns": {"batch": {"ignore": True}}}
    rows = rows_of(frame, **entries)
    train, test = train_and_test(rows, project(**entries))
    assert rows.order is not None
    assert not set(rows.order.iloc[train]) & set(rows.order.iloc[test])


def test_selection_drops_noise_duplicates_and_constants() -> None:
    random = np.random.default_rng(0)
    signal = random.normal(size=400)
    noise = random.normal(size=(400, 3))
    features = np.column_stack([signal, signal * 2 + 1, np.ones(400), noise])
    names = ["signal", "copy", "constant", "noise 1", "noise 2", "noise 3"]
    decisions = select_features(features, (signal > 0).astype(float), names, Target("y", "binary", (0, 1)), 6, 0)
    kept = {decision.feature for decision in decisions if decision.kept}
    assert "signal" in kept
    assert not kept & {"copy", "constant"}
    assert [decision.reason for decision in decisions[1:3]] == ["duplicate of signal", "the same in every row"]
    assert len(kept) < 4
    all_others = select_features(features, (signal > 0).astype(float), names, Target("y", "binary", (0, 1)), None, 0)
    assert [decision.kept for decision in all_others] == [True, False, False, True, True, True]
    only_one = select_features(features, (signal > 0).astype(float), names, Target("y", "binary", (0, 1)), 1, 0)
    assert [decision.feature for decision in only_one if decision.kept] == ["signal"]


def test_an_unknown_metric_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(UnknownMetric, match="rmse"):
        metric_name(Target("y", "regression"), "accuracy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame", "target", "best"),
    [(tables.flowers(), "kind", "log_loss"), (tables.prices(), "price", "rmse"), (tables.mixed(), "bought", "roc_auc")],
)
def test_the_leaderboard_ranks_by_validation_score_and_marks_ties(frame: pd.DataFrame, target: str, best: str) -> None:
    entries = project(target=target, n_trials=2, columns=tables.MIXED_COLUMNS if target == "bought" else {})
    rows = prepare(read_table(frame.to_csv(index=False).encode()), entries)
    board = leaderboard(rows, train_candidates(rows, entries), entries)
    assert list(board["rank"]) == [*range(1, len(board) + 1)]
    assert set(board["model"]) - {"ensemble"} == {"linear", "random-forest", "extra-trees", "lightgbm", "catboost"}
    assert set(board["eval_metric"]) == {best}
    assert board["score_val"].is_monotonic_decreasing
    assert (board["ci_low"] <= board["score_test"]).all()
    assert (board["score_test"] <= board["ci_high"]).all()
    assert board["tied_with_best"].iloc[0]
    assert list(board.columns[:5]) == ["rank", "model", "eval_metric", "score_val", "score_test"]


@pytest.mark.slow
def test_a_significantly_worse_model_is_not_tied() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(600, 2))
    frame = pd.DataFrame(
        {"a": features[:, 0], "b": features[:, 1], "y": np.where(features[:, 0] * features[:, 1] > 0, "p", "n")}
    )
    entries = project(n_trials=1)
    rows = rows_of(frame, n_trials=1)
    board = leaderboard(rows, train_candidates(rows, entries), entries).set_index("model")
    assert not board.loc["linear", "tied_with_best"]


@pytest.mark.slow
def test_training_is_reproducible() -> None:
    table = tables.flowers().to_csv(index=False).encode()
    reservation = VersionReservation("20260101T000000Z-00000000", "2026-01-01T00:00:00+00:00", "0", "0", None)
    digests = []
    for _ in range(2):
        manifest, _ = train_locally(table, project(target="kind", n_trials=2, budget="1h"), reservation, "ann")
        digests.append(
            (manifest.predictions_sha256, {n: f.sha256 for n, f in manifest.files.items() if n != "leaderboard.csv"})
        )
    assert digests[0] == digests[1]


def test_the_report_is_one_self_contained_page() -> None:
    rows = prepare(
        read_table(tables.mixed().to_csv(index=False).encode()), project(target="bought", columns=tables.MIXED_COLUMNS)
    )
    page = report_html("mixed", "<Mixed>", build_data_report(rows), StoreSettings().templates)
    assert "&lt;Mixed&gt;" in page
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert "(EUR)" in page


def test_repeated_rows_are_kept_by_default() -> None:
    frame = pd.DataFrame({"a": [0, 1] * 50, "b": [0, 0, 1, 1] * 25, "y": [0, 1, 1, 0] * 25})
    assert len(rows_of(frame).inputs) == 100
    with pytest.raises(BadData, match="4 usable rows"):
        rows_of(frame, cleaning={"drop_duplicates": True})
    assert len(rows_of(frame.assign(id=range(100)), cleaning={"drop_duplicates": True}).inputs) == 100


def test_the_signature_has_the_ranges_of_the_training_rows() -> None:
    numbers = [float(number % 13) + 0.5 for number in range(199)] + [1e6]
    frame = pd.DataFrame({"t": range(0, 400, 2), "x": numbers, "y": ["a", "b"] * 100})
    entries = {"split": {"kind": "time", "column": "t"}}
    training = training_rows(rows_of(frame, **entries), project(**entries))
    assert next(column for column in training.signature.inputs if column.name == "x").high == 12.5


TIMES = [[*map(str, range(39)), ""], ["a", "b"] * 20]


@pytest.mark.parametrize("cells", TIMES)
def test_a_time_column_that_cannot_be_ordered_is_rejected(cells: list[str]) -> None:
    frame = pd.DataFrame({"t": cells, "x": range(40), "z": [1, 5, 2, 4] * 10, "y": ["p", "q"] * 20})
    with pytest.raises(BadData, match="split by time"):
        rows_of(frame, split={"kind": "time", "column": "t"})


def test_a_time_split_accepts_other_date_formats() -> None:
    days = pd.date_range("2019-01-01", periods=60)
    frame = pd.DataFrame({"t": days.strftime("%d.%m.%Y"), "x": [1, 5, 2] * 20, "y": ["p", "q"] * 30})
    columns = {"t": {"kind": "date", "date_format": "%d.%m.%Y"}}
    entries = {"split": {"kind": "time", "column": "t"}, "columns": columns}
    assert train_and_test(rows_of(frame, **entries), project(**entries))[1].tolist() == list(range(48, 60))


def test_selection_drops_most_noise_features() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(500, 20))
    names = [f"f{number}" for number in range(20)]
    decisions = select_features(features, (features[:, 0] > 0).astype(float), names, Target("y", "binary", (0, 1)), 20, 0)
    assert decisions[0].kept
    assert sum(decision.kept for decision in decisions[1:]) <= 7


def test_dollar_signs_in_names_are_not_drawn_as_formulas() -> None:
    frame = tables.flowers().rename(columns={"petal": "a$^$b"}).assign(price=["$0_$10", "$10_$20"] * 120)
    assert build_data_report(rows_of(frame, target="kind")).figures


@pytest.mark.slow
def test_a_tiny_table_is_trained_with_a_note() -> None:
    frame = pd.DataFrame({"a": range(11), "b": [1, 5, 2] * 3 + [4, 7], "y": ["n"] * 5 + ["p"] * 6})
    rows = rows_of(frame)
    assert any("11 rows only" in finding.message for finding in rows.findings)
    board = leaderboard(rows, train_candidates(rows, project(n_trials=1)), project(n_trials=1))
    assert np.isfinite(board["score_test"]).all()


@pytest.mark.parametrize("family", ["linear", "random-forest", "lightgbm"])
def test_the_interval_covers_nine_tenths_of_new_rows(family: str) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(7000, 3))
    target = features[:, 0] + np.abs(features[:, 1]) + random.standard_t(4, size=7000)
    frame = pd.DataFrame(features, columns=list("abc")).assign(y=target)
    entries = project(families=[family], n_trials=1)
    rows = prepare(read_table(frame.head(1000).to_csv(index=False).encode()), entries)
    candidates = train_candidates(rows, entries)
    half_width = leaderboard(rows, candidates, entries)["interval_90"].iloc[0]
    errors = np.abs(target[1000:] - candidates[0].model.scores(frame.drop(columns="y").tail(6000))[:, 0])
    assert 0.87 < np.mean(errors <= half_width) < 0.93

"""Panels: windows of past days, splits by whole days, and relative changes as the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from podium.models.encoder import Encoder
from podium.models.model import Model
from podium.models.scorers import LinearScorer
from podium.project import BadProject, Project, parse_project
from podium.registry.comparison import Incumbent, compare
from podium.schema.data_errors import BadData
from podium.tables.frames import columns_of, frame_of
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST, windows
from podium.tables.readers import read_table
from podium.training.local_run import train_candidates
from podium.training.panel import window_encoder
from podium.training.project_kinds import prepare
from podium.training.splits import evaluation_rows, folds, train_and_test, training_rows
from projects.crypto.market import market


def project(**more: Any) -> Project:
    panel = {"entity": "shop", "time": "day", "lags": 2, **more.pop("panel", {})}
    return parse_project({"name": "shop", "target": "sold", "panel": panel, **more}, "test")


def shops(count: int = 5, days: int = 40, seed: int = 0) -> pd.DataFrame:
    """Sales that change by the visits of the previous day."""
    random = np.random.default_rng(seed)
    rows = []
    for shop in range(count):
        sold = 10.0**shop
        for day in pd.date_range("2026-01-01", periods=days):
            visits = random.normal(0, 0.1)
            rows.append({"shop": f"s{shop}", "day": f"{day:%Y-%m-%d}", "sold": sold, "visits": sold * (1 + visits)})
            sold *= 1 + visits
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame) -> pa.Table:
    return read_table(frame.to_csv(index=False).encode())


@pytest.fixture(scope="module")
def rows() -> LabeledRows:
    return prepare(table(shops()), project(columns={"sold": {"unit": "EUR"}, "visits": {"unit": "EUR"}}))


def test_a_window_has_the_past_days_and_the_change_since(rows: LabeledRows) -> None:
    assert len(rows.inputs) == 5 * 39  # the first day of each shop has no previous day
    first = rows.inputs.iloc[0]
    assert first["sold 1 before"] == 1.0 and np.isnan(first["sold 2 before"])
    frame = shops()
    sold = frame["sold"].to_numpy()
    assert np.allclose(rows.target.iloc[:39], np.diff(sold[:40]) / sold[:39])
    assert rows.signature.target.task == "forecast"
    assert [column.name for column in rows.signature.request_columns] == ["shop", "day", "sold", "visits"]


def test_a_binary_flag_is_used_as_a_level_not_as_a_change() -> None:
    frame = shops().assign(promo=lambda rows: (rows.index % 3 == 0).astype(int))
    rows = prepare(table(frame), project())
    names = window_encoder(rows.inputs, rows.signature).names
    assert "promo 1 before" in names and not [name for name in names if name.startswith("promo, change")]
    assert "visits, change 1 before" in names


def test_prepared_windows_round_trip_through_parquet(rows: LabeledRows) -> None:
    again = labeled_rows_from_parquet(labeled_rows_to_parquet(rows))
    assert again.signature == rows.signature
    assert again.inputs.equals(rows.inputs)


def test_a_day_is_never_divided_between_training_and_test(rows: LabeledRows) -> None:
    assert rows.order is not None
    train, test = train_and_test(rows, project())
    assert rows.order.iloc[train].max() < rows.order.iloc[test].min()
    training = training_rows(rows, project())
    assert training.order is not None
    for fit, check in folds(training, project()):
        assert training.order.iloc[fit].max() < training.order.iloc[check].min()


def test_trained_families_beat_the_persistence_forecast() -> None:
    options = project(columns={"sold": {"unit": "EUR"}, "visits": {"unit": "EUR"}}, n_trials=1)
    rows = prepare(table(shops()), options)
    by_family = {candidate.model.family: candidate for candidate in train_candidates(rows, options)}
    assert set(by_family) - {"ensemble"} == {"persistence", "linear", "extra-trees", "lightgbm"}
    persistence = by_family["persistence"]
    assert not persistence.validation_scores.any()
    assert all(by_family[name].score_val > persistence.score_val / 2 for name in ("linear", "extra-trees", "lightgbm"))


def test_the_comparison_uses_only_rows_that_the_champion_can_predict(rows: LabeledRows) -> None:
    options = project(families=["persistence", "linear"], n_trials=1)
    candidates = train_candidates(rows, options)
    test = evaluation_rows(rows, options, {})
    champion = _OneShopModel(
        "given", test.signature, window_encoder(test.inputs, test.signature), LinearScorer(((),), (0.0,), "identity")
    )
    board = compare([candidate.model for candidate in candidates], Incumbent(champion, options, None), test, options)
    assert set(board["model"]) == {"persistence", "linear", "given (current champion)"}
    assert set(board["rows"]) == {int((test.inputs["shop"] == "s1").sum())}
    assert compare([candidate.model for candidate in candidates], None, test, options)["rows"].iloc[0] == len(test.inputs)


class _OneShopModel(Model):
    """A model that scores one shop only."""

    def scores(self, frame: pd.DataFrame) -> Any:
        return np.where(frame["shop"] == "s1", 0.0, np.nan).reshape(-1, 1)


def test_only_the_most_recent_rows_are_used() -> None:
    recent = prepare(table(shops(days=60)), project(panel={"max_rows": 100}))
    assert len(recent.inputs) == 100
    assert recent.order is not None and recent.order.nunique() == 20
    assert any("max_rows" in finding.setting for finding in recent.findings)


def test_unsorted_entities_and_repeated_days_are_ordered() -> None:
    frame = shops(2, 5)
    mixed = pd.concat([frame.iloc[[0]].assign(sold=99), frame.sample(frac=1, random_state=1)])
    panel = prepare(table(shops()), project()).signature.panel
    assert panel is not None
    windows_by_key = frame_of(windows(columns_of(_typed(mixed)), panel).keys)
    assert sorted(windows_by_key["shop"].unique()) == ["s0", "s1"]
    for name in ("s0", "s1"):
        keys = windows_by_key[windows_by_key["shop"] == name]
        assert keys[INDEX].tolist() == [0, 1, 2, 3, 4, 5]
        assert keys[ACTUAL].tolist()[:5] == frame[frame["shop"] == name]["sold"].tolist()
        assert np.isnan(keys[ACTUAL].iloc[5]) and keys[LAST].iloc[5] == keys[ACTUAL].iloc[4]
        assert keys[DAY].diff().dropna().eq(1).all()


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    days = (pd.to_datetime(frame["day"]) - pd.Timestamp("1970-01-01")).dt.days.astype(float)
    return frame.assign(day=days, sold=frame["sold"].astype(float), visits=frame["visits"].astype(float))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"day": "yesterday"}, "has missing values .cells with yesterday are not a date"),
        ({"sold": ""}, "has missing values"),
        ({"sold": "many"}, "has missing values .cells with many"),
    ],
)
def test_rows_that_do_not_form_a_panel_are_rejected(change: dict[str, str], message: str) -> None:
    frame = shops().astype(str)
    for name, cell in change.items():
        frame.loc[3, name] = cell
    with pytest.raises(BadData, match=message):
        prepare(table(frame), project())


RATIO_OF_Y = {"rule": "ratio", "of": ["y", "a"]}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"split": {"kind": "random"}}, "always split by time"),
        ({"panel": {"derived_columns": {"x": {"rule": "magic", "of": ["sold", "visits"]}}}}, "position"),
        ({"panel": {"derived_columns": {"x": {"rule": "position", "of": ["sold", "visits"]}}}}, "takes 3 columns"),
        ({"panel": {"derived_columns": {"sold": {"rule": "ratio", "of": ["a", "b"]}}}}, "target of a panel"),
        (
            {
                "panel": {
                    "derived_columns": {"x": {"rule": "ratio", "of": ["y", "a"]}, "y": {"rule": "ratio", "of": ["a", "b"]}}
                }
            },
            "before it",
        ),
        ({"panel": {"entity": "index"}}, "neither named `index`"),
    ],
)
def test_invalid_panel_options_are_rejected(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(BadProject, match=message):
        project(**entries) if "kind" not in entries else parse_project(
            {"name": "x", "target": "y", "panel": {"entity": "e", "time": "t"}, **entries}, "test"
        )


def test_a_single_window_is_encoded_to_the_same_bits_as_the_table(rows: LabeledRows) -> None:
    encoder: Encoder = window_encoder(rows.inputs, rows.signature)
    vector = [0.0] * len(encoder.features)
    write = encoder.compile_row_writer(vector)
    matrix = encoder.transform(rows.inputs)
    for index in (0, 1, 50, 150):
        write([None if cell != cell else cell for cell in rows.inputs.iloc[index].tolist()])
        assert vector == matrix[index].tolist()
    assert any("visits relative to sold" in name for name in encoder.names)


def test_the_generated_market_has_valid_prices() -> None:
    frame = market(["A", "B"], 30, pd.Timestamp("2026-01-01").date())
    assert (frame["low"].astype(float) <= frame["high"].astype(float)).all()
    assert len(frame) == 60


def test_entities_with_similar_names_stay_separate() -> None:
    frame = shops(2, 30)
    both = pd.concat(
        [
            frame.assign(shop=frame["shop"].replace({"s0": "BTT", "s1": "ETH"})),
            frame.assign(shop=frame["shop"].replace({"s0": "btt", "s1": "Eth"})),
        ]
    )
    rows = prepare(table(both), project())
    assert len(rows.inputs) == 4 * 29
    assert rows.signature.panel and len(rows.signature.panel.columns[0].categories) == 4


def test_the_signature_knows_only_the_training_days() -> None:
    frame = shops(3, 40)
    late = frame[(frame["shop"] != "s2") | (frame["day"] > "2026-02-05")]
    rows = training_rows(prepare(table(late), project()), project())
    entity, day, sold, _ = rows.signature.request_columns
    assert entity.categories == ("s0", "s1")
    assert day.high == rows.order.max()  # type: ignore[union-attr]
    assert sold.high is not None and sold.high < 90
    early = prepare(table(late), project(), until=20_484)  # 2026-01-31
    assert early.signature.request_columns[0].categories == ("s0", "s1")
    assert early.order is not None and early.order.max() == 20_484


def test_a_constant_ratio_does_not_amplify_rounding_errors() -> None:
    frame = shops(3, 30)
    frame["twice"] = frame["sold"] * 1.1
    options = project(columns={"sold": {"unit": "EUR"}, "twice": {"unit": "EUR"}, "visits": {"ignore": True}})
    rows = prepare(table(frame), options)
    encoder = window_encoder(rows.inputs, rows.signature)
    odd = rows.inputs.head(3).assign(**{"twice 1 before": 1e9})
    assert np.abs(encoder.transform(odd)).max() <= 1e6
    assert np.abs(encoder.transform(rows.inputs)).max() < 100

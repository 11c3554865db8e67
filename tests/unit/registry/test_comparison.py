"""A version and the champion are compared on rows that neither has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from podium.project import Project
from podium.registry.comparison import Incumbent, NotComparable, comparable_rows, compare, unseen_by
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.readers import read_table
from podium.training.candidates import out_of_fold_scores
from podium.training.local_run import train_candidates
from podium.training.project_kinds import prepare
from podium.training.splits import evaluation_rows, split_boundary, train_and_test, training_rows
from tests import tables

BASE: dict[str, Any] = {"columns": tables.MIXED_COLUMNS, "split": {"test_size": 0.2}}
KINDS: list[dict[str, Any]] = [
    {"kind": "stratified", "test_size": 0.2},
    {"kind": "random", "test_size": 0.2},
    {"kind": "grouped", "column": "city_and_visits"},
    {"kind": "time", "column": "since"},
]


def project(**entries: Any) -> Project:
    return Project.model_validate({"name": "x", "data": "s3://podium/x", "target": "bought", **BASE, **entries})


def table(rows: int = 600) -> pd.DataFrame:
    frame = tables.mixed(rows)
    return frame.assign(city_and_visits=frame["city"] + frame["visits"].astype(str))


def prepared(frame: pd.DataFrame, options: Project) -> LabeledRows:
    return labeled_rows_from_parquet(labeled_rows_to_parquet(prepare(read_table(frame.to_csv(index=False).encode()), options)))


def texts(rows: LabeledRows, names: list[str]) -> list[tuple[Any, ...]]:
    assert rows.raw is not None
    return list(zip(*(rows.raw[name].to_pylist() for name in names), strict=True))


def incumbent(frame: pd.DataFrame, options: Project) -> Incumbent:
    rows = prepared(frame, options)
    return Incumbent(train_candidates(rows, options)[0].model, options, split_boundary(rows, options))


@pytest.mark.parametrize(
    "columns",
    [
        {"visits": {"ignore": True}},
        {"visits": {"na_values": ["-1"]}, "city": {"fuzzy": "nearest"}},
        {"score": {"kind": "category"}},
    ],
)
def test_column_options_do_not_move_rows_between_training_and_test(columns: dict[str, Any]) -> None:
    plain, other = (prepared(table(), options) for options in (project(), project(columns=columns)))
    expected = train_and_test(plain, project())[1]
    assert np.array_equal(train_and_test(other, project(columns=columns))[1], expected)


@pytest.mark.parametrize("split", KINDS, ids=lambda split: split["kind"])
@pytest.mark.parametrize("later", [{}, {"seed": 5}, {"split": {"kind": "random", "test_size": 0.4}}], ids=str)
def test_rows_the_champion_was_trained_on_do_not_count(split: dict[str, Any], later: dict[str, Any]) -> None:
    frame, options = table(), project(split=split)
    names = list(frame)
    trained_on = set(texts(training_rows(prepared(frame.head(500), options), options), names))
    new = project(**{"split": split, **later})
    grown = prepared(frame.assign(colour="red", bought=frame["bought"]).sample(frac=1, random_state=1), new)
    test = evaluation_rows(grown, new, {})
    unseen = unseen_by(test, split_boundary(prepared(frame.head(500), options), options), options)
    counted = [row for row, is_unseen in zip(texts(test, names), unseen, strict=True) if is_unseen]
    assert not trained_on & set(counted)
    truly_unseen = [row for row in texts(test, names) if row not in trained_on]
    assert len(counted) >= 0.5 * len(truly_unseen) > 0


def test_the_champion_parses_the_rows_by_its_own_options() -> None:
    """Columns that the new version ignores or parses differently are still available to the champion."""
    options = project(families=["linear"], n_trials=1)
    champion = incumbent(table(), options)
    new = project(columns={"visits": {"ignore": True}, "score": {"kind": "category"}})
    test = evaluation_rows(prepared(table(), new), new, {})
    comparable = comparable_rows(champion, test)
    assert comparable.known_unseen and len(comparable.positions) == len(test.inputs) == 120
    champion_rows = evaluation_rows(prepared(table(), options), options, {})
    assert np.array_equal(comparable.scores, champion.model.scores(champion_rows.inputs))


def test_rows_that_the_champion_rejects_do_not_count() -> None:
    options = project(families=["linear"], n_trials=1)
    champion = incumbent(table(), options)
    frame = table()
    frame["visits"] = frame["visits"].astype(object).where(np.arange(600) % 3 > 0, "many")
    options = project(families=["linear"], n_trials=1, columns={"visits": {"kind": "category"}})
    test = evaluation_rows(prepared(frame, options), options, {})
    comparable = comparable_rows(champion, test)
    assert test.raw is not None
    assert 0 < len(comparable.positions) < len(test.inputs)
    assert "many" not in test.raw["visits"].take(pa.array(comparable.positions)).to_pylist()
    test = evaluation_rows(prepared(frame.drop(columns="member"), options), options, {})
    with pytest.raises(NotComparable, match="does not accept these rows"):
        comparable_rows(champion, test)


def test_rows_that_were_all_trained_on_are_not_comparable() -> None:
    options = project(families=["linear"], n_trials=1)
    champion = incumbent(table(), options)
    rows = training_rows(prepared(table(), options), options)
    with pytest.raises(NotComparable, match="trained on all"):
        comparable_rows(champion, rows)
    board = compare(
        [candidate.model for candidate in train_candidates(prepared(table(), options), options)], champion, rows, options
    )
    assert list(board["model"]) == ["linear"]


def test_an_unknown_split_is_reported() -> None:
    options = project(families=["linear"], n_trials=1)
    champion = incumbent(table(), options)
    imported, other_release = Incumbent(champion.model, options, None), Incumbent(champion.model, None, champion.split)
    test = evaluation_rows(prepared(table(), options), options, {})
    assert comparable_rows(champion, test).known_unseen
    assert not comparable_rows(imported, test).known_unseen and not comparable_rows(other_release, test).known_unseen
    missing_column = evaluation_rows(prepared(table().drop(columns="score"), options), options, {})
    assert not comparable_rows(champion, missing_column).known_unseen


def test_rows_of_the_champion_count_with_its_out_of_fold_scores() -> None:
    """A champion trained on every row is compared on all of them, as if it had not seen any, and on new rows."""
    options = project(families=["linear"], n_trials=1, split={})
    rows = prepared(table(600).head(500), options)
    candidate = train_candidates(rows, options)[0]
    stored = evaluation_rows(rows, options, out_of_fold_scores([candidate]))
    stored = labeled_rows_from_parquet(labeled_rows_to_parquet(stored))
    champion = Incumbent(candidate.model, options, split_boundary(rows, options), stored)
    grown = prepared(table(600).sample(frac=1, random_state=1), options)
    comparable = comparable_rows(champion, grown)
    assert comparable.known_unseen and len(comparable.positions) == 600
    names, own = list(table()), candidate.validation_scores
    expected = dict(zip(texts(rows, names), own.tolist(), strict=True))
    in_sample = candidate.model.scores(grown.inputs)
    new = 0
    for row, scores, fitted in zip(texts(grown, names), comparable.scores.tolist(), in_sample.tolist(), strict=True):
        new += row not in expected
        assert scores == expected.get(row, fitted)
    assert new == 100


def test_a_champion_without_its_rows_may_have_seen_all() -> None:
    options = project(families=["linear"], n_trials=1, split={})
    rows = prepared(table(), options)
    champion = Incumbent(train_candidates(rows, options)[0].model, options, split_boundary(rows, options))
    assert not comparable_rows(champion, rows).known_unseen

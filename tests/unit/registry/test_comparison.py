"""A version and the champion are compared on rows that neither has learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from podium.project import Project
from podium.registry.comparison import Incumbent, NotComparable, comparable_rows, compare, unseen_by
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.readers import read_csv
from podium.training.local_run import train_candidates
from podium.training.splits import held_out_rows, split_boundary, train_and_test, training_rows
from podium.training.tasks import prepare
from tests import tables

BASE: dict[str, Any] = {"columns": tables.MIXED_COLUMNS}
KINDS: list[dict[str, Any]] = [
    {"kind": "stratified"},
    {"kind": "random"},
    {"kind": "grouped", "column": "city_and_visits"},
    {"kind": "time", "column": "since"},
]


def project(**entries: Any) -> Project:
    return Project.model_validate({"name": "x", "data": "s3://podium/x", "target": "bought", **BASE, **entries})


def table(rows: int = 600) -> pd.DataFrame:
    frame = tables.mixed(rows)
    return frame.assign(city_and_visits=frame["city"] + frame["visits"].astype(str))


def rows_of(frame: pd.DataFrame, own: Project) -> LabeledRows:
    return labeled_rows_from_parquet(labeled_rows_to_parquet(prepare(read_csv(frame.to_csv(index=False).encode()), own)))


def texts(rows: LabeledRows, names: list[str]) -> list[tuple[Any, ...]]:
    assert rows.raw is not None
    return list(zip(*(rows.raw[name].to_pylist() for name in names), strict=True))


def rival(frame: pd.DataFrame, own: Project) -> Incumbent:
    rows = rows_of(frame, own)
    return Incumbent(train_candidates(rows, own)[0].model, own, split_boundary(rows, own))


@pytest.mark.parametrize(
    "columns",
    [
        {"visits": {"ignore": True}},
        {"visits": {"na_values": ["-1"]}, "city": {"fuzzy": "nearest"}},
        {"score": {"kind": "category"}},
    ],
)
def test_how_columns_are_read_moves_no_row_to_the_other_side(columns: dict[str, Any]) -> None:
    plain, other = (rows_of(table(), own) for own in (project(), project(columns=columns)))
    expected = train_and_test(plain, project())[1]
    assert np.array_equal(train_and_test(other, project(columns=columns))[1], expected)


@pytest.mark.parametrize("split", KINDS, ids=lambda split: split["kind"])
@pytest.mark.parametrize("later", [{}, {"seed": 5}, {"split": {"kind": "random", "test_size": 0.4}}], ids=str)
def test_no_row_that_the_champion_learned_from_counts(split: dict[str, Any], later: dict[str, Any]) -> None:
    frame, own = table(), project(split=split)
    names = list(frame)
    learned = set(texts(training_rows(rows_of(frame.head(500), own), own), names))
    new = project(**{"split": split, **later})
    grown = rows_of(frame.assign(colour="red", bought=frame["bought"]).sample(frac=1, random_state=1), new)
    test = held_out_rows(grown, new)
    fresh = unseen_by(test, split_boundary(rows_of(frame.head(500), own), own), own)
    said = [row for row, is_fresh in zip(texts(test, names), fresh, strict=True) if is_fresh]
    assert not learned & set(said)
    never = [row for row in texts(test, names) if row not in learned]
    assert len(said) >= 0.5 * len(never) > 0


def test_the_champion_reads_the_rows_in_its_own_way() -> None:
    """A column that is left out now, and one that is read otherwise, are still there for a champion that takes them."""
    own = project(families=["linear"], n_trials=1)
    champion = rival(table(), own)
    new = project(columns={"visits": {"ignore": True}, "score": {"kind": "category"}})
    test = held_out_rows(rows_of(table(), new), new)
    ground = comparable_rows(champion, test)
    assert ground.known and len(ground.places) == len(test.inputs) == 120
    mine = held_out_rows(rows_of(table(), own), own)
    assert np.array_equal(ground.scores, champion.model.scores(mine.inputs))


def test_rows_that_the_champion_refuses_do_not_count() -> None:
    own = project(families=["linear"], n_trials=1)
    champion = rival(table(), own)
    frame = table()
    frame["visits"] = frame["visits"].astype(object).where(np.arange(600) % 3 > 0, "many")
    test = held_out_rows(rows_of(frame, own), own)
    ground = comparable_rows(champion, test)
    assert test.raw is not None
    assert 0 < len(ground.places) < len(test.inputs)
    assert "many" not in test.raw["visits"].take(pa.array(ground.places)).to_pylist()
    test = held_out_rows(rows_of(frame.drop(columns="member"), own), own)
    with pytest.raises(NotComparable, match="does not take these rows"):
        comparable_rows(champion, test)


def test_nothing_is_compared_on_rows_that_were_all_learned_from() -> None:
    own = project(families=["linear"], n_trials=1)
    champion = rival(table(), own)
    rows = training_rows(rows_of(table(), own), own)
    with pytest.raises(NotComparable, match="learned from all"):
        comparable_rows(champion, rows)
    board = compare([one.model for one in train_candidates(rows_of(table(), own), own)], champion, rows, own)
    assert list(board["model"]) == ["linear"]


def test_it_is_said_when_it_is_not_known_what_was_learned_from() -> None:
    own = project(families=["linear"], n_trials=1)
    champion = rival(table(), own)
    imported, of_another_release = Incumbent(champion.model, own, None), Incumbent(champion.model, None, champion.split)
    test = held_out_rows(rows_of(table(), own), own)
    assert comparable_rows(champion, test).known
    assert not comparable_rows(imported, test).known and not comparable_rows(of_another_release, test).known
    without = held_out_rows(rows_of(table().drop(columns="score"), own), own)
    assert not comparable_rows(champion, without).known

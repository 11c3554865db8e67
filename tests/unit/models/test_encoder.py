"""The encoder gives one row the same bits as a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from podium.models.encoder import Encoder, fit_encoder
from podium.models.features import CLIP
from podium.schema.columns import Column
from podium.tables.frames import rows_to_frame

COLUMNS = (
    Column("n", "number", nullable=True),
    Column("flag", "boolean"),
    Column("day", "date", nullable=True),
    Column("t", "category", nullable=True, categories=("a", "b", "c", "d")),
)
ROWS: list[tuple[Any, ...]] = [
    (1.0, 1.0, 18000.0, "a"),
    (None, 0.0, 18400.0, "a"),
    (5.5, 1.0, None, "b"),
    (2.0, 0.0, 18900.0, None),
    (2.5, 0.0, 18901.0, "c"),
    (2.5, 0.0, 18902.0, "d"),
]


def fit_example(max_categories: int = 2) -> Encoder:
    return fit_encoder(rows_to_frame(ROWS, COLUMNS), COLUMNS, max_categories)


def test_feature_names_describe_the_columns() -> None:
    assert fit_example().names == [
        "n",
        "n is missing",
        "flag",
        "day",
        "day month",
        "day weekday",
        "day is missing",
        "t = a",
        "t = b",
        "t is another",
        "t is missing",
    ]


def test_values_are_encoded_by_the_documented_rules() -> None:
    matrix = dict(zip(fit_example().names, fit_example().transform(rows_to_frame(ROWS, COLUMNS)).T, strict=True))
    numbers = np.array([1.0, 2.5, 5.5, 2.0, 2.5, 2.5])
    present = np.array([1.0, 5.5, 2.0, 2.5, 2.5])
    assert np.allclose(matrix["n"], (numbers - present.mean()) / present.std())
    assert matrix["n is missing"].tolist() == [0, 1, 0, 0, 0, 0]
    assert matrix["t = a"].tolist() == [1, 1, 0, 0, 0, 0]
    assert matrix["t is another"].tolist() == [0, 0, 0, 0, 1, 1]
    months = pd.to_datetime([18000, 18400, 18900, 18901, 18902], unit="D").month
    assert np.allclose(matrix["day month"][[0, 1, 3, 4, 5]], (months - months.to_numpy().mean()) / months.to_numpy().std())


ROW = st.tuples(
    st.none() | st.floats(-1e30, 1e30),
    st.sampled_from([0.0, 1.0]),
    st.none() | st.integers(-100_000, 100_000).map(float),
    st.none() | st.sampled_from(["a", "b", "c", "d", "never seen"]),
)


@given(st.lists(ROW, min_size=1, max_size=5), st.integers(2, 5))
def test_one_row_and_a_frame_give_the_same_bits(rows: list[tuple[Any, ...]], max_categories: int) -> None:
    encoder = fit_example(max_categories)
    vector = [7.0] * len(encoder.features)
    write = encoder.compile_row_writer(vector)
    for row, expected in zip(rows, encoder.transform(rows_to_frame(rows, COLUMNS)).tolist(), strict=True):
        write(row)
        assert vector == expected


def test_extreme_inputs_are_clipped_to_the_range_of_float32_trees() -> None:
    encoder = fit_example()
    for number in (1e30, -1e30):
        assert np.abs(encoder.transform(rows_to_frame([(number, 1.0, 0.0, "a")], COLUMNS))).max() <= CLIP


def test_selected_features_keep_their_values() -> None:
    encoder = fit_example()
    selected = encoder.subset([0, 7])
    whole = encoder.transform(rows_to_frame(ROWS, COLUMNS))
    assert np.array_equal(selected.transform(rows_to_frame(ROWS, COLUMNS)), whole[:, [0, 7]])

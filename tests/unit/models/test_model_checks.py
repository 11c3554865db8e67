"""Model files with inconsistent parts are rejected before anything is computed."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from typing import Any

import pytest

from podium.models.bounded_unpickling import MAX_DEPTH
from podium.models.edge_cases import check_edge_cases, edge_case_rows
from podium.models.encoder import Encoder
from podium.models.features import OneHot, Ordinal, Passthrough, Standardized
from podium.models.golden_rows import GoldenMismatch
from podium.models.model import Model
from podium.models.panel_features import EntityScale, EntityStandardized, RelativeChange
from podium.models.scorers import AffineScorer, LinearScorer
from podium.models.serialization import UnsafePickle, dump, load
from podium.registry.warm_up import COLUMNS, FEATURES, small_model
from podium.schema.columns import Column, Target

WIDTH = len(FEATURES)
LINEAR = LinearScorer(((1.0,) * WIDTH,), (0.0,), "identity")
GOOD = small_model(LINEAR)


def features(*changed: Any) -> Model:
    """The model with its last features replaced."""
    return replace(GOOD, encoder=Encoder(COLUMNS, (*FEATURES[: WIDTH - len(changed)], *changed)))


def scorer(changed: Any) -> Model:
    return replace(GOOD, scorer=changed)


BROKEN: dict[str, Model] = {
    "a missing column": features(Passthrough(99, "x")),
    "a column before the first": features(Passthrough(-1, "x")),
    "an index that is not a number": features(Passthrough("0", "x")),  # type: ignore[arg-type]
    "a number from a text column": features(Passthrough(3, "x")),
    "ordinals of a number": features(Ordinal(0, "x", ("a",), 1.0)),
    "one-hot levels of a number": features(OneHot(0, "x", ("a",))),
    "levels that are not text": features(OneHot(3, "x", (1,))),  # type: ignore[arg-type]
    "an unknown part": features(Standardized(1, "x", "century", 0.0, 0.0, 1.0)),
    "a date part of a number": features(Standardized(0, "x", "month", 0.0, 0.0, 1.0)),
    "a scale of 0": features(Standardized(0, "x", "", 0.0, 0.0, 0.0)),
    "a mean that is NaN": features(Standardized(0, "x", "", 0.0, float("nan"), 1.0)),
    "a missing base": features(RelativeChange(0, "x", 99, 0.0, 1.0)),
    "an entity that is a number": features(EntityScale(0, "x", 1, (("a", 1.0),))),
    "a table with short rows": features(EntityStandardized(0, "x", None, 3, (("a", 1.0),))),  # type: ignore[arg-type]
    "an entity scale of 0": features(EntityStandardized(0, "x", None, 3, (("a", 1.0, 0.0),))),
    "no features": replace(GOOD, encoder=Encoder(COLUMNS, ())),
    "other columns": replace(GOOD, encoder=Encoder(COLUMNS[:1], FEATURES[:1])),
    "a column of another kind": replace(GOOD, encoder=Encoder((Column("n", "nonsense"), *COLUMNS[1:]), FEATURES)),  # type: ignore[arg-type]
    "a weight too few": scorer(LinearScorer(((1.0,) * (WIDTH - 1),), (0.0,), "identity")),
    "an intercept too many": scorer(LinearScorer(((1.0,) * WIDTH,), (0.0, 0.0), "identity")),
    "weights of text": scorer(LinearScorer((("1",) * WIDTH,), (0.0,), "identity")),  # type: ignore[arg-type]
    "weights too large for a float": scorer(LinearScorer(((10**400,) * WIDTH,), (0.0,), "identity")),
    "an unknown link": scorer(LinearScorer(((1.0,) * WIDTH,), (0.0,), "nonsense")),
    "two probabilities for a number": scorer(LinearScorer(((1.0,) * WIDTH,), (0.0,), "logistic")),
    "no outputs": scorer(LinearScorer((), (), "identity")),
    "no scorer": scorer(None),
    "a column as a scorer": scorer(COLUMNS[0]),
    "a scorer in a scorer in a scorer": scorer(AffineScorer(AffineScorer(LinearScorer(((1.0,),), (0.0,), "identity")))),
    "a scorer with too many weights": scorer(AffineScorer(LINEAR)),
    "more classes than scores": replace(GOOD, signature=replace(GOOD.signature, target=Target("y", "multiclass", ("a", "b")))),
    "a family that is not text": replace(GOOD, family=7),  # type: ignore[arg-type]
    "an encoder of the wrong type": replace(GOOD, encoder=FEATURES),  # type: ignore[arg-type]
    "columns in a list": replace(GOOD, encoder=Encoder(list(COLUMNS), FEATURES)),  # type: ignore[arg-type]
}


def test_a_consistent_model_is_accepted() -> None:
    assert load(dump(GOOD)) == GOOD
    rescaled = scorer(AffineScorer(LinearScorer(((1.0,) * (WIDTH - 2),), (0.0,), "identity")))
    assert check_edge_cases(load(dump(rescaled)))


@pytest.mark.parametrize("what", BROKEN)
def test_inconsistent_parts_are_rejected(what: str) -> None:
    with pytest.raises(UnsafePickle):
        load(dump(BROKEN[what]))


def test_a_scorer_that_contains_itself_is_rejected() -> None:
    endless = AffineScorer(None)
    endless.inner = endless
    with pytest.raises(UnsafePickle):
        load(dump(scorer(endless)))


BOMBS = {
    "tuples": b"\x80\x05K\x01" + b"2\x86" * 60 + b".",
    "a tuple as a key": b"\x80\x05}K\x01" + b"2\x86" * 60 + b"K\x01s.",
    "a tuple in a set": b"\x80\x05\x8f(K\x01" + b"2\x86" * 60 + b"\x90.",
    "a deep key": b"\x80\x05})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "a list in itself": b"\x80\x05]\x94" + b"h\x00a" * 1000 + b".",
    "fewer bytes than stated": b"\x80\x05\x96" + (1 << 60).to_bytes(8, "little") + b"abc.",
    "less text than stated": b"\x80\x05\x8d" + (1 << 60).to_bytes(8, "little") + b"abc.",
    "a huge memo index": b"\x80\x05K\x01r\xff\xff\xff\xff.",
    "a set": pickle.dumps({1, 2}),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_pickle_bomb_is_rejected_quickly(what: str) -> None:
    started = time.process_time()
    with pytest.raises(UnsafePickle):
        load(BOMBS[what])
    assert time.process_time() - started < 5


def test_shared_parts_count_each_time() -> None:
    """3000 features share 100,000 levels."""
    levels = tuple(f"level {place}" for place in range(100_000))
    shared = replace(GOOD, encoder=Encoder(COLUMNS, tuple(OneHot(3, "x", levels) for _ in range(3000))))
    with pytest.raises(UnsafePickle, match=r"items|repeats"):
        load(dump(shared))
    assert MAX_DEPTH < 1000


def test_edge_case_rows_contain_every_category_and_extreme_numbers() -> None:
    columns = (Column("t", "category", categories=tuple(map(str, range(300)))), Column("n", "number", nullable=True))
    rows = edge_case_rows(columns, 0)
    assert {row[0] for row in rows} >= set(columns[0].categories) | {""}
    assert {row[1] for row in rows} >= {None, 1e300, -1e300, 5e-324}
    assert any(str(row[1]) == "-0.0" for row in rows)
    assert rows == edge_case_rows(columns, 0)


def test_a_model_that_fails_on_extreme_values_is_rejected() -> None:
    class Fails(LinearScorer):
        def compiled(self) -> Any:
            vector, score = super().compiled()

            def fails() -> Any:
                if abs(vector[-1]) > 1e6 or vector[0] == 1e6:
                    raise OverflowError
                return score()

            return vector, fails

    with pytest.raises(GoldenMismatch, match="extreme values"):
        check_edge_cases(scorer(Fails(LINEAR.weights, LINEAR.intercepts, "identity")))

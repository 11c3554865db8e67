"""Model files contain a model and nothing executable."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from podium.models.golden_rows import GOLDEN, GoldenMismatch, record_golden, verified_fast_path, verify_golden_rows
from podium.models.model import Model
from podium.models.serialization import UnsafePickle, dump, load
from podium.project import Project
from podium.tables.readers import read_table
from podium.training.local_run import train_candidates
from podium.training.project_kinds import prepare
from tests import tables


@pytest.fixture(scope="module")
def models() -> list[Model]:
    project = Project(name="mixed", data="s3://podium/x", target="bought", n_trials=1, columns=tables.MIXED_COLUMNS)
    rows = prepare(read_table(tables.mixed().to_csv(index=False).encode()), project)
    return [candidate.model for candidate in train_candidates(rows, project)]


@pytest.fixture(scope="module")
def inputs() -> object:
    project = Project(name="mixed", data="s3://podium/x", target="bought", columns=tables.MIXED_COLUMNS)
    return prepare(read_table(tables.mixed().to_csv(index=False).encode()), project).inputs


def test_every_family_is_loaded_and_reproduces_its_golden_rows(models: list[Model], inputs: object) -> None:
    golden = GOLDEN.validate_json(GOLDEN.dump_json(record_golden(models, inputs, 0)))  # type: ignore[arg-type]
    for model in models:
        loaded = load(dump(model))
        assert verify_golden_rows(loaded, golden) == 0
        fast = verified_fast_path(loaded, golden)
        assert fast is not None
        assert [list(fast(row)) for row in golden.rows] == golden.scores[model.family]


def test_a_model_with_other_scores_fails_verification(models: list[Model], inputs: object) -> None:
    golden = record_golden(models, inputs, 0)  # type: ignore[arg-type]
    golden.scores[models[0].family][3][0] += 1e-6
    with pytest.raises(GoldenMismatch):
        verify_golden_rows(models[0], golden)


def test_a_fast_path_with_other_bits_is_not_used(models: list[Model], inputs: object) -> None:
    from dataclasses import replace

    linear = next(model for model in models if model.family == "linear")
    golden = record_golden([linear], inputs, 0)  # type: ignore[arg-type]

    class Rounding(type(linear.scorer)):  # type: ignore[misc]
        def compiled(self) -> object:
            vector, score = super().compiled()
            return vector, lambda: [number + 1e-15 for number in score()]

    scorer = Rounding(linear.scorer.weights, linear.scorer.intercepts, linear.scorer.link)  # type: ignore[attr-defined]
    assert verified_fast_path(replace(linear, scorer=scorer), golden) is None


class Payload:
    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> object:
        return self.function, self.arguments


def test_pickles_cannot_execute_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for payload in (
        Payload(os.system, f"touch {marker}"),
        Payload(eval, f"open({str(marker)!r}, 'w')"),
        Payload(open, str(marker), "w"),
    ):
        with pytest.raises(UnsafePickle):
            load(pickle.dumps(payload))
    assert not marker.exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x05", b"garbage", pickle.dumps({"a": 1})])
def test_other_data_is_rejected(data: bytes) -> None:
    with pytest.raises(UnsafePickle):
        load(data)

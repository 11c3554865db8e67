"""Small pickles that would take very long to hash, compare or walk are refused at once."""

from __future__ import annotations

import io
import itertools
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.importers.importing import convert_in_sandbox
from tests.unit.importers import model_files as files
from tests.unit.importers.payloads import joblib_bytes
from tests.unit.importers.test_payloads import ScalerWithState

LEVELS = 60


def nested(join: Callable[[Any], Any], value: Any = 1) -> Any:
    for _ in range(LEVELS):
        value = join(value)
    return value


def array(value: Any) -> np.ndarray:
    cells = np.empty(2, dtype=object)
    cells[0] = cells[1] = value
    return cells


def filled_late() -> list[Any]:
    """Return lists that are nested while they are empty and filled later."""
    lists: list[list[Any]] = [[] for _ in range(LEVELS)]
    for outer, inner in itertools.pairwise(lists):
        outer += [inner, inner]
    return lists[0]


def in_itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def cells() -> pd.DataFrame:
    return pd.DataFrame({"a": pd.Series(list(array(nested(lambda value: (value, value)))), dtype=object)})


def state(value: Any) -> bytes:
    return pickle.dumps(ScalerWithState({"mean_": value}))


TUPLES = b"2\x86" * LEVELS
REPEATS = {
    "tuples": lambda: state(nested(lambda value: (value, value))),
    "lists": lambda: state(nested(lambda value: [value, value])),
    "dictionaries": lambda: state(nested(lambda value: {"a": value, "b": value})),
    "arrays": lambda: state(nested(array)),
    "types of numbers": lambda: state(nested(lambda kind: np.dtype([("a", kind), ("b", kind)]), np.dtype([]))),
    "lists that are filled late": lambda: state(filled_late()),
    "joblib": lambda: joblib_bytes(ScalerWithState({"mean_": nested(lambda value: (value, value))})),
    "cells of a frame": lambda: pickle.dumps(cells()),
    "nothing else": lambda: b"\x80\x04K\x01" + TUPLES + b".",
    "a key": lambda: b"\x80\x04}K\x01" + TUPLES + b"K\x01s.",
    "keys": lambda: b"\x80\x04}(K\x01" + TUPLES + b"K\x01u.",
    "a set": lambda: b"\x80\x04\x8f(K\x01" + TUPLES + b"\x90.",
    "a frozen set": lambda: b"\x80\x04(K\x01" + TUPLES + b"\x91.",
    "a set that is made": lambda: b"\x80\x04cbuiltins\nset\n](K\x01" + TUPLES + b"e\x85R.",
    "sets again and again": lambda: (
        b"\x80\x04cbuiltins\nset\n\x94](" + b"K\x01" * 100_000 + b"e\x94" + b"h\x00h\x01\x85R0" * 10_000 + b"."
    ),
}
OTHERS = {
    "a list in itself": lambda: state(in_itself()),
    "a deep list": lambda: b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a deep tuple": lambda: b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "a deep key": lambda: b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "marks": lambda: b"\x80\x04" + b"(" * 100_000 + b".",
    "text that is not there": lambda: b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"abc.",
    "bytes that are not there": lambda: b"\x80\x05\x96" + (3 << 30).to_bytes(8, "little") + b"abc.",
    "a number of megabytes": lambda: state(1 << 80_000_000),
}


@pytest.mark.parametrize("name", [*REPEATS, *OTHERS])
def test_an_unbounded_structure_is_refused_at_once(name: str) -> None:
    data = (REPEATS | OTHERS)[name]()
    started = time.process_time()
    with pytest.raises(ImportRefused, match="repeats its parts too often: save" if name in REPEATS else None):
        convert(ImportRequest("x.pkl", data, "m", "y"))
    assert time.process_time() - started < 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("sample_format", ["csv", "parquet"])
def test_the_sandboxed_child_reads_a_sample_and_a_multithreaded_model(sample_format: str) -> None:
    people = files.people()
    sample = io.BytesIO()
    if sample_format == "csv":
        people.to_csv(sample, index=False)
    else:
        people.to_parquet(sample)
    model = files.joblib_bytes(files.fitted(RandomForestClassifier(5, n_jobs=4)))
    result = convert_in_sandbox(ImportRequest("x.joblib", model, "m", "sex", sample=sample.getvalue()), 60)
    assert [column.name for column in result.signature.inputs] == files.NUMBERS

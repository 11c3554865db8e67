"""Malicious files: armed, as a careless loader shows, and yet nothing of them ever runs."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.importers.importing import _believed, convert_in_sandbox
from tests.unit.importers import model_files as files
from tests.unit.importers.payloads import MAKERS, payloads
from tests.unit.importers.test_keras import FOLDER


def markers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.timeout(120)
def test_every_payload_is_armed(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.importers.payloads", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[3])
    assert markers(tmp_path) >= MAKERS.keys()
    assert len(MAKERS) > 50


@pytest.mark.parametrize("name", MAKERS)
def test_no_payload_runs(name: str, tmp_path: Path) -> None:
    """In this very process, without the child and its limits: the look through the names is enough."""
    data = MAKERS[name](str(tmp_path / name))
    before = markers(tmp_path)
    with pytest.raises(ImportRefused):
        convert(ImportRequest(f"{name}.pkl", data, "m", "y"))
    assert markers(tmp_path) == before


HIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "a class as a method": ({"transform": list}, "in the place of a method"),
    "a property": ({"n_features_in_": 1, "feature_names_in_": ["a"], "__class__": "x"}, "in the place of a method"),
    "a function": ({"mean_": print}, "asks for builtins.print"),
    "a class": ({"mean_": list}, "holds a type"),
    "a frame": ({"mean_": pd.DataFrame({"a": [1]})}, "holds a DataFrame"),
    "a class of its own": ({"mean_": StandardScaler}, "holds sklearn.preprocessing._data.StandardScaler itself"),
    "deep": ({"mean_": [{"a": np.array([(1, [list])], dtype=object)}]}, "holds a type"),
}


@pytest.mark.parametrize("what", HIDDEN)
def test_an_estimator_may_hold_nothing_that_could_be_called(what: str) -> None:
    state, reason = HIDDEN[what]
    with pytest.raises(ImportRefused, match=reason):
        convert(ImportRequest("x.pkl", pickle.dumps(Holding(state)), "m", "y"))


class Holding:
    """Pickles as a scaler of this state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.held = state

    def __reduce__(self) -> Any:
        return StandardScaler, (), self.held


def test_a_tree_that_leads_nowhere_is_not_walked() -> None:
    forest = files.fitted(DecisionTreeClassifier(max_depth=3))
    data = pickle.dumps(forest)
    nodes = forest.tree_.__getstate__()["nodes"]
    bad = nodes.copy()
    bad["left_child"][0] = 10_000_000
    assert data.count(nodes.tobytes()) == 1
    with pytest.raises(ImportRefused, match="leads nowhere"):
        convert(ImportRequest("x.pkl", data.replace(nodes.tobytes(), bad.tobytes()), "m", "y"))


def test_a_network_may_not_fetch_its_weights_from_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(16.0).tobytes())
    data = io.BytesIO((FOLDER / "dense.h5").read_bytes())
    with h5py.File(data, "r+") as file:
        weights = file["model_weights"]
        layer = next(name for name in weights.attrs["layer_names"] if name.startswith("dense"))
        path = weights[layer].attrs["weight_names"][0]
        shape = weights[layer][path].shape
        del weights[layer][path]
        weights[layer].create_dataset(path, shape, dtype="f8", external=[(str(secret), 0, int(np.prod(shape)) * 8)])
    with pytest.raises(ImportRefused, match="weights are in another file"):
        convert(ImportRequest("x.h5", data.getvalue(), "m", "y"))


def test_a_refusal_names_what_the_file_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"asks for posix\.system, which no list allows"):
        convert(ImportRequest("x.pkl", payloads(tmp_path)["os-system"], "m", "y"))
    with pytest.raises(ImportRefused, match="the formula computes something"):
        convert(ImportRequest("x.pkl", payloads(tmp_path)["statsmodels-formula"], "m", "y"))


@pytest.mark.timeout(120)
def test_even_what_an_operator_allowed_by_mistake_can_do_nothing(tmp_path: Path) -> None:
    """The second wall: a child that may not write, start programs or reach a network."""
    mistake = tmp_path / "allowed"
    mistake.write_text("posix system\nbuiltins exec\n_io open\nposix mkdir\n")
    folder = tmp_path / "markers"
    folder.mkdir()
    for name in ("os-system", "exec", "io-open", "mkdir"):
        with pytest.raises(ImportRefused):
            convert_in_sandbox(ImportRequest("x.pkl", MAKERS[name](str(folder / name)), "m", "y", allowed=mistake), 30)
    assert markers(folder) == set()


@pytest.mark.timeout(120)
def test_a_file_that_ends_its_process_is_refused(tmp_path: Path) -> None:
    mistake = tmp_path / "allowed"
    mistake.write_text("posix _exit\n")
    with pytest.raises(ImportRefused, match="ended without an answer"):
        convert_in_sandbox(
            ImportRequest("x.pkl", b"cposix\n_exit\n(I3\ntR.".replace(b"c", b"\x80\x02c", 1), "m", "y", allowed=mistake), 30
        )


def test_a_forged_answer_is_not_believed() -> None:
    """Whoever took over the child writes its answer."""
    wish = ImportRequest("m.pkl", files.MADE["zlib.joblib"](), "m", "y")
    good = json.loads(convert(wish).to_json())
    assert _believed(json.dumps(good), wish).kind == "scikit-learn"
    forged: list[Any] = [
        [],
        {},
        {"files": []},
        {**good, "files": {**good["files"], "../../elsewhere": ""}},
        {**good, "files": {}},
        {**good, "kind": "ours"},
        {**good, "signature": {}},
        {**good, "more": 1},
    ]
    for answer in forged:
        with pytest.raises(ImportRefused, match="no sound answer"):
            _believed(json.dumps(answer), wish)

"""Malicious files: each one works with a plain loader, and none runs in an import."""

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
from podium.importers.importing import convert_in_sandbox, validate_result
from tests.unit.importers import model_files as files
from tests.unit.importers.payloads import PAYLOADS, payloads
from tests.unit.importers.test_keras import FOLDER


def markers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_payload_runs_with_a_plain_loader(tmp_path: Path) -> None:
    """Without this, the tests below would show nothing."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.importers.payloads", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[3])
    assert markers(tmp_path) >= PAYLOADS.keys()
    assert len(PAYLOADS) > 50


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs_in_an_import(name: str, tmp_path: Path) -> None:
    """In this process, without the sandboxed child: scanning the globals is enough."""
    data = PAYLOADS[name](str(tmp_path / name))
    before = markers(tmp_path)
    with pytest.raises(ImportRefused):
        convert(ImportRequest(f"{name}.pkl", data, "m", "y"))
    assert markers(tmp_path) == before


CALLABLE_STATES: dict[str, tuple[dict[str, Any], str]] = {
    "a class as a method": ({"transform": list}, "overrides a method"),
    "a property": ({"n_features_in_": 1, "feature_names_in_": ["a"], "__class__": "x"}, "overrides a method"),
    "a function": ({"mean_": print}, "uses builtins.print"),
    "a class": ({"mean_": list}, "holds a type"),
    "a frame": ({"mean_": pd.DataFrame({"a": [1]})}, "holds a DataFrame"),
    "a class of its own": ({"mean_": StandardScaler}, "holds the class or function sklearn.preprocessing._data.StandardScaler"),
    "deep": ({"mean_": [{"a": np.array([(1, [list])], dtype=object)}]}, "holds a type"),
}


@pytest.mark.parametrize("name", CALLABLE_STATES)
def test_an_estimator_may_not_hold_anything_callable(name: str) -> None:
    state, reason = CALLABLE_STATES[name]
    with pytest.raises(ImportRefused, match=reason):
        convert(ImportRequest("x.pkl", pickle.dumps(ScalerWithState(state)), "m", "y"))


class ScalerWithState:
    """Pickles as a StandardScaler with this state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return StandardScaler, (), self.state


def test_a_tree_with_an_invalid_branch_is_refused() -> None:
    forest = files.fitted(DecisionTreeClassifier(max_depth=3))
    data = pickle.dumps(forest)
    nodes = forest.tree_.__getstate__()["nodes"]
    bad = nodes.copy()
    bad["left_child"][0] = 10_000_000
    assert data.count(nodes.tobytes()) == 1
    with pytest.raises(ImportRefused, match="invalid branch"):
        convert(ImportRequest("x.pkl", data.replace(nodes.tobytes(), bad.tobytes()), "m", "y"))


def test_a_network_may_not_read_weights_from_another_file(tmp_path: Path) -> None:
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
    with pytest.raises(ImportRefused, match="weights are stored in another file"):
        convert(ImportRequest("x.h5", data.getvalue(), "m", "y"))


def test_a_refusal_names_the_forbidden_globals(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"uses posix\.system, which is not allowed"):
        convert(ImportRequest("x.pkl", payloads(tmp_path)["os-system"], "m", "y"))
    with pytest.raises(ImportRefused, match="the formula has a computed term"):
        convert(ImportRequest("x.pkl", payloads(tmp_path)["statsmodels-formula"], "m", "y"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_sandbox_stops_globals_that_an_operator_allowed_by_mistake(tmp_path: Path) -> None:
    """The child process may not write files, start programs or open connections."""
    allowed = tmp_path / "allowed"
    allowed.write_text("posix system\nbuiltins exec\n_io open\nposix mkdir\n")
    folder = tmp_path / "markers"
    folder.mkdir()
    for name in ("os-system", "exec", "io-open", "mkdir"):
        with pytest.raises(ImportRefused):
            convert_in_sandbox(ImportRequest("x.pkl", PAYLOADS[name](str(folder / name)), "m", "y", allowed=allowed), 30)
    assert markers(folder) == set()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_file_that_exits_its_process_is_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("posix _exit\n")
    with pytest.raises(ImportRefused, match="exit code 3"):
        convert_in_sandbox(
            ImportRequest("x.pkl", b"cposix\n_exit\n(I3\ntR.".replace(b"c", b"\x80\x02c", 1), "m", "y", allowed=allowed), 30
        )


def test_an_invalid_result_of_the_child_is_refused() -> None:
    """A compromised child process may return anything."""
    request = ImportRequest("m.pkl", files.MODELS["zlib.joblib"](), "m", "y")
    valid = json.loads(convert(request).to_json())
    assert validate_result(json.dumps(valid), request).kind == "scikit-learn"
    invalid: list[Any] = [
        [],
        {},
        {"files": []},
        {**valid, "files": {**valid["files"], "../../elsewhere": ""}},
        {**valid, "files": {}},
        {**valid, "kind": "ours"},
        {**valid, "signature": {}},
        {**valid, "more": 1},
    ]
    for result in invalid:
        with pytest.raises(ImportRefused, match="invalid result"):
            validate_result(json.dumps(result), request)

"""Keras networks without Keras: the formulas and the ONNX graph reproduce Keras's predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.importers.keras import read_network
from podium.importers.keras_network import to_scorer
from podium.models.serialization import load
from tests.unit.importers import model_files as files

FOLDER = Path(__file__).parent / "keras"
PREDICTIONS: dict[str, Any] = json.loads((FOLDER / "predictions.json").read_text())
FILES = sorted(path.name for path in FOLDER.glob("*.*") if path.stem in PREDICTIONS and path.suffix in (".keras", ".h5"))


@pytest.mark.parametrize("name", FILES)
def test_a_network_predicts_like_keras(name: str) -> None:
    network = read_network((FOLDER / name).read_bytes())
    known = PREDICTIONS[name.partition(".")[0]]
    rows, predictions = np.array(known["rows"]), np.array(known["predictions"])
    assert np.abs(network.apply(rows) - predictions).max() < 1e-5
    served = to_scorer(network).session.run(["y"], {"x": rows.astype(np.float32).reshape(len(rows), -1)})[0]
    assert np.abs(served - predictions).max() < 1e-5


def test_all_files_are_tested() -> None:
    assert len(FILES) == 8


@pytest.mark.parametrize(("name", "reason"), [("lambda.keras", "layer Lambda"), ("lambda.h5", "layer Lambda")])
def test_unsupported_networks_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ImportRefused, match=reason):
        convert(ImportRequest(name, (FOLDER / name).read_bytes(), "m", "y"))


@pytest.mark.parametrize(
    ("name", "task", "classes", "inputs"),
    [("gru.h5", "regression", (), 12), ("gru-old.keras", "multiclass", (0, 1, 2), 12), ("dense.h5", "binary", (0, 1), 5)],
)
def test_the_last_layer_determines_the_task(name: str, task: str, classes: tuple[int, ...], inputs: int) -> None:
    sample = files.numbers_csv([f"n{number}" for number in range(inputs)])
    signature = convert(ImportRequest(name, (FOLDER / name).read_bytes(), "m", "y", sample=sample)).signature
    assert (signature.target.task, signature.target.classes, len(signature.inputs)) == (task, classes, inputs)


def hard_sigmoid(x: float) -> float:
    return min(1.0, max(0.0, 0.2 * x + 0.5))


def keras_2_prediction(weights: Any, row: np.ndarray) -> float:
    """Compute the given network of five days number by number (Keras 2.2.4, recurrent.py, GRUCell)."""
    halves = []
    for direction, days in (("forward", row), ("backward", row[::-1])):
        cell = weights[f"bidirectional_1/bidirectional_1/{direction}_gru_1"]
        kernel, recurrent, bias = (np.array(cell[name], float) for name in ("kernel:0", "recurrent_kernel:0", "bias:0"))
        state = [0.0] * 50
        for day in days:
            inputs = [sum(day[i] * kernel[i, g] for i in range(13)) + bias[g] for g in range(150)]
            update = [hard_sigmoid(inputs[u] + sum(state[j] * recurrent[j, u] for j in range(50))) for u in range(50)]
            reset = [hard_sigmoid(inputs[50 + u] + sum(state[j] * recurrent[j, 50 + u] for j in range(50))) for u in range(50)]
            new = [
                np.tanh(inputs[100 + u] + sum(reset[j] * state[j] * recurrent[j, 100 + u] for j in range(50)))
                for u in range(50)
            ]
            state = [update[u] * state[u] + (1 - update[u]) * new[u] for u in range(50)]
        halves += state
    norm = weights["batch_normalization_1/batch_normalization_1"]
    gamma, beta, mean, variance = (np.array(norm[f"{n}:0"]) for n in ("gamma", "beta", "moving_mean", "moving_variance"))
    x = [gamma[i] * (halves[i] - mean[i]) / np.sqrt(variance[i] + 0.001) + beta[i] for i in range(100)]
    for layer, function in (("dense_1", np.tanh), ("dense_2", lambda v: max(v, 0.0)), ("dense_3", lambda v: v)):
        part = weights[f"{layer}/{layer}"]
        kernel, bias = np.array(part["kernel:0"], float), np.array(part["bias:0"], float)
        x = [function(sum(x[i] * kernel[i, o] for i in range(len(x))) + bias[o]) for o in range(len(bias))]
    return float(x[0])


def test_the_given_network_agrees_with_the_formulas_of_keras_2(shared_data: Path) -> None:
    import h5py
    import pandas as pd

    path = shared_data / "crypto" / "model.h5"
    sample = files.numbers_csv([f"n{number}" for number in range(65)])
    result = convert(ImportRequest(path.name, path.read_bytes(), "gru", "v_open", sample=sample))
    assert result.largest_difference < 1e-5
    model = load(result.files["models/gru.pkl"])
    rows = np.random.default_rng(0).normal(size=(6, 5, 13))
    frame = pd.DataFrame(rows.reshape(6, 65), columns=list(result.signature.names))
    with h5py.File(path) as file:
        expected = [keras_2_prediction(file["model_weights"], row) for row in rows]
    assert np.ptp(expected) > 0.1
    assert np.abs(model.scores(frame)[:, 0] - expected).max() < 1e-5

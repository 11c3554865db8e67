"""A network and scalers with random weights, in place of the given files where these are not available.

They have the formats of Keras 2.2.4 and scikit-learn 0.20.
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Sequence

import h5py
import numpy as np
from sklearn.preprocessing import StandardScaler

FEATURES = ["open", "high", "low", "close", "close_ratio", "spread", "v_open", "v_high", "v_low", "v_close", "v_close_ratio",
            "v_spread", "log_shares"]  # fmt: skip
STEPS, UNITS = 5, 50


def scalers(symbols: Sequence[str], seed: int = 0) -> bytes:
    """Return pickled scalers, symbol → column → scaler, and the hyperparameters."""
    random = np.random.default_rng(seed)
    content: dict[str, object] = {symbol: {name: _scaler(name, random) for name in FEATURES[:-1]} for symbol in symbols}
    content["model_hypers"] = {"feat_cols": FEATURES, "target_col": "v_open", "seq_len": STEPS, "batch_size": 32}
    data = pickle.dumps(content, protocol=3)
    for name in (b"sklearn.preprocessing._data", b"numpy._core.multiarray"):
        data = data.replace(name, name.replace(b"._", b"."))
    return data


def _scaler(name: str, random: np.random.Generator) -> StandardScaler:
    center = 0.0 if name.startswith("v_") else 100.0
    return StandardScaler().fit(random.normal(center, 10, (50, 1)))


def network(seed: int = 0) -> bytes:
    """Return a network: bidirectional GRU(50), batch normalization, dense 20 tanh, 10 relu, 1."""
    random = np.random.default_rng(seed)
    gru = {"units": UNITS, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "reset_after": False,
           "return_sequences": False, "use_bias": True, "go_backwards": False, "stateful": False}  # fmt: skip
    layers = [
        _layer("InputLayer", "input_1", batch_input_shape=[None, STEPS, len(FEATURES)]),
        _layer("Bidirectional", "both", merge_mode="concat", layer={"class_name": "GRU", "config": {"name": "gru", **gru}}),
        _layer("BatchNormalization", "norm", axis=-1, epsilon=0.001, center=True, scale=True),
        _layer("Dense", "dense_1", activation="tanh", units=20),
        _layer("Dense", "dense_2", activation="relu", units=10),
        _layer("Dense", "dense_3", activation="linear", units=1),
    ]
    for previous, layer in itertools.pairwise(layers):
        layer["inbound_nodes"] = [[[previous["name"], 0, 0, {}]]]
    gates = 3 * UNITS
    half = {"kernel:0": (len(FEATURES), gates), "recurrent_kernel:0": (UNITS, gates), "bias:0": (gates,)}
    weights = {f"both/{direction}_gru/{name}": shape for direction in ("forward", "backward") for name, shape in half.items()}
    weights |= {f"norm/{name}:0": (2 * UNITS,) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    for name, (inner, outer) in {"dense_1": (2 * UNITS, 20), "dense_2": (20, 10), "dense_3": (10, 1)}.items():
        weights |= {f"{name}/kernel:0": (inner, outer), f"{name}/bias:0": (outer,)}
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [["dense_3", 0, 0]]}
        root.attrs["model_config"] = json.dumps(
            {"class_name": "Model", "config": {"name": "model_1", "layers": layers, **ends}}
        )
        root.attrs["keras_version"] = "2.2.4"
        for layer in layers:
            paths = [path for path in weights if path.startswith(f"{layer['name']}/")]
            group = root.create_group(f"model_weights/{layer['name']}")
            group.attrs["weight_names"] = [path.encode() for path in paths]
            for path in paths:
                numbers = random.normal(0, 0.3, weights[path])
                group[path] = np.abs(numbers) + 0.5 if path.startswith("norm") else numbers
    return file.getvalue()


def _layer(kind: str, name: str, **config: object) -> dict[str, object]:
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": []}

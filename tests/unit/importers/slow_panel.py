"""A slow reference implementation of the given network's rules, row by row."""

from __future__ import annotations

import io
import json
import math
import pickle
from datetime import date, timedelta

import h5py
import numpy as np
from numpy._core import multiarray
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scale = tuple[float, float]  # mean, scale
Day = tuple[date, dict[str, float]]  # a day of one symbol, and its raw and derived columns

BASES = ["open", "high", "low", "close", "close_ratio", "spread"]  # the X that have a v_X


# ---- scaler.pkl -----------------------------------------------------------------------------------------------------


class Inert:
    """Stands in for StandardScaler: unpickling sets its attributes and runs nothing."""

    mean_: Floats
    scale_: Floats


GLOBALS: dict[tuple[str, str], object] = {
    ("sklearn.preprocessing.data", "StandardScaler"): Inert,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "scalar"): multiarray.scalar,
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
}


class Restricted(pickle.Unpickler):
    """Unpickler that accepts only the five known globals."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        """Return the stand-in of a known global."""
        if (module_name, global_name) not in GLOBALS:
            raise pickle.UnpicklingError(f"not allowed: {module_name}.{global_name}")
        return GLOBALS[module_name, global_name]


def scalers(data: bytes) -> tuple[dict[str, dict[str, Scale]], list[str], int]:
    """Read scaler.pkl: symbol -> column -> (mean, scale), the feature columns in order, and the window length."""
    content = Restricted(io.BytesIO(data)).load()
    hypers = content["model_hypers"]
    table: dict[str, dict[str, Scale]] = {}
    for symbol in content:
        if symbol == "model_hypers":
            continue
        table[symbol] = {}
        for column in content[symbol]:
            scaler = content[symbol][column]
            table[symbol][column] = (float(scaler.mean_[0]), float(scaler.scale_[0]))
    return table, list(hypers["feat_cols"]), int(hypers["seq_len"])


# ---- model.h5 -------------------------------------------------------------------------------------------------------


def hard_sigmoid(x: Floats) -> Floats:
    """Keras 2's hard sigmoid."""
    return np.clip(0.2 * x + 0.5, 0.0, 1.0)


def gru(steps: list[Floats], weights: dict[str, Floats], units: int) -> Floats:
    """Run a GRU (reset_after=False; gates z, r, h) over the steps in the order given, and return its last state."""
    kernel, recurrent, bias = weights["kernel:0"], weights["recurrent_kernel:0"], weights["bias:0"]
    kernel_z, kernel_r, kernel_h = kernel[:, :units], kernel[:, units : 2 * units], kernel[:, 2 * units :]
    recurrent_z, recurrent_r, recurrent_h = recurrent[:, :units], recurrent[:, units : 2 * units], recurrent[:, 2 * units :]
    bias_z, bias_r, bias_h = bias[:units], bias[units : 2 * units], bias[2 * units :]
    h = np.zeros(units)
    for x in steps:
        z = hard_sigmoid(x @ kernel_z + bias_z + h @ recurrent_z)
        r = hard_sigmoid(x @ kernel_r + bias_r + h @ recurrent_r)
        candidate = np.tanh(x @ kernel_h + bias_h + (r * h) @ recurrent_h)
        h = z * h + (1.0 - z) * candidate
    return h


class Network:
    """The given network, computed by the formulas of Keras 2 in double precision."""

    def __init__(self, data: bytes) -> None:
        """Read the configuration and the weights by name; reject an unknown layer."""
        self.layers: list[tuple[str, dict[str, object], dict[str, dict[str, Floats]]]] = []
        with h5py.File(io.BytesIO(data), "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            previous = ""
            for layer in layers:
                name, kind, config = layer["name"], layer["class_name"], layer["config"]
                if kind != "InputLayer" and layer["inbound_nodes"] != [[[previous, 0, 0, {}]]]:
                    raise ValueError(f"{name} does not follow {previous}")
                previous = name
                group = file["model_weights"][name]
                if kind == "InputLayer":
                    continue
                if kind == "Bidirectional":
                    inner = config["layer"]
                    expected = {
                        "return_sequences": False,
                        "go_backwards": False,
                        "activation": "tanh",
                        "recurrent_activation": "hard_sigmoid",
                        "use_bias": True,
                        "reset_after": False,
                    }
                    for setting in expected:
                        if inner["config"][setting] != expected[setting]:
                            raise ValueError(f"{name}: {setting} is {inner['config'][setting]}")
                    if inner["class_name"] != "GRU" or config["merge_mode"] != "concat":
                        raise ValueError(f"{name} is not two concatenated GRUs")
                    settings: dict[str, object] = {"units": int(inner["config"]["units"])}
                    inner_name = inner["config"]["name"]
                    parts = {"forward": f"forward_{inner_name}", "backward": f"backward_{inner_name}"}
                    names = ["kernel:0", "recurrent_kernel:0", "bias:0"]
                elif kind == "BatchNormalization":
                    settings = {"epsilon": float(config["epsilon"])}
                    parts = {"": ""}
                    names = ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"]
                elif kind == "Dense" and config["activation"] in ("tanh", "relu", "linear"):
                    settings = {"activation": str(config["activation"])}
                    parts = {"": ""}
                    names = ["kernel:0", "bias:0"]
                else:
                    raise ValueError(f"{name} is of an unknown kind: {kind}")
                weights: dict[str, dict[str, Floats]] = {}
                for part in parts:
                    folder = group[name][parts[part]] if parts[part] else group[name]
                    weights[part] = {}
                    for weight in names:
                        weights[part][weight] = np.asarray(folder[weight][()], dtype=np.float64)
                self.layers.append((kind, settings, weights))

    def predict(self, window: list[list[float]]) -> float:
        """Compute the output of a window of days x features."""
        steps = [np.array(row, dtype=np.float64) for row in window]
        x = np.zeros(0)
        for kind, settings, weights in self.layers:
            if kind == "Bidirectional":
                units = settings["units"]
                assert isinstance(units, int)
                forward = gru(steps, weights["forward"], units)
                backward = gru(list(reversed(steps)), weights["backward"], units)
                x = np.concatenate([forward, backward])
            elif kind == "BatchNormalization":
                w, epsilon = weights[""], settings["epsilon"]
                assert isinstance(epsilon, float)
                x = (x - w["moving_mean:0"]) / np.sqrt(w["moving_variance:0"] + epsilon)
                x = x * w["gamma:0"] + w["beta:0"]
            else:
                x = x @ weights[""]["kernel:0"] + weights[""]["bias:0"]
                if settings["activation"] == "tanh":
                    x = np.tanh(x)
                elif settings["activation"] == "relu":
                    x = np.maximum(x, 0.0)
        assert x.shape == (1,)
        return float(x[0])


# ---- the rows -------------------------------------------------------------------------------------------------------


def day_of(text: str) -> date:
    """Read a date written day/month/year."""
    day, month, year = text.split("/")
    return date(int(year), int(month), int(day))


def close_ratio(row: dict[str, str]) -> float:
    """(close - low) / (high - low), and 0 where high = low."""
    high, low, close = float(row["high"]), float(row["low"]), float(row["close"])
    if high == low:
        return 0.0
    return (close - low) / (high - low)


def log_shares(row: dict[str, str]) -> float:
    """ln(ceil(market / close)), 0 where close = 0, minus infinity where market = 0."""
    market, close = float(row["market"]), float(row["close"])
    if close == 0.0:
        return 0.0
    shares = market / close
    if not math.isfinite(shares):
        return shares
    shares = float(math.ceil(shares))
    if shares == 0.0:
        return -math.inf
    if shares < 0.0:
        return math.nan
    return math.log(shares)


def histories(rows: list[dict[str, str]]) -> dict[str, list[Day]]:
    """Return the days of every symbol, oldest first, with raw and derived columns; symbols in order of appearance."""
    standing: dict[str, dict[date, dict[str, str]]] = {}
    for row in rows:
        if row["symbol"] not in standing:
            standing[row["symbol"]] = {}
        standing[row["symbol"]][day_of(row["date"])] = row  # a later row of the same day replaces an earlier one
    result: dict[str, list[Day]] = {}
    for symbol in standing:
        days: list[Day] = []
        for day in sorted(standing[symbol]):
            row = standing[symbol][day]
            values: dict[str, float] = {}
            for column in ["open", "high", "low", "close"]:
                values[column] = float(row[column])
            values["close_ratio"] = close_ratio(row)
            values["spread"] = values["high"] - values["low"]
            values["log_shares"] = log_shares(row)
            for column in BASES:
                if days:
                    values["v_" + column] = values[column] - days[-1][1][column]
                else:
                    values["v_" + column] = 0.0
            days.append((day, values))
        result[symbol] = days
    return result


def features(values: dict[str, float], scales: dict[str, Scale], columns: list[str]) -> list[float]:
    """Return one day's features in order: scaled, except log_shares; 0 if not finite."""
    result: list[float] = []
    for column in columns:
        value = values[column]
        if column != "log_shares":
            mean, scale = scales[column]
            value = (value - mean) / scale
        if not math.isfinite(value):
            value = 0.0
        result.append(value)
    return result


def windows(rows: list[dict[str, str]], scaler_bytes: bytes) -> dict[tuple[str, int], list[list[float]]]:
    """Return the window of every day and of the next day of every symbol with a scaler."""
    table, columns, length = scalers(scaler_bytes)
    result: dict[tuple[str, int], list[list[float]]] = {}
    for symbol, days in histories(rows).items():
        if symbol not in table:
            continue
        for index in range(len(days) + 1):
            window: list[list[float]] = []
            for earlier in range(index - length, index):
                if earlier < 0:
                    window.append([0.0] * len(columns))
                else:
                    window.append(features(days[earlier][1], table[symbol], columns))
            result[symbol, index] = window
    return result


def predictions(
    rows: list[dict[str, str]], scaler_bytes: bytes, model_memory: bytes
) -> list[tuple[str, int, str, float, float | None]]:
    """Return (symbol, index, ISO date, pred_open, val_open) of every day and of the next day of every scaled symbol."""
    table = scalers(scaler_bytes)[0]
    network = Network(model_memory)
    inputs = windows(rows, scaler_bytes)
    result: list[tuple[str, int, str, float, float | None]] = []
    for symbol, days in histories(rows).items():
        if symbol not in table:
            continue
        mean, scale = table[symbol]["v_open"]
        pred_open = days[0][1]["open"]
        for index in range(len(days) + 1):
            if index > 0:  # the first day has no prediction: its velocity is 0
                pred_open += network.predict(inputs[symbol, index]) * scale + mean
            if index < len(days):
                day, values = days[index]
                result.append((symbol, index, day.isoformat(), pred_open, values["open"]))
            else:
                day = days[-1][0] + timedelta(days=1)
                result.append((symbol, index, day.isoformat(), pred_open, None))
    return result

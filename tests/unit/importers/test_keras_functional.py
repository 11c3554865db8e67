"""Functional Keras models predict what the Keras that wrote them predicted; keras_functional/generate.py made the files."""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np
import pytest

from podium.importers.comparison_rows import sample_rows
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.importers.keras import read_network
from podium.importers.keras_network import to_scorer
from podium.inference.json_rows import rows_from_json
from podium.inference.parsed_rows import ParseOptions
from podium.inference.table_rows import rows_from_text
from podium.models.serialization import load
from podium.schema.data_errors import BadData
from podium.tables.readers import read_table

ARCHIVE = Path(__file__).parent / "keras_functional" / "files.tar.xz"
NEWEST = "keras-3.15.1"
Content = dict[str, Any]


def members() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        files = ((member.name, archive.extractfile(member)) for member in archive.getmembers() if member.isfile())
        return {name: file.read() for name, file in files if file}


FILES = members()
MODELS = [name for name in FILES if name.endswith((".h5", ".keras")) and "refused" not in name]
REFUSED = [name for name in FILES if "refused" in name]
NAMES = {
    "columns": ["a", "b", "c", "d"],
    "embeddings": ["size", "price", "shop", "day"],
    "learned": ["town", "zone", "a"],
    "merges": ["u", "v", "w", "other"],
    "nested": ["u", "v", "w", "a"],
    "scalar": ["a", "day"],
    "sequences": [*"mnopqrst", "a"],
    "sequential": ["monday", "tuesday"],
    "vocabularies": ["size", "price", "town", "zone", "day"],
}
"""The columns of each sample, in the order of the inputs."""


def sample(name: str, names: list[str] | None = None) -> bytes:
    path, text = PurePath(name), io.StringIO()
    csv.writer(text).writerows([names or NAMES[path.stem], *predictions(name)["rows"]])
    return text.getvalue().encode()


def predictions(name: str) -> Content:
    path = PurePath(name)
    content: Content = json.loads(FILES[f"{path.parent}/predictions.json"])[path.stem]
    return content


def imported(name: str, data: bytes | None = None) -> ImportResult:
    return convert(ImportRequest(PurePath(name).name, data or FILES[name], "m", "y", sample=sample(name)))


@pytest.mark.parametrize("name", MODELS)
def test_a_network_predicts_like_keras(name: str) -> None:
    result = imported(name)
    model = load(result.files["models/m.pkl"])
    assert model.scorer.check(len(model.encoder.features)) == max(len(model.signature.target.classes), 1)
    scores = model.scores(sample_rows(read_table(sample(name)), model.signature.inputs))
    expected = np.array(predictions(name)["predictions"])
    if expected.shape[1] == 1 and scores.shape[1] == 2:
        expected = np.hstack([1 - expected, expected])
    assert np.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 0.01
    assert result.largest_difference < 1e-5


def test_the_archive_covers_keras_2_and_3() -> None:
    assert {PurePath(name).parts[0] for name in FILES} == {"keras-2.13.1", "keras-2.15.0", NEWEST}
    assert (len(MODELS), len(REFUSED)) == (51, 42)


REASONS = {
    "refused_lambda": "layer Lambda is not supported",
    "refused_own": "layer Own is not supported",
    "refused_operation": "layer TFOpLambda is not|layer Multiply is not|called with 2, which is not a tensor",
    "refused_outputs": "2 outputs.*model.outputs",
    "refused_training": "arguments",
    "refused_mask": "mask_zero",
    "refused_slices": "layer SlicingOpLambda is not|layer GetItem is not",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_with_code_or_several_outputs_is_refused(name: str) -> None:
    with pytest.raises(ImportRefused, match=REASONS[PurePath(name).stem]) as refusal:
        convert(ImportRequest(name, FILES[name], "m", "y"))
    assert "tf2onnx" in str(refusal.value) or "keras.Model" in str(refusal.value)


def test_inputs_of_one_column_name_their_columns() -> None:
    named = convert(ImportRequest("x.keras", FILES[f"{NEWEST}/columns.keras"], "m", "y"))
    assert named.signature.names == ("a", "b", "c", "d")
    reordered = sample(f"{NEWEST}/columns.keras", ["d", "extra", "c", "a"]).replace(b"extra", b"b", 1)
    assert convert(ImportRequest("x.keras", FILES[f"{NEWEST}/columns.keras"], "m", "y", reordered)).signature.names == (
        "a", "b", "c", "d",
    )  # fmt: skip


def test_wider_inputs_take_the_other_names_of_the_sample_in_their_order() -> None:
    name = f"{NEWEST}/embeddings.keras"
    signature = imported(name).signature
    assert [(column.name, column.kind) for column in signature.inputs] == [
        ("size", "number"), ("price", "number"), ("shop", "integer"), ("day", "integer"),
    ]  # fmt: skip
    with pytest.raises(ImportRefused, match="does not name its 4 inputs: pass --sample"):
        convert(ImportRequest("x.keras", FILES[name], "m", "y"))
    with pytest.raises(ImportRefused, match="takes 4 columns, but the sample has 5"):
        convert(ImportRequest("x.keras", FILES[name], "m", "y", sample(name, ["size", "price", "branch", "day"])))


def test_codes_that_an_embedding_does_not_have_are_rejected() -> None:
    signature = imported(f"{NEWEST}/embeddings.keras").signature
    row = {"size": 1000.0, "price": 990.0, "shop": 5, "day": 0}
    assert rows_from_json(json.dumps([row]).encode(), signature, 10).count == 1
    for shop in (6, -1, 2.5):
        with pytest.raises(BadData):
            rows_from_json(json.dumps([{**row, "shop": shop}]).encode(), signature, 10)
    table = read_table(b"size,price,shop,day\n1,2,5,0\n1,2,6,0\n1,2,3,0\n")
    with pytest.raises(BadData):
        rows_from_text(table, signature, 10)
    assert list(rows_from_text(table, signature, 10, ParseOptions(by_row=True)).invalid_rows) == [1]


@pytest.mark.parametrize("name", ["embeddings", "vocabularies"])
@pytest.mark.parametrize("number", [-1.0, -1e30, 6.0, 1e30, math.nan, math.inf, 2.0**24])
def test_no_code_stops_the_scorer(name: str, number: float) -> None:
    """Whatever passes the checks of the columns, the graph returns a number or NaN, like the formulas."""
    network = read_network(FILES[f"{NEWEST}/{name}.keras"])
    usual = [1000.0, 990.0, *[0.0] * (len(NAMES[name]) - 2)]
    rows = np.array([usual[:index] + [number] + usual[index + 1 :] for index in range(2, len(usual))])
    expected = network.apply(rows)
    scores = to_scorer(network).session.run(["y"], {"x": rows.astype(np.float32)})[0]
    assert np.isnan(expected[-1]).all()
    assert np.allclose(scores, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_a_missing_text_is_an_empty_text() -> None:
    signature = imported(f"{NEWEST}/learned.keras").signature
    town, zone, _ = signature.inputs
    assert (town.nullable, set(town.categories)) == (True, {"Aachen", "Bonn", "Köln", "Trier"})
    assert (zone.nullable, zone.low, zone.high, zone.handle_unknown) == (False, 0.0, 5.0, "warn")


def changed(
    name: str, change: Callable[[Content], object], weights: Callable[[h5py.File], object] = lambda file: None
) -> bytes:
    """Return a .keras file with another configuration and other weights."""
    archive, result = zipfile.ZipFile(io.BytesIO(FILES[f"{NEWEST}/{name}.keras"])), io.BytesIO()
    config = json.loads(archive.read("config.json"))
    change(config)
    stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored, "r+") as file:
        weights(file)
    with zipfile.ZipFile(result, "w") as copy:
        copy.writestr("config.json", json.dumps(config))
        copy.writestr("metadata.json", archive.read("metadata.json"))
        copy.writestr("model.weights.h5", stored.getvalue())
    return result.getvalue()


def layer(config: Content, kind: str) -> Content:
    found: Content = next(each for each in config["config"]["layers"] if each["class_name"] == kind)
    return found


def tensor(name: str) -> Content:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None, 1], "keras_history": [name, 0, 0]}}


def reads(*names: str) -> list[Content]:
    return [{"args": [[tensor(name) for name in names]], "kwargs": {}}]


def add_layers(config: Content, kind: str, count: int, width: int, **options: Any) -> None:
    """Let the result pass through more layers, each of which reads the one before `width` times."""
    last = config["config"]["output_layers"][0]
    for number in range(count):
        options["name"] = name = f"more_{number}"
        nodes = reads(*[last] * width)
        config["config"]["layers"].append({"class_name": kind, "name": name, "config": dict(options), "inbound_nodes": nodes})
        last = name
    config["config"]["output_layers"] = [last, 0, 0]


def nest(config: Content, depth: int) -> None:
    """Let each of many nested models call the next one twice."""
    inner: Content = {"class_name": "Sequential", "name": "m", "config": {"name": "m", "layers": []}}
    source = {"class_name": "InputLayer", "name": "i", "config": {"name": "i", "batch_shape": [None, 1]}, "inbound_nodes": []}
    for _ in range(depth):
        layers = [source, {**inner, "inbound_nodes": [*reads("i"), *reads("m")]}]
        content = {"name": "m", "layers": layers, "input_layers": ["i", 0, 0], "output_layers": ["m", 1, 0]}
        inner = {"class_name": "Functional", "name": "m", "config": content}
    config["config"]["layers"].append({**inner, "inbound_nodes": reads("a")})


def link_layers(file: h5py.File) -> None:
    """Let the group of a nested model contain itself."""
    file.create_group("layers/functional")["layers"] = file["layers"]
    file.create_group("layers/sequential")


def replaced(file: h5py.File, path: str, **dataset: Any) -> None:
    del file[path]
    file.create_dataset(path, **dataset)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a cycle": (
        lambda: changed("columns", lambda c: layer(c, "BatchNormalization").update(inbound_nodes=reads("layer_normalization"))),
        "CycleError",
    ),
    "a missing layer": (
        lambda: changed("columns", lambda c: layer(c, "Add").update(inbound_nodes=reads("dense", "nowhere"))),
        "KeyError",
    ),
    "two layers of one name": (lambda: changed("columns", lambda c: layer(c, "Add").update(name="dense")), "the same name"),
    "many layers": (lambda: changed("columns", lambda c: add_layers(c, "ReLU", 1200, 1)), "more than 1,000 layers"),
    "doubling": (lambda: changed("columns", lambda c: add_layers(c, "Concatenate", 60, 2, axis=-1)), "values for one row"),
    "nested calls": (lambda: changed("columns", lambda c: nest(c, 40), link_layers), "more than 1,000 layers"),
    "deep nesting": (lambda: changed("columns", lambda c: nest(c, 150)), "complete|more than"),
    "a wide input": (
        lambda: changed("columns", lambda c: layer(c, "InputLayer")["config"].update(batch_shape=[None, 10**9])),
        "must be fixed",
    ),
    "an input of any length": (
        lambda: changed("sequences", lambda c: layer(c, "InputLayer")["config"].update(batch_shape=[None, None, 2])),
        "must be fixed",
    ),
    "many categories": (
        lambda: changed("vocabularies", lambda c: layer(c, "CategoryEncoding")["config"].update(num_tokens=10**12)),
        "values for one row",
    ),
    "large numbers in a vocabulary": (
        lambda: changed("vocabularies", lambda c: layer(c, "IntegerLookup")["config"].update(vocabulary=[1, 2**24])),
        "use StringLookup",
    ),
    "a vocabulary with duplicates": (
        lambda: changed("vocabularies", lambda c: layer(c, "StringLookup")["config"].update(vocabulary=["a", "a"])),
        "duplicates",
    ),
    "several unknown texts": (
        lambda: changed("vocabularies", lambda c: layer(c, "StringLookup")["config"].update(num_oov_indices=3)),
        "num_oov_indices = 3",
    ),
    "no vocabulary": (lambda: changed("learned", lambda c: None), "save the model as .keras"),
    "text as a number": (
        lambda: changed("columns", lambda c: layer(c, "InputLayer")["config"].update(dtype="string")),
        "reads text",
    ),
    "computed codes": (
        lambda: changed(
            "vocabularies",
            lambda c: layer(c, "CategoryEncoding").update(inbound_nodes=reads(layer(c, "Normalization")["name"])),
        ),
        "compute its codes",
    ),
    "an own layer with Keras's name": (
        lambda: changed("columns", lambda c: layer(c, "Dense").update(module="mine", registered_name="mine>Dense")),
        "layer Dense is not supported",
    ),
    "a function as activation": (
        lambda: changed("columns", lambda c: layer(c, "Dense")["config"].update(activation={"class_name": "__lambda__"})),
        "custom activations",
    ),
    "another number of values": (
        lambda: changed("embeddings", lambda c: layer(c, "Reshape")["config"].update(target_shape=[4])),
        "changes the number",
    ),
    "a stateful layer": (lambda: changed("sequences", lambda c: layer(c, "GRU")["config"].update(stateful=True)), "stateful"),
    "missing weights": (
        lambda: changed("columns", lambda c: None, lambda file: file.pop("layers/dense/vars/0")),
        "has 1 weights, expected 2",
    ),
    "no weights": (lambda: changed("columns", lambda c: None, lambda file: file.pop("layers")), "complete"),
    "weights of another shape": (
        lambda: changed("columns", lambda c: None, lambda file: replaced(file, "layers/dense/vars/0", data=np.ones((7, 7)))),
        "complete",
    ),
    "weights that unpack to much": (
        lambda: changed(
            "columns",
            lambda c: None,
            lambda file: replaced(file, "layers/dense/vars/0", shape=(1 << 20, 1 << 20), chunks=(64, 64), dtype="f4"),
        ),
        "more than 16,777,216 weights",
    ),
    "weights in another file": (
        lambda: changed(
            "columns",
            lambda c: None,
            lambda file: file.pop("layers/dense") or file.__setitem__("layers/dense", h5py.ExternalLink("/etc/passwd", "x")),
        ),
        "stored in another file|complete",
    ),
    "a truncated h5": (lambda: FILES[f"{NEWEST}/columns.h5"][:9000], "complete"),
    "a truncated zip": (lambda: FILES[f"{NEWEST}/columns.keras"][:9000], "complete"),
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_or_hostile_network_is_refused(name: str) -> None:
    build, reason = HOSTILE[name]
    with pytest.raises(ImportRefused, match=reason):
        convert(ImportRequest("x.keras", build(), "m", "y"))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_damaged_bytes_are_refused_or_harmless(suffix: str) -> None:
    random, original = np.random.default_rng(0), FILES[f"{NEWEST}/columns.{suffix}"]
    for _ in range(60):
        data = np.frombuffer(original, np.uint8).copy()
        data[random.integers(8, len(data), 20)] = random.integers(0, 256, 20)
        try:
            read_network(data.tobytes())
        except ImportRefused as refusal:
            assert ": " in str(refusal)

"""The configuration and weights of a Keras file (.h5 and .keras), read as data."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.keras_formulas import Array
from podium.importers.keras_layer_config import LayerFiles, layer_name
from podium.models.onnx_checks import MAX_ELEMENTS

MAX_MEMBER_BYTES = 1 << 28
"""Maximum unpacked size of a part of a .keras file."""
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
"""The groups of a model's layers in .keras files; the second one is of Keras 2."""


@dataclass(frozen=True, slots=True)
class KerasFile:
    """The configuration of the model, what is stored for it, and the release of Keras."""

    model: Mapping[str, Any]
    files: LayerFiles
    keras_major: int


def read_file(data: bytes) -> KerasFile:
    """Read a .h5 or .keras file. Raises ImportRefused, and other exceptions for damaged files."""
    if data.startswith(b"PK"):
        archive = zipfile.ZipFile(io.BytesIO(data))
        _check_archive(archive.namelist())
        return _read_zip(archive)
    return _read_h5(data)


def _check_archive(members: Sequence[str]) -> None:
    """Reject archives of other libraries by their members. Raises ImportRefused."""
    for is_member, message in OTHER_ARCHIVES:
        if any(is_member(name) for name in members):
            raise ImportRefused(message)
    if "config.json" not in members:
        raise ImportRefused(
            f"the zip archive holds {', '.join(members[:4]) or 'nothing'}, not a model: unpack it and import the model"
        )


OTHER_ARCHIVES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda name: name == "schema.json",
        "this is a skops file, which is not supported: load it with `skops.io.load` and save the model with `joblib.dump`",
    ),
    (
        lambda name: name.endswith("data.pkl"),
        "this is a PyTorch file, which is not supported: export the network with `torch.onnx.export` and import the ONNX file",
    ),
    (
        lambda name: name.endswith(".npy"),
        "this is an archive of numpy arrays, not a model: save the fitted model with `joblib.dump`",
    ),
    (
        lambda name: name.endswith("MLmodel"),
        "this is an archive of MLflow: unpack it and import the model file in it, such as model.pkl",
    ),
)


def _read_h5(data: bytes) -> KerasFile:
    file = h5py.File(io.BytesIO(data))
    if "model_config" not in file.attrs:
        raise ImportRefused("the file has weights but no network: save the whole model with model.save")
    groups = _member(file, "model_weights")
    version = _text(file.attrs.get("keras_version", groups.attrs.get("keras_version", "2")))
    return KerasFile(
        json.loads(_text(file.attrs["model_config"])), _H5Layer(groups, [], is_whole_model=True), int(version.split(".")[0])
    )


def _read_zip(archive: zipfile.ZipFile) -> KerasFile:
    if any(member.file_size > MAX_MEMBER_BYTES for member in archive.infolist()):
        raise ImportRefused(f"a part of the file is larger than {MAX_MEMBER_BYTES >> 20} MB: import a smaller network")
    file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    version = json.loads(archive.read("metadata.json"))["keras_version"]
    return KerasFile(json.loads(archive.read("config.json")), _ZipLayer(file, archive), int(version.split(".")[0]))


@dataclass(frozen=True, slots=True)
class _H5Layer:
    """A layer of a .h5 file with the paths of its weights. A model within the model has the weights of all its layers."""

    group: Any
    paths: list[str]
    is_whole_model: bool = False

    def weights(self) -> list[Array]:
        return [_array(self.group, path) for path in self.paths]

    def vocabulary(self) -> None:
        return None

    def child(self, layers: Sequence[Mapping[str, Any]], index: int) -> LayerFiles:
        name = layer_name(layers[index])
        if self.is_whole_model:
            group = _member(self.group, name)
            return _H5Layer(group, [_text(path) for path in group.attrs["weight_names"]])
        paths = [path for path in self.paths if name in path.split("/")[:-1]]
        if not paths:  # Keras 2 names neither models within models nor the layer Normalization
            paths = self.paths if "layers" in layers[index]["config"] else [path for path in self.paths if "/" not in path]
        return _H5Layer(self.group, paths)


@dataclass(frozen=True, slots=True)
class _ZipLayer:
    """A layer or model of a .keras file, which names layers by their class in snake case, numbered in their order."""

    group: Any
    archive: zipfile.ZipFile

    def weights(self) -> list[Array]:
        return list(_leaves(self.group))

    def vocabulary(self) -> list[str] | None:
        path = f"assets{self.group.name}/vocabulary.txt"
        return self.archive.read(path).decode().split("\n") if path in self.archive.namelist() else None

    def child(self, layers: Sequence[Mapping[str, Any]], index: int) -> LayerFiles:
        group = next(_member(self.group, name) for name in CONTAINERS if name in self.group)
        kind = _snake_case(layers[index]["class_name"])
        position = sum(_snake_case(layer["class_name"]) == kind for layer in layers[:index])
        numbers = sorted(int(name[len(kind) + 1 :] or 0) for name in group if re.fullmatch(rf"{kind}(_\d+)?", name))
        number = numbers[position]  # Keras 2 skips numbers
        return _ZipLayer(_member(group, f"{kind}_{number}" if number else kind), self.archive)


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _leaves(group: Any) -> Iterator[Array]:
    """The arrays of a group: forward before backward, then by name. The state of random generators is left out."""
    order = {"forward_layer": 0, "backward_layer": 1}
    for name in sorted(group, key=lambda name: (order.get(name, 2), name)):
        member = _member(group, name)
        if isinstance(member, h5py.Dataset):
            yield _array(group, name)
        elif name != "seed_generator":
            yield from _leaves(member)


def _array(group: Any, path: str) -> Array:
    """The numbers of a dataset, which must be stored in this file. Raises ImportRefused."""
    dataset = _member(group, path)
    if dataset.external or dataset.is_virtual:
        raise ImportRefused("the weights are stored in another file: save the model with its weights")
    if dataset.size > MAX_ELEMENTS:
        raise ImportRefused(f"a layer has more than {MAX_ELEMENTS:,} weights: import a smaller network")
    return np.asarray(dataset, dtype=float)


def _member(group: Any, path: str) -> Any:
    """The group or dataset at a path, without following links to other files. Raises ImportRefused."""
    for part in path.split("/"):
        link = group.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ImportRefused("the weights are stored in another file: save the model with its weights")
        group = group[part]
    return group


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

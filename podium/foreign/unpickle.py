"""Pickles of other libraries, joblib's compressed ones too: looked through as inert shells first, constructed afterwards.

Only exact pairs of module and name are ever imported, those of `allowed.txt` and of the server's own list; the file has no say.
Arrays and frames are data and are made in both passes.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib.numpy_pickle import NumpyUnpickler

from podium.foreign.refusal import Refusal

Global = tuple[str, str]

LIST = Path(__file__).with_name("allowed.txt")
DATA, NEVER_MADE = ("data", "python", "random"), "statsmodels"
"""The sections of the list that are made in both passes, and the one that stays shells."""

HARMLESS = {
    ("sklearn.feature_selection._univariate_selection", "f_classif"),
    ("sklearn.metrics._classification", "balanced_accuracy_score"),
}
"""Functions that fitted estimators keep as values and that only count."""

MAKERS = ("newObj", "__pyx_unpickle_")
"""Cython's makers of objects, whose first argument is the class."""

RANDOM = (np.random.RandomState, np.random.Generator, np.random.MT19937, np.random.PCG64, np.random.SeedSequence)
DEEPEST = 60

RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core.multiarray": "numpy._core.multiarray"}
"""Modules as older pickles name them."""

COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x78": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
}
"""The first bytes of what joblib compresses; lz4 needs a package that is not here."""


class Shell:
    """An object that was not made: the global that was asked for, what it was called with, and the state it was given."""

    asked: Global
    arguments: tuple[Any, ...] = ()
    state: Any = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments
        self.state: Any = dict(named)
        self.items: dict[Any, Any] = {}

    def __new__(cls, *arguments: Any, **named: Any) -> Shell:
        shell = super().__new__(cls)
        shell.__init__(*arguments, **named)  # type: ignore[misc]
        return shell

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute that it would have had."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    @property
    def kind(self) -> str:
        return self.asked[1]


Allowed = dict[Global, str]
"""Every global that a pickle may name, and its section of the list."""


@cache
def allowed(extra: Path | None = None) -> Allowed:
    """The list that is shipped, and `extra`, that of the server's operator."""
    found: Allowed = {}
    for path in filter(None, (LIST, extra)):
        section = ""
        for line in path.read_text().splitlines():
            text = line.partition("#")[0].strip()
            if text.startswith("["):
                section = text.strip("[]")
            elif text:
                module, _, name = text.rpartition(" ")
                found[module, name] = section
    return found


class _Unpickler(NumpyUnpickler):  # type: ignore[misc]
    def __init__(self, data: bytes, find: Callable[[Global], Any]) -> None:
        super().__init__("", io.BytesIO(data), ensure_native_byte_order=True)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return self._find((RENAMED.get(module, module), name))


def decompressed(data: bytes) -> bytes:
    """Raises Refusal."""
    for prefix, decompress in COMPRESSED.items():
        if data.startswith(prefix):
            try:
                return decompress(data)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise Refusal("the file is compressed and damaged") from error
    return data


def look_through(data: bytes, allow: Allowed) -> tuple[Any, set[Global]]:
    """The pickle as inert shells, and every global that it asks for. Raises Refusal for those that are not allowed."""
    asked: set[Global] = set()

    def find(pair: Global) -> Any:
        asked.add(pair)
        if allow.get(pair) in DATA:
            return _import(pair)
        return type("Shell", (Shell,), {"asked": pair})

    try:
        shells = _Unpickler(data, find).load()
    except Refusal:
        raise
    except MemoryError:
        raise
    except Exception as error:
        _refuse_others(asked, allow)
        raise Refusal(f"the pickle is damaged or of no known form ({type(error).__name__})") from error
    _refuse_others(asked, allow)
    return shells, asked


def _refuse_others(asked: set[Global], allow: Allowed) -> None:
    others = sorted(f"{module}.{name}" for module, name in asked - allow.keys())
    if others:
        raise Refusal(
            f"the pickle asks for {', '.join(others[:8])}{' …' if len(others) > 8 else ''}, which no list allows. Nothing "
            "of it was run. Export the model to ONNX; or, if you know what these are, list them in PODIUM_IMPORT_ALLOWED"
        )


def check_plain(value: Any, depth: int = 0) -> None:
    """Only what a fitted estimator is made of: numbers, texts, arrays of them, and estimators that hide no method of theirs.

    A function or a class as a value, a frame, or a value under a method's name would be called by the estimator's own code.
    Raises Refusal.
    """
    if depth > DEEPEST:
        raise Refusal("the pickle is nested deeper than any estimator")
    if value is None or isinstance(value, str | bytes | bytearray | int | float | complex | slice | np.generic | np.dtype):
        return
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject and value.dtype.names is None:
            for cell in value.ravel().tolist():
                check_plain(cell, depth + 1)
    elif isinstance(value, Shell):
        _check_shell(value, depth)
    elif isinstance(value, dict):
        check_plain([*value.keys(), *value.values()], depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for cell in value:
            check_plain(cell, depth + 1)
    elif isinstance(value, type) and issubclass(value, np.generic | Shell):
        if issubclass(value, Shell) and value.asked not in HARMLESS:
            raise Refusal(f"an estimator holds {'.'.join(value.asked)} itself as a value, which no fitted one does")
    elif type(value) not in RANDOM:
        raise Refusal(f"an estimator holds a {type(value).__name__}, which no fitted one needs")


def _check_shell(shell: Shell, depth: int) -> None:
    made = shell.kind.startswith(MAKERS) and shell.arguments and isinstance(shell.arguments[0], type)
    check_plain(shell.arguments[1:] if made else shell.arguments, depth + 1)
    check_plain(getattr(shell, "items", {}), depth + 1)
    if not isinstance(shell.state, dict):
        return check_plain(shell.state, depth + 1)
    real = _import(shell.asked)
    for name, value in shell.state.items():
        own = getattr(real, name, None) if isinstance(name, str) else real
        if not isinstance(name, str) or name.startswith("__") or callable(own) or isinstance(own, property):
            raise Refusal(f"a {shell.kind} of the file has a value in the place of a method")
        check_plain(value, depth + 1)
    nodes = shell.state.get("nodes")
    if isinstance(nodes, np.ndarray) and nodes.dtype.names:
        _check_nodes(nodes)


def _check_nodes(nodes: np.ndarray) -> None:
    """Every branch of a tree leads to a later node that is there. Raises Refusal."""
    left, right = ("left_child", "right_child") if "left_child" in (nodes.dtype.names or ()) else ("left", "right")
    leaf = nodes["is_leaf"].astype(bool) if "is_leaf" in (nodes.dtype.names or ()) else nodes[left] < 0
    place = np.arange(len(nodes))
    for side in (left, right):
        ends = nodes[side].astype(np.int64)
        if not ((ends > place) & (ends < len(nodes)) | leaf).all():
            raise Refusal("a tree of the file leads nowhere")


def construct(data: bytes, allow: Allowed) -> Any:
    """The objects themselves; only after `look_through`. Raises Refusal."""

    def find(pair: Global) -> Any:
        if allow.get(pair, NEVER_MADE) == NEVER_MADE:
            raise Refusal(f"{pair[0]}.{pair[1]} is never constructed")
        return _import(pair)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Unpickler(data, find).load()
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        raise Refusal(
            f"the model could not be constructed ({type(error).__name__}): was it saved by another release?"
        ) from error


def _latin1(text: str, encoding: str) -> bytes:
    """What older pickles call to make bytes."""
    if encoding != "latin1":
        raise Refusal("the pickle asks for an encoding that pickles do not use")
    return text.encode("latin1")


def _import(pair: Global) -> Any:
    module, name = pair
    if pair == ("_codecs", "encode"):
        return _latin1
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise Refusal(
            f"this release of {module.partition('.')[0]} has no {module}.{name}: save the model with this one"
        ) from None

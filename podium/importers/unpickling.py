"""Pickles of other libraries, joblib's compressed ones too: looked through as inert shells first, constructed afterwards.

Only exact pairs of module and name are ever imported, those of `allowed.txt` and of the server's own list; the file has no say.
Arrays and frames are data and are made in both passes.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import itertools
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib.numpy_pickle import NumpyUnpickler

from podium.importers.errors import ImportRefused
from podium.models.bounded_unpickling import MAX_DEPTH, MAX_WEIGHT, PickleBudget, TooLarge, check_pickle_size

Global = tuple[str, str]

LIST = Path(__file__).with_name("allowed.txt")
DATA, NEVER_MADE = ("data", "python", "random"), "statsmodels"
"""The sections of the list that are made in both passes, and the one that stays shells."""

WAY_OUT = "export the model to ONNX, or save it again with the library that made it"

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


class _Unpickler(PickleBudget, NumpyUnpickler):  # type: ignore[misc]
    dispatch = check_pickle_size(NumpyUnpickler.dispatch)

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
                raise ImportRefused("the file is compressed and damaged") from error
    return data


def look_through(data: bytes, allow: Allowed) -> tuple[Any, set[Global]]:
    """The pickle as inert shells, and every global that it asks for. Raises Refusal for those that are not allowed."""
    asked: set[Global] = set()

    def find(pair: Global) -> Any:
        asked.add(pair)
        if allow.get(pair) in DATA:
            return import_global(pair)
        return type("Shell", (Shell,), {"asked": pair})

    try:
        shells = _Unpickler(data, find).load()
        _Sizes().check(shells)
    except ImportRefused:
        raise
    except TooLarge as error:
        raise ImportRefused(f"{error}: {WAY_OUT}") from error
    except MemoryError:
        raise
    except Exception as error:
        _refuse_others(asked, allow)
        raise ImportRefused(f"the pickle is damaged or of no known form ({type(error).__name__})") from error
    _refuse_others(asked, allow)
    return shells, asked


class _Sizes:
    """Weighs everything once more when all of it is there: a list may have been filled after it was put into another."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def check(self, value: Any, depth: int = 0) -> int:
        """The number of parts, shared ones each time; a part that holds itself counts once. Raises TooLarge."""
        if isinstance(value, str | bytes | int | float | None) or depth > MAX_DEPTH:
            if depth > MAX_DEPTH:
                raise TooLarge(f"the pickle is nested deeper than {MAX_DEPTH}")
            return 1
        if id(value) not in self._known:
            self._known[id(value)] = 1
            self._known[id(value)] = 1 + sum(self.check(part, depth + 1) for part in _parts(value))
            if self._known[id(value)] > MAX_WEIGHT:
                raise TooLarge("the pickle repeats its parts too often")
        return self._known[id(value)]


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return itertools.chain(value.keys(), value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Shell):
        return value.arguments, value.state, getattr(value, "items", {})
    return value.flat if isinstance(value, np.ndarray) and value.dtype == object else ()


def _refuse_others(asked: set[Global], allow: Allowed) -> None:
    others = sorted(f"{module}.{name}" for module, name in asked - allow.keys())
    if others:
        raise ImportRefused(
            f"the pickle asks for {', '.join(others[:8])}{' …' if len(others) > 8 else ''}, which no list allows. Nothing "
            "of it was run. Export the model to ONNX; or, if you know what these are, list them in PODIUM_IMPORT_ALLOWED"
        )


def construct(data: bytes, allow: Allowed) -> Any:
    """The objects themselves; only after `look_through`. Raises Refusal."""

    def find(pair: Global) -> Any:
        if allow.get(pair, NEVER_MADE) == NEVER_MADE:
            raise ImportRefused(f"{pair[0]}.{pair[1]} is never constructed")
        return import_global(pair)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Unpickler(data, find).load()
    except (ImportRefused, MemoryError):
        raise
    except Exception as error:
        raise ImportRefused(
            f"the model could not be constructed ({type(error).__name__}): was it saved by another release?"
        ) from error


def _latin1(text: str, encoding: str) -> bytes:
    """What older pickles call to make bytes."""
    if encoding != "latin1":
        raise ImportRefused("the pickle asks for an encoding that pickles do not use")
    return text.encode("latin1")


def import_global(pair: Global) -> Any:
    module, name = pair
    if pair == ("_codecs", "encode"):
        return _latin1
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ImportRefused(
            f"this release of {module.partition('.')[0]} has no {module}.{name}: save the model with this one"
        ) from None

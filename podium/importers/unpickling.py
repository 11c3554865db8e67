"""Pickles from other libraries, including joblib's compressed files: scanned as inert objects first, constructed afterwards.

Only exact (module, name) pairs from `allowed.txt` and the operator's own list are ever imported; neither list is taken from
the file. Arrays and frames are data and are constructed in both passes.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import itertools
import lzma
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

from podium.importers.errors import ImportRefused
from podium.importers.old_names import Global, current_name
from podium.importers.old_releases import upgraded
from podium.importers.stand_ins import DATA_STAND_INS, stand_in
from podium.models.bounded_unpickling import MAX_DEPTH, MAX_WEIGHT, PickleBudget, TooLarge, check_pickle_size

AllowedGlobals = dict[Global, str]
"""Maps every global that a pickle may name to its section in the list."""

ALLOWED_FILE = Path(__file__).with_name("allowed.txt")
DATA_SECTIONS = ("data", "python", "random")
"""The sections that are constructed in both passes."""
INERT_MODULES = ("statsmodels.", "patsy.", "scipy.", "pandas.core.internals.blocks")
"""Globals of these modules may be named, since nothing in them is ever imported; a pickle of estimators may not hold them."""

REMEDY = "save the fitted model again with joblib.dump, without classes or functions of its own"
FUNCTION_REMEDY = (
    "Apply a function of your own before the model, and fit on its results as columns of the table; join the results of a "
    'tokenizer with spaces, and pass token_pattern=r"\\S+"'
)

REMEDIES = {
    "imblearn.": "Save a Pipeline of scikit-learn with the fitted steps other than the samplers, which change no prediction",
    "sklearn.multioutput.": "Fit one model per target",
    "sklearn.feature_extraction.": "Fit on columns of a table, with a ColumnTransformer and OneHotEncoder",
    "sklearn.": "Fit with other estimators of scikit-learn",
}
"""Remedies by the start of a name, the first one counts; for other names, FUNCTION_REMEDY."""

DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x78": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
}
"""Decompressors by the first bytes of joblib's compression formats; lz4 is not supported."""


class InertObject:
    """Stands for an object that is not constructed: its global, constructor arguments and state."""

    global_name: Global
    arguments: tuple[Any, ...] = ()
    state: Any = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments
        self.state: Any = dict(named)
        self.items: dict[Any, Any] = {}

    def __new__(cls, *arguments: Any, **named: Any) -> InertObject:
        inert = super().__new__(cls)
        inert.__init__(*arguments, **named)  # type: ignore[misc]
        return inert

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
        """Return an attribute of the state."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    @property
    def kind(self) -> str:
        """The name of the object's class or function."""
        return self.global_name[1]


@cache
def allowed_globals(extra: Path | None = None) -> AllowedGlobals:
    """Return the globals in the shipped list and in the operator's list `extra`."""
    allowed: AllowedGlobals = {}
    for path in filter(None, (ALLOWED_FILE, extra)):
        section = ""
        for line in path.read_text().splitlines():
            text = line.partition("#")[0].strip()
            if text.startswith("["):
                section = text.strip("[]")
            elif text:
                module, _, name = text.rpartition(" " if " " in text else ".")
                allowed[module, name] = section
    return allowed


def _build(reader: _Unpickler) -> None:
    """Set the state of the object on the stack, in its current form when objects are constructed.

    The pickle of an array of objects, which follows joblib's placeholder, is read within the same limits.
    """
    if reader.is_constructing:
        reader.stack[-1] = upgraded(reader.stack[-2], reader.stack[-1])
    if isinstance(reader.stack[-2], NumpyArrayWrapper) and reader.stack[-1]["dtype"].hasobject:
        reader.stack[-2:] = [reader.nested()]
    else:
        NumpyUnpickler.load_build(reader)


class _Unpickler(PickleBudget, NumpyUnpickler):  # type: ignore[misc]
    dispatch = check_pickle_size({**NumpyUnpickler.dispatch, pickle.BUILD[0]: _build})

    def __init__(self, file: io.BytesIO, find: Callable[[Global], Any], is_constructing: bool = False) -> None:
        super().__init__("", file, ensure_native_byte_order=True)
        self._find, self.is_constructing = find, is_constructing

    def nested(self) -> Any:
        """Read another pickle at the current position of the file, counted towards the same bounds."""
        inner = _Unpickler(self.file_handle, self._find, self.is_constructing)
        inner.share_budget(self)
        content = inner.load()
        self.share_budget(inner)
        return content

    def find_class(self, module: str, name: str) -> Any:
        return self._find(current_name(module, name))


def decompress(data: bytes) -> bytes:
    """Return the data, decompressed if joblib compressed it. Raises ImportRefused."""
    for prefix, decompressor in DECOMPRESSORS.items():
        if data.startswith(prefix):
            try:
                return decompressor(data)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise ImportRefused("the compressed file is damaged: save it again") from error
    return data


def scan(data: bytes, allowed: AllowedGlobals) -> tuple[Any, set[Global]]:
    """Return the content of a pickle as inert objects, and its globals. Raises ImportRefused if a global is not allowed."""
    used: set[Global] = set()

    def find(global_name: Global) -> Any:
        used.add(global_name)
        if allowed.get(global_name) in DATA_SECTIONS or global_name in DATA_STAND_INS:
            return import_global(global_name)
        return type("InertObject", (InertObject,), {"global_name": global_name})

    try:
        content = _Unpickler(io.BytesIO(data), find).load()
        _SizeCheck().check(content)
    except ImportRefused:
        raise
    except TooLarge as error:
        raise ImportRefused(f"{error}: {REMEDY}") from error
    except MemoryError:
        raise
    except Exception as error:
        _reject_unknown_globals(used, allowed)
        raise ImportRefused(f"the pickle is damaged ({type(error).__name__}): {REMEDY}") from error
    _reject_unknown_globals(used, allowed)
    return content, used


class _SizeCheck:
    """Weighs the complete content again, since a list may have been filled after it was added to another list."""

    def __init__(self) -> None:
        self._weights: dict[int, int] = {}

    def check(self, value: Any, depth: int = 0) -> int:
        """Return the number of parts; shared parts count each time, recursive ones once. Raises TooLarge."""
        if isinstance(value, str | bytes | int | float | None) or depth > MAX_DEPTH:
            if depth > MAX_DEPTH:
                raise TooLarge(f"the pickle is nested deeper than {MAX_DEPTH}")
            return 1
        if id(value) not in self._weights:
            self._weights[id(value)] = 1
            self._weights[id(value)] = 1 + sum(self.check(part, depth + 1) for part in _parts(value))
            if self._weights[id(value)] > MAX_WEIGHT:
                raise TooLarge("the pickle repeats its parts too often")
        return self._weights[id(value)]


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return itertools.chain(value.keys(), value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, InertObject):
        return value.arguments, value.state, getattr(value, "items", {})
    return value.flat if isinstance(value, np.ndarray) and value.dtype == object else ()


def _reject_unknown_globals(used: set[Global], allowed: AllowedGlobals) -> None:
    unknown = sorted(".".join(name) for name in used - allowed.keys() if not _is_replaced_or_inert(name))
    if unknown:
        raise ImportRefused(
            f"the pickle uses {', '.join(unknown[:8])}{' …' if len(unknown) > 8 else ''}, which is not allowed. Nothing was "
            f"executed. {_remedy(unknown)}. Or save a model of a kind in docs/how-to/import-a-model.md, or, if you trust "
            "these names, list them in the file PODIUM_IMPORT_ALLOWED, one a line"
        )


def _remedy(unknown: list[str]) -> str:
    for prefix, remedy in REMEDIES.items():
        if any(name.startswith(prefix) for name in unknown):
            return remedy
    return FUNCTION_REMEDY


def _is_replaced_or_inert(global_name: Global) -> bool:
    return stand_in(global_name) is not None or f"{global_name[0]}.".startswith(INERT_MODULES)


def construct(data: bytes, allowed: AllowedGlobals) -> Any:
    """Return the real objects of a pickle that `scan` has accepted. Raises ImportRefused."""

    def find(global_name: Global) -> Any:
        if global_name not in allowed and stand_in(global_name) is None:
            raise ImportRefused(f"{'.'.join(global_name)} cannot be part of this model: {REMEDY}")
        return import_global(global_name)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Unpickler(io.BytesIO(data), find, is_constructing=True).load()
    except (ImportRefused, MemoryError):
        raise
    except Exception as error:
        raise ImportRefused(
            f"the model cannot be constructed ({type(error).__name__}), probably because another release saved it: {REMEDY}"
        ) from error


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, which pickles call only to turn text into bytes."""
    if encoding != "latin1":
        raise ImportRefused(f'the pickle uses the encoding "{encoding}", which pickles never need: {REMEDY}')
    return text.encode("latin1")


def import_global(global_name: Global) -> Any:
    """Import one allowed global, or return its stand-in. Raises ImportRefused if the installed release does not have it."""
    module, name = global_name
    if replacement := stand_in(global_name):
        return replacement
    if global_name == ("_codecs", "encode"):
        return _latin1
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        library = module.partition(".")[0]
        raise ImportRefused(
            f"the installed release of {library} has no {module}.{name}: save the model again with this release"
        ) from None

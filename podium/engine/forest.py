"""Score tree ensembles with the kernels of `forest.c`."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from podium.engine.lightgbm_library import Booster
from podium.engine.trees import TreeArrays, UnsupportedTrees, tree_arrays
from podium.schema.arrays import FloatMatrix

FOLDER = Path(__file__).parent
ROWS = 16
"""Rows of a block, which the kernel scores side by side."""
MAX_BLOCKS, CACHED_NUMBERS = 32, 32_768
"""Blocks that pass through each tree before the next one, as far as their features fit into the processor's cache."""
INTEGER_FIELDS = ("trees", "outputs", "features", "leaf_outputs", "is_plain", "has_masks", "is_float32", "link", "divisor")
ARRAY_TYPES = {"roots": "i4", "depths": "i4", "bits": "u4", "split_ends": "i4", "leaf_starts": "i4"}
ARRAY_FIELDS = (
    "nodes",
    "roots",
    "depths",
    "bits",
    "splits",
    "thresholds",
    "split_ends",
    "leaves",
    "leaf_starts",
    "leaf_values",
)


class _ForestFields(ctypes.Structure):
    """`Forest` in forest.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in INTEGER_FIELDS),
        ("sigmoid", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ARRAY_FIELDS),
    )


class TreeRowScorer(Protocol):
    """Scores the row in `vector`, one number per feature; scoring may round these numbers. Not thread-safe."""

    vector: Any

    def __call__(self) -> Sequence[float]: ...


class Trees(Protocol):
    """A tree ensemble that can be scored."""

    features: int
    outputs: int

    def scores(self, rows: FloatMatrix) -> FloatMatrix:
        """Return the (n, outputs) scores of an (n, features) matrix. Raises ValueError for another number of features."""

    def row_scorer(self) -> TreeRowScorer:
        """Return a scorer of one row."""


def load_trees(text: str, is_float32: bool) -> Trees:
    """Load a text that passed `check_trees`, for the kernels, or for LightGBM if they cannot score it.

    With `is_float32`, features are rounded to 32 bits first. Raises RuntimeError if LightGBM cannot parse the text.
    """
    try:
        return Forest(text, is_float32)
    except UnsupportedTrees:
        return Booster(text, is_float32)


@functools.cache
def kernels() -> tuple[ctypes.CDLL, ctypes.PyDLL] | None:
    """Return the kernels for this processor: as CDLL, which releases the GIL, and as PyDLL, which is faster for short calls.

    Returns None if there are none for it, or they were not built.
    """
    path = FOLDER / f"forest-{_processor()}.so"
    if platform.system() != "Linux" or not path.exists():
        return None
    shared, holding_gil = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
    for library in (shared, holding_gil):
        library.podium_score_row.restype = library.podium_score_rows.restype = None
        library.podium_score_row.argtypes = [ctypes.c_void_p] * 3
        library.podium_score_rows.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
        ]
    shared.podium_forks.restype = shared.podium_contributions.restype = None
    shared.podium_forks.argtypes = [ctypes.c_void_p] * 10
    shared.podium_contributions.argtypes = [
        *[ctypes.c_void_p] * 6,
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64),
    ]
    return shared, holding_gil


def _processor() -> str:
    machine = platform.machine()
    if machine != "x86_64":
        return machine
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    return "x86_64_v3" if {"avx2", "bmi1", "bmi2", "fma", "movbe"} <= set(flags) else "x86_64_v2"


class Forest:
    """Trees from LightGBM's text format, which must have passed `check_trees`.

    With `is_float32`, features are rounded to 32 bits first. Raises UnsupportedTrees.
    """

    def __init__(self, text: str, is_float32: bool = False, share: bool = True) -> None:
        libraries = kernels()
        if libraries is None:
            raise UnsupportedTrees("no kernels for this processor")
        self.kernels, self._holding_gil = libraries
        self.arrays: TreeArrays = tree_arrays(text, share)
        self.features, self.outputs = self.arrays.features, self.arrays.outputs
        self._kept = [np.ascontiguousarray(_typed(self.arrays, name)) for name in ARRAY_FIELDS]  # the kernels read these
        integers = {name: int(getattr(self.arrays, name)) for name in INTEGER_FIELDS if name != "is_float32"}
        addresses = {name: array.ctypes.data for name, array in zip(ARRAY_FIELDS, self._kept, strict=True)}
        self._fields = _ForestFields(**integers, **addresses, is_float32=int(is_float32), sigmoid=self.arrays.sigmoid)
        self.address = ctypes.addressof(self._fields)

    def scores(self, rows: FloatMatrix) -> FloatMatrix:
        """Return the (n, outputs) scores of an (n, features) matrix. Raises ValueError for another number of features."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(f"the rows have shape {rows.shape}, expected {self.features} columns")
        rows = np.asarray(rows, dtype=np.float64)
        if any(step % rows.itemsize for step in rows.strides):
            rows = np.ascontiguousarray(rows)
        strides = [step // rows.itemsize for step in rows.strides]
        scores = np.empty((len(rows), self.outputs))
        width = self.features + 1 + self.outputs
        blocks = max(1, min(MAX_BLOCKS, CACHED_NUMBERS // (ROWS * width)))
        work = np.empty(ROWS * (blocks * width + self.arrays.trees))
        buffers = scores.ctypes.data, work.ctypes.data
        self.kernels.podium_score_rows(self.address, rows.ctypes.data, len(rows), *strides, *buffers, blocks)
        return scores

    def row_scorer(self) -> RowScorer:
        return RowScorer(self, self._holding_gil, self.address)


def _typed(arrays: TreeArrays, name: str) -> np.ndarray:
    array: np.ndarray = getattr(arrays, name)
    return array.astype(ARRAY_TYPES[name]) if name in ARRAY_TYPES else array


class RowScorer:
    """Scores a row with a kernel, with preallocated buffers."""

    def __init__(self, forest: Forest, library: ctypes.PyDLL, address: int) -> None:
        buffer = (ctypes.c_double * (forest.features + 1))()
        buffer[forest.features] = float("-inf")
        self._buffer, self._forest, self._output = buffer, forest, (ctypes.c_double * forest.outputs)()
        self.vector: Any = (ctypes.c_double * forest.features).from_buffer(buffer)
        self._call = library.podium_score_row
        self._arguments = address, ctypes.addressof(buffer), ctypes.addressof(self._output)

    def __call__(self) -> Sequence[float]:
        self._call(*self._arguments)
        scores: Sequence[float] = self._output[:]
        return scores

"""LightGBM's C library, called without its Python package, which would load scikit-learn."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium.schema.arrays import FloatMatrix

FLOAT32, FLOAT64 = 0, 1
ROW_MAJOR, RAW_OR_TRANSFORMED, FIRST_ITERATION, ALL_ITERATIONS = 1, 0, 0, -1
PARAMETERS = b"num_threads=1 verbosity=-1"


@functools.cache
def library() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """Return the library as CDLL, whose calls release the GIL, and as PyDLL, which is faster for calls of microseconds."""
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise ImportError("the package lightgbm is not installed")
    path = str(Path(spec.origin).parent / "lib" / "lib_lightgbm.so")
    shared = ctypes.CDLL(path)
    shared.LGBM_GetLastError.restype = ctypes.c_char_p
    return shared, ctypes.PyDLL(path)


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"LightGBM: {library()[0].LGBM_GetLastError().decode(errors='replace')}")


class Booster:
    """A model read from LightGBM's text format. Raises RuntimeError if it cannot be read."""

    def __init__(self, text: str) -> None:
        self._library, self.handle = library()[0], ctypes.c_void_p()
        iterations = ctypes.c_int()
        _check(
            self._library.LGBM_BoosterLoadModelFromString(text.encode(), ctypes.byref(iterations), ctypes.byref(self.handle))
        )
        classes = ctypes.c_int()
        _check(self._library.LGBM_BoosterGetNumClasses(self.handle, ctypes.byref(classes)))
        self.outputs = classes.value

    def predict(self, rows: np.ndarray) -> FloatMatrix:
        """Return (n, outputs) scores of a C-contiguous (n, features) matrix of 32 or 64 bit floats."""
        scores, length = np.empty((len(rows), self.outputs)), ctypes.c_int64()
        if not len(rows):
            return scores
        _check(
            self._library.LGBM_BoosterPredictForMat(
                self.handle,
                rows.ctypes.data_as(ctypes.c_void_p),
                FLOAT32 if rows.dtype == np.float32 else FLOAT64,
                ctypes.c_int32(rows.shape[0]),
                ctypes.c_int32(rows.shape[1]),
                ROW_MAJOR,
                RAW_OR_TRANSFORMED,
                FIRST_ITERATION,
                ALL_ITERATIONS,
                PARAMETERS,
                ctypes.byref(length),
                scores.ctypes.data_as(ctypes.c_void_p),
            )
        )
        if length.value != scores.size:
            raise RuntimeError(f"LightGBM gave {length.value} scores, expected {scores.size}")
        return scores

    def __del__(self) -> None:
        if self.handle:
            self._library.LGBM_BoosterFree(self.handle)


class SingleRow:
    """LightGBM's call for one row with its buffers and its prepared configuration; for one thread at a time."""

    def __init__(self, booster: Booster, features: int, outputs: int, float32: bool) -> None:
        if outputs != booster.outputs:
            raise RuntimeError(f"the trees have {booster.outputs} outputs, not {outputs}")
        self.vector: Any = ((ctypes.c_float if float32 else ctypes.c_double) * features)()
        self._output, self._length, self._config = (ctypes.c_double * outputs)(), ctypes.c_int64(), ctypes.c_void_p()
        self._booster = booster  # it must live as long as its configuration
        self._library, without_gil_release = library()
        kind = FLOAT32 if float32 else FLOAT64
        options = (RAW_OR_TRANSFORMED, FIRST_ITERATION, ALL_ITERATIONS, kind, ctypes.c_int32(features), PARAMETERS)
        init = self._library.LGBM_BoosterPredictForMatSingleRowFastInit
        _check(init(booster.handle, *options, ctypes.byref(self._config)))
        self._call = without_gil_release.LGBM_BoosterPredictForMatSingleRowFast
        self._call.argtypes = [ctypes.c_void_p] * 4
        addresses = (ctypes.addressof(buffer) for buffer in (self.vector, self._length, self._output))
        self._arguments = (self._config, *addresses)

    def __call__(self) -> Sequence[float]:
        if self._call(*self._arguments):
            raise RuntimeError("LightGBM could not score a record")
        scores: Sequence[float] = self._output[:]
        return scores

    def __del__(self) -> None:
        if self._config:
            self._library.LGBM_FastConfigFree(self._config)

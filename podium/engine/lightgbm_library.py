"""LightGBM's C library, called without its Python package, which would import scikit-learn."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium.schema.arrays import FloatMatrix

# Constants from LightGBM's c_api.h.
DTYPE_FLOAT32, DTYPE_FLOAT64 = 0, 1
IS_ROW_MAJOR, PREDICT_NORMAL, START_ITERATION, ALL_ITERATIONS = 1, 0, 0, -1
PARAMETERS = b"num_threads=1 verbosity=-1"


@functools.cache
def library() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """Return the library as CDLL, which releases the GIL during calls, and as PyDLL, which is faster for short calls."""
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise ImportError("the lightgbm package is not installed")
    path = str(Path(spec.origin).parent / "lib" / "lib_lightgbm.so")
    shared = ctypes.CDLL(path)
    shared.LGBM_GetLastError.restype = ctypes.c_char_p
    return shared, ctypes.PyDLL(path)


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"LightGBM: {library()[0].LGBM_GetLastError().decode(errors='replace')}")


class Booster:
    """A model in LightGBM's text format. Raises RuntimeError if the text cannot be parsed.

    The text must have passed `check_trees`: LightGBM does not check the indices in it.
    """

    def __init__(self, text: str, is_float32: bool = False) -> None:
        self.is_float32 = is_float32
        self.handle = ctypes.c_void_p()
        self._library = library()[0]
        iterations = ctypes.c_int()
        load = self._library.LGBM_BoosterLoadModelFromString
        _check(load(text.encode(), ctypes.byref(iterations), ctypes.byref(self.handle)))
        self.features = self._read_int("LGBM_BoosterGetNumFeature")
        self.outputs = self._read_int("LGBM_BoosterGetNumClasses")
        trees = self._read_int("LGBM_BoosterNumModelPerIteration")
        if trees != self.outputs:  # LightGBM writes one score per tree, so the buffers would be too small
            raise RuntimeError(f"the model has {trees} trees per iteration, expected one per output ({self.outputs})")

    def _read_int(self, function: str) -> int:
        value = ctypes.c_int()
        _check(getattr(self._library, function)(self.handle, ctypes.byref(value)))
        return value.value

    def scores(self, rows: np.ndarray) -> FloatMatrix:
        """Return the (n, outputs) scores of an (n, features) matrix. Raises ValueError for another number of features."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(f"the rows have shape {rows.shape}, expected {self.features} columns")
        rows = np.ascontiguousarray(rows, dtype=np.float32 if self.is_float32 else np.float64)
        scores, length = np.empty((len(rows), self.outputs)), ctypes.c_int64()
        if not len(rows):
            return scores
        _check(
            self._library.LGBM_BoosterPredictForMat(
                self.handle,
                rows.ctypes.data_as(ctypes.c_void_p),
                DTYPE_FLOAT32 if self.is_float32 else DTYPE_FLOAT64,
                ctypes.c_int32(rows.shape[0]),
                ctypes.c_int32(rows.shape[1]),
                IS_ROW_MAJOR,
                PREDICT_NORMAL,
                START_ITERATION,
                ALL_ITERATIONS,
                PARAMETERS,
                ctypes.byref(length),
                scores.ctypes.data_as(ctypes.c_void_p),
            )
        )
        if length.value != scores.size:
            raise RuntimeError(f"LightGBM returned {length.value} scores, expected {scores.size}")
        return scores

    def row_scorer(self) -> RowPredictor:
        return RowPredictor(self)

    def __del__(self) -> None:
        if self.handle:
            self._library.LGBM_BoosterFree(self.handle)


class RowPredictor:
    """Scores the row in `vector` with preallocated buffers and a prepared configuration. Not thread-safe."""

    def __init__(self, booster: Booster) -> None:
        self._config = ctypes.c_void_p()
        features, outputs, float32 = booster.features, booster.outputs, booster.is_float32
        self.vector: Any = ((ctypes.c_float if float32 else ctypes.c_double) * features)()
        self._output, self._length = (ctypes.c_double * outputs)(), ctypes.c_int64()
        self._booster = booster  # must outlive the configuration, which points to it
        self._library, library_holding_gil = library()
        dtype = DTYPE_FLOAT32 if float32 else DTYPE_FLOAT64
        options = (PREDICT_NORMAL, START_ITERATION, ALL_ITERATIONS, dtype, ctypes.c_int32(features), PARAMETERS)
        init = self._library.LGBM_BoosterPredictForMatSingleRowFastInit
        _check(init(booster.handle, *options, ctypes.byref(self._config)))
        self._call = library_holding_gil.LGBM_BoosterPredictForMatSingleRowFast
        self._call.argtypes = [ctypes.c_void_p] * 4
        addresses = (ctypes.addressof(buffer) for buffer in (self.vector, self._length, self._output))
        self._arguments = (self._config, *addresses)

    def __call__(self) -> Sequence[float]:
        if self._call(*self._arguments):
            raise RuntimeError("LightGBM could not score a row")
        scores: Sequence[float] = self._output[:]
        return scores

    def __del__(self) -> None:
        if self._config:
            self._library.LGBM_FastConfigFree(self._config)

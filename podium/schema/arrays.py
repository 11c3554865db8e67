"""Type aliases for NumPy arrays."""

from collections.abc import Mapping

import numpy as np

FloatVector = np.ndarray[tuple[int], np.dtype[np.float64]]
FloatMatrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
IndexArray = np.ndarray[tuple[int], np.dtype[np.intp]]
BoolMask = np.ndarray[tuple[int], np.dtype[np.bool_]]
Columns = Mapping[str, np.ndarray]
"""Typed cells by column: numbers as float64, NaN if missing; text as objects."""

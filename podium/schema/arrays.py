"""Type aliases for NumPy arrays."""

import numpy as np

FloatVector = np.ndarray[tuple[int], np.dtype[np.float64]]
FloatMatrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
IndexArray = np.ndarray[tuple[int], np.dtype[np.intp]]
BoolMask = np.ndarray[tuple[int], np.dtype[np.bool_]]

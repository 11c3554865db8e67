"""Transforms of patsy that learn from the training rows: splines, `center` and `standardize`, as piecewise polynomials."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import patsy

TRANSFORMS: dict[str, Callable[[], Any]] = {
    "bs": patsy.splines.BS,
    "cr": patsy.mgcv_cubic_splines.CR,
    "cc": patsy.mgcv_cubic_splines.CC,
    "center": patsy.state.Center,
    "standardize": patsy.state.Standardize,
    "scale": patsy.state.Standardize,
}
DEGREE = 3


@dataclass(frozen=True, slots=True)
class LearnedTransform:
    """A transform of one column: `values` computes it with patsy, and `pieces` are its polynomials.

    Polynomial i, with the lowest power first, counts from `starts[i]` on, and the first one also below. They are polynomials of
    (x - starts[i]) / widths[i]. The shape of `pieces` is (intervals, outputs, powers). With a `period`, x is first moved by
    multiples of it into the interval that begins with the first start.
    """

    values: Callable[[np.ndarray], np.ndarray]
    starts: np.ndarray
    widths: np.ndarray
    pieces: np.ndarray
    period: float = 0.0


def learn_transform(call: ast.Call, cells: pd.Series) -> LearnedTransform:
    """Fit a transform on training rows; its arguments are literals. Raises ValueError, as does `literal_eval`."""
    assert isinstance(call.func, ast.Name)
    arguments = [ast.literal_eval(argument) for argument in call.args[1:]]
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    numbers, transform = cells.to_numpy(dtype=float), TRANSFORMS[call.func.id]()
    transform.memorize_chunk(numbers, *arguments, **named)
    transform.memorize_finish()

    def values(x: np.ndarray) -> np.ndarray:
        return np.asarray(transform.transform(x, *arguments, **named), dtype=float).reshape(len(x), -1)

    knots = np.unique(getattr(transform, "_all_knots", (0.0, 1.0))).astype(float)
    starts, widths = knots[:-1], np.diff(knots)
    if call.func.id == "cr":  # continues as a straight line
        starts = np.concatenate([knots[:1] - widths[0], starts, knots[-1:]])
        widths = np.concatenate([widths[:1], widths, widths[-1:]])
    positions = (1.0 - np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))) / 2.0
    powers = np.vander(positions, DEGREE + 1, increasing=True)
    pieces = [np.linalg.solve(powers, values(start + positions * width)).T for start, width in zip(starts, widths, strict=True)]
    return LearnedTransform(values, starts, widths, np.array(pieces), knots[-1] - knots[0] if call.func.id == "cc" else 0.0)

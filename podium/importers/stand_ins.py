"""Classes that are constructed in place of those that a pickle names: removed ones, and those of libraries not installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from pandas._libs.internals import _unpickle_block
from scipy.sparse import csr_matrix

from podium.importers.booster_stand_ins import BOOSTER_STAND_INS
from podium.importers.old_names import Global, removed_class
from podium.importers.sklearn_preprocessing import Unchanged


class NewBlock:
    """The function that pandas 1.3 pickles as `partial(new_block, ndim=…)`."""

    ndim = 2

    def __setstate__(self, state: Any) -> None:
        self.ndim = int(state[2].get("ndim", 2))

    def __call__(self, values: Any, placement: Any) -> Any:
        return _unpickle_block(values, placement, self.ndim)


class CheckedRows(csr_matrix):  # type: ignore[misc]
    """A sparse matrix whose indices lie within its shape, which scipy's compiled code does not check."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.check_format(full_check=True)


def partial(function: Any) -> Any:
    """Return what stands for `functools.partial` of one of two known functions. Raises ValueError."""
    name = getattr(function, "global_name", (getattr(function, "__module__", ""), getattr(function, "__name__", "")))
    if name == ("pandas.core.internals.blocks", "new_block"):
        return NewBlock()
    if name == ("sklearn.utils.validation", "check_array"):
        return Unchanged()
    raise ValueError("the pickle holds a partial function that no fitted estimator needs")


def numpy_function(module: str, name: str) -> Any:
    """Return a function of numpy, which older releases of numpy pickle by its module and name. Raises ValueError."""
    if module not in ("numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath") or name not in NUMPY_FUNCTIONS:
        raise ValueError(f"the function {name} of {module} is not known")
    return getattr(np, name)


NUMPY_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        absolute cbrt ceil cos exp exp2 expm1 fabs floor log log10 log1p log2 negative positive reciprocal rint sign sin sqrt
        square tanh
        """,
    )
)
"""Functions that an estimator may hold: each computes one number from one number, and has no side effect."""

STAND_INS: dict[Global, Callable[..., Any]] = {
    ("functools", "partial"): partial,
    ("numpy._core", "_ufunc_reconstruct"): numpy_function,
    ("scipy.sparse._csr", "csr_matrix"): CheckedRows,
    ("scipy.sparse.csr", "csr_matrix"): CheckedRows,
    **BOOSTER_STAND_INS,
}


def stand_in(global_name: Global) -> Callable[..., Any] | None:
    """Return what replaces a global, or None."""
    return STAND_INS.get(global_name) or removed_class(global_name)


DATA_STAND_INS = {("functools", "partial")}
"""Stand-ins that are constructed in both passes."""

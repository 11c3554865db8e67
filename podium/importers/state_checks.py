"""Check the state of a scanned estimator: no callable values, and only trees whose traversal terminates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from podium.importers.booster_stand_ins import MODEL_BYTES
from podium.importers.errors import ImportRefused
from podium.importers.old_releases import RENAMED_ATTRIBUTES
from podium.importers.sklearn_preprocessing import Unchanged
from podium.importers.stand_ins import NUMPY_FUNCTIONS
from podium.importers.text_vectorizers import VECTORIZERS, check_vectorizer
from podium.importers.unpickling import REMEDY, InertObject, import_global

SAFE_FUNCTIONS = {
    ("scipy._lib.array_api_compat.numpy._aliases", "asarray"),
    ("sklearn.feature_selection._mutual_info", "mutual_info_classif"),
    ("sklearn.feature_selection._mutual_info", "mutual_info_regression"),
    ("sklearn.feature_selection._univariate_selection", "chi2"),
    ("sklearn.feature_selection._univariate_selection", "f_classif"),
    ("sklearn.feature_selection._univariate_selection", "f_regression"),
    ("sklearn.metrics._classification", "balanced_accuracy_score"),
    ("sklearn.utils.validation", "check_array"),
    *(("numpy", name) for name in NUMPY_FUNCTIONS),
}
"""Side-effect-free functions that fitted estimators keep as values."""

METHOD_NAMES = {"stack_method_": {"predict_proba", "decision_function", "predict"}}
"""Attributes that hold names of methods to call, and the names that they may hold."""

NAME_LISTS = ("_df_columns", "_feature_names_in")
"""Attributes in which older releases keep the names of columns as a pandas index."""

CYTHON_FACTORIES = ("newObj", "__pyx_unpickle_")
"""Cython functions that construct objects; their first argument is the class."""

VALUE_TYPES = (bool, bytes, complex, float, int, object, str)
"""Types that may be values, such as the `dtype_include` of a column selector; a call of them has no effect."""

RANDOM_TYPES = (np.random.RandomState, np.random.Generator, np.random.MT19937, np.random.PCG64, np.random.SeedSequence)
MAX_NESTING, MAX_INTEGER_BITS = 60, 1024


def validate_state(value: Any) -> None:
    """Accept only the parts of fitted estimators: numbers, strings, arrays of them, and estimators that override no method.

    The estimator's own code could call other values, such as a stored function or class, or a value named like a method.
    Raises ImportRefused.
    """
    _StateValidator().check(value, 0)


class _StateValidator:
    """Checks each object once, and again only if it is nested deeper than before."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def check(self, value: Any, depth: int) -> None:
        if depth > MAX_NESTING:
            raise ImportRefused(f"the pickle is nested deeper than any estimator: {REMEDY}")
        if value is None or isinstance(value, str | bytes | bytearray | float | complex | slice | np.generic | np.dtype):
            return
        if isinstance(value, int):
            if value.bit_length() > MAX_INTEGER_BITS:
                raise ImportRefused(f"an estimator holds an integer of more than {MAX_INTEGER_BITS} bits: {REMEDY}")
            return
        if self._depths.get(id(value), -1) >= depth:
            return
        self._depths[id(value)] = depth
        self._check_container(value, depth)

    def _check_container(self, value: Any, depth: int) -> None:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                if value.dtype.names is not None:
                    raise ImportRefused(f"an estimator holds a structured array of objects: {REMEDY}")
                self._check_all(value.flat, depth)
        elif isinstance(value, InertObject):
            self._check_object(value, depth)
        elif isinstance(value, dict):
            self._check_all(value.keys(), depth)
            self._check_all(value.values(), depth)
        elif isinstance(value, list | tuple | set | frozenset):
            self._check_all(value, depth)
        elif isinstance(value, type) and value in VALUE_TYPES:
            return
        elif isinstance(value, type) and issubclass(value, np.generic | InertObject):
            if issubclass(value, InertObject) and value.global_name not in SAFE_FUNCTIONS:
                raise ImportRefused(
                    f"an estimator holds the class or function {'.'.join(value.global_name)} as a value: {REMEDY}"
                )
        elif type(value) not in (*RANDOM_TYPES, Unchanged):
            raise ImportRefused(f"an estimator holds a {type(value).__name__}, which no fitted estimator needs: {REMEDY}")

    def _check_all(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            self.check(value, depth + 1)

    def _check_object(self, inert: InertObject, depth: int) -> None:
        by_factory = inert.kind.startswith(CYTHON_FACTORIES) and inert.arguments and isinstance(inert.arguments[0], type)
        self._check_all(inert.arguments[1:] if by_factory else inert.arguments, depth)
        self.check(getattr(inert, "items", {}), depth + 1)
        if not isinstance(inert.state, dict):
            return self.check(inert.state, depth + 1)
        if inert.kind in VECTORIZERS:
            check_vectorizer(inert)
        real = import_global(inert.global_name)
        for name, value in inert.state.items():
            attribute = getattr(real, name, None) if isinstance(name, str) else real
            is_property = isinstance(attribute, property) and name not in RENAMED_ATTRIBUTES
            is_hidden = isinstance(name, str) and name.startswith("__") and name != MODEL_BYTES
            if not isinstance(name, str) or is_hidden or callable(attribute) or is_property:
                raise ImportRefused(f"the state of {inert.kind} overrides a method: {REMEDY}")
            if name in NAME_LISTS and isinstance(value, pd.Index):
                value = value.tolist()
            self.check(value, depth + 1)
            _check_method_names(name, value)
        nodes = inert.state.get("nodes")
        if isinstance(nodes, np.ndarray) and nodes.dtype.names:
            _check_nodes(nodes)


def _check_method_names(name: str, value: Any) -> None:
    """Accept only lists of known names where an estimator calls the methods that its state names. Raises ImportRefused."""
    known = METHOD_NAMES.get(name)
    if known and not (type(value) is list and all(isinstance(item, str) and item in known for item in value)):
        raise ImportRefused(f"{name} names a method that is not a prediction: {REMEDY}")


def _check_nodes(nodes: np.ndarray) -> None:
    """Require that every branch of a tree leads to a later node, so that traversal terminates. Raises ImportRefused."""
    left, right = ("left_child", "right_child") if "left_child" in (nodes.dtype.names or ()) else ("left", "right")
    is_leaf = nodes["is_leaf"].astype(bool) if "is_leaf" in (nodes.dtype.names or ()) else nodes[left] < 0
    index = np.arange(len(nodes))
    for side in (left, right):
        children = nodes[side].astype(np.int64)
        if not ((children > index) & (children < len(nodes)) | is_leaf).all():
            raise ImportRefused(f"a tree of the model has an invalid branch: {REMEDY}")

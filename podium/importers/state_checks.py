"""What a fitted estimator is made of: nothing that could be called, and trees that end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.unpickling import Shell, import_global

SAFE_FUNCTIONS = {
    ("sklearn.feature_selection._univariate_selection", "f_classif"),
    ("sklearn.metrics._classification", "balanced_accuracy_score"),
}
"""Functions that fitted estimators keep as values and that only count."""

CYTHON_FACTORIES = ("newObj", "__pyx_unpickle_")
"""Cython's makers of objects, whose first argument is the class."""

RANDOM = (np.random.RandomState, np.random.Generator, np.random.MT19937, np.random.PCG64, np.random.SeedSequence)
DEEPEST, LONGEST = 60, 1024


def validate_state(value: Any) -> None:
    """Only what a fitted estimator is made of: numbers, texts, arrays of them, and estimators that hide no method of theirs.

    A function or a class as a value, a frame, or a value under a method's name would be called by the estimator's own code.
    Raises Refusal.
    """
    _Plain().check(value, 0)


class _Plain:
    """Each object is checked once, however often it is held, unless it is held deeper than before."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def check(self, value: Any, depth: int) -> None:
        if depth > DEEPEST:
            raise ImportRefused("the pickle is nested deeper than any estimator")
        if value is None or isinstance(value, str | bytes | bytearray | float | complex | slice | np.generic | np.dtype):
            return
        if isinstance(value, int):
            if value.bit_length() > LONGEST:
                raise ImportRefused("an estimator holds a whole number that is too large")
            return
        if self._seen.get(id(value), -1) >= depth:
            return
        self._seen[id(value)] = depth
        self._check(value, depth)

    def _check(self, value: Any, depth: int) -> None:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                if value.dtype.names is not None:
                    raise ImportRefused("an estimator holds a table of objects, which no fitted one needs")
                self._all(value.flat, depth)
        elif isinstance(value, Shell):
            self._shell(value, depth)
        elif isinstance(value, dict):
            self._all(value.keys(), depth)
            self._all(value.values(), depth)
        elif isinstance(value, list | tuple | set | frozenset):
            self._all(value, depth)
        elif isinstance(value, type) and issubclass(value, np.generic | Shell):
            if issubclass(value, Shell) and value.asked not in SAFE_FUNCTIONS:
                raise ImportRefused(f"an estimator holds {'.'.join(value.asked)} itself as a value, which no fitted one does")
        elif type(value) not in RANDOM:
            raise ImportRefused(f"an estimator holds a {type(value).__name__}, which no fitted one needs")

    def _all(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            self.check(value, depth + 1)

    def _shell(self, shell: Shell, depth: int) -> None:
        made = shell.kind.startswith(CYTHON_FACTORIES) and shell.arguments and isinstance(shell.arguments[0], type)
        self._all(shell.arguments[1:] if made else shell.arguments, depth)
        self.check(getattr(shell, "items", {}), depth + 1)
        if not isinstance(shell.state, dict):
            return self.check(shell.state, depth + 1)
        real = import_global(shell.asked)
        for name, value in shell.state.items():
            own = getattr(real, name, None) if isinstance(name, str) else real
            if not isinstance(name, str) or name.startswith("__") or callable(own) or isinstance(own, property):
                raise ImportRefused(f"a {shell.kind} of the file has a value in the place of a method")
            self.check(value, depth + 1)
        nodes = shell.state.get("nodes")
        if isinstance(nodes, np.ndarray) and nodes.dtype.names:
            _check_nodes(nodes)


def _check_nodes(nodes: np.ndarray) -> None:
    """Every branch of a tree leads to a later node that is there. Raises Refusal."""
    left, right = ("left_child", "right_child") if "left_child" in (nodes.dtype.names or ()) else ("left", "right")
    leaf = nodes["is_leaf"].astype(bool) if "is_leaf" in (nodes.dtype.names or ()) else nodes[left] < 0
    place = np.arange(len(nodes))
    for side in (left, right):
        ends = nodes[side].astype(np.int64)
        if not ((ends > place) & (ends < len(nodes)) | leaf).all():
            raise ImportRefused("a tree of the file leads nowhere")

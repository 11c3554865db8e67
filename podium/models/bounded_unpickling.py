"""Unpickling with a bound on what the objects hold in all, where shared parts count each time.

A few bytes can describe a structure that repeats its parts exponentially often ("billion laughs"): it is built at once, but to
hash, to compare or to walk it never ends. So each object is weighed while it is put together, before anything is hashed.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_WEIGHT, MAX_DEPTH, MAX_SECONDS = 50_000_000, 200, 30.0
"""Bounds of the steps and of the weight of all parts, each time that they are put into another; of nesting; of time."""

CHECKED_EVERY = 1000
"""Steps between two looks at the clock."""

STACK_TAKES = {
    pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3, pickle.APPEND: 1, pickle.SETITEM: 2, pickle.REDUCE: 1,
    pickle.NEWOBJ: 1, pickle.NEWOBJ_EX: 2, pickle.BUILD: 1,
}  # fmt: skip
"""Operations to the number of objects on the stack that they put into the one that is then on top."""

MARKED_TAKES = {
    pickle.TUPLE, pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS, pickle.INST,
    pickle.OBJ,
}  # fmt: skip
"""Operations that take everything since the last mark."""

CALLS = {pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.BUILD, pickle.INST, pickle.OBJ}

Operation = Callable[[Any], None]


class TooLarge(ValueError):
    """A pickle describes more than it may."""


class PickleBudget:
    """For a class that inherits from Python's own Unpickler; its `dispatch` comes from `check_pickle_size`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._left, self._steps, self._end = MAX_WEIGHT, 0, time.process_time() + MAX_SECONDS
        self._weights: dict[int, tuple[int, int, Any]] = {}  # with the object, so that no other gets its id
        self._marked: Sequence[Any] = ()

    def pop_mark(self) -> Any:
        self._marked = super().pop_mark()  # type: ignore[misc]
        self.pay(self._marked)
        return self._marked

    def pay(self, items: Sequence[Any]) -> None:
        """Before these are put into another object. Raises TooLarge."""
        self._left -= sum(self._weight(item) for item in items)
        if self._left < 0:
            raise TooLarge("the pickle repeats its parts too often")

    def step(self, calls: bool) -> None:
        """Before each operation. Raises TooLarge."""
        self._left -= 1
        self._steps += 1
        if (calls or self._steps % CHECKED_EVERY == 0) and time.process_time() > self._end:
            raise TooLarge("the pickle takes too long to read")

    def placed(self, items: Sequence[Any]) -> None:
        """After these were put into the object on top of the stack. Raises TooLarge."""
        top = self.stack[-1]  # type: ignore[attr-defined]
        weight, depth, _ = self._weights.get(id(top), (1, 0, None))
        weight += sum(self._weight(item) for item in items)
        depth = max([depth, *(1 + self._weights[id(item)][1] for item in items if id(item) in self._weights), 1])
        if depth > MAX_DEPTH:
            raise TooLarge(f"the pickle is nested deeper than {MAX_DEPTH}")
        self._weights[id(top)] = weight, depth, top

    def _weight(self, item: Any) -> int:
        known = self._weights.get(id(item))
        return known[0] if known else 1 + len(item) // 1000 if isinstance(item, str | bytes | bytearray) else 1

    @property
    def marked(self) -> Sequence[Any]:
        return self._marked


def check_pickle_size(dispatch: Mapping[int, Operation]) -> dict[int, Operation]:
    """The operations of an Unpickler, each weighed."""
    return {code: _weighed(bytes([code]), operation) for code, operation in dispatch.items()} | {
        pickle.BYTEARRAY8[0]: _bytearray
    }


def _weighed(code: bytes, operation: Operation) -> Operation:
    count, marked, calls = STACK_TAKES.get(code, 0), code in MARKED_TAKES, code in CALLS

    def weighed(reader: Any) -> None:
        reader.step(calls)
        items = reader.stack[-count:] if count else ()
        reader.pay(items)
        operation(reader)
        if count or marked:
            reader.placed(reader.marked if marked else items)

    return weighed


def _bytearray(reader: Any) -> None:
    """Without memory for bytes that are not there."""
    (length,) = struct.unpack("<Q", reader.read(8))
    reader.append(bytearray(reader.read(length)))

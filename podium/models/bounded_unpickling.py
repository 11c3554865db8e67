"""Unpickling with a limit on the total size of the objects; shared parts count every time they occur.

A few bytes can describe a structure whose parts repeat exponentially often ("billion laughs"). Building it is fast, but
hashing, comparing or walking it never ends. So each object is weighed while it is built, before anything is hashed.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_WEIGHT, MAX_DEPTH, MAX_SECONDS = 50_000_000, 200, 30.0
"""Limits on the weight (each step, and each part every time a container receives it), the nesting and the CPU time."""

STEPS_PER_TIME_CHECK = 1000

STACK_OPERANDS = {
    pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3, pickle.APPEND: 1, pickle.SETITEM: 2, pickle.REDUCE: 1,
    pickle.NEWOBJ: 1, pickle.NEWOBJ_EX: 2, pickle.BUILD: 1,
}  # fmt: skip
"""For each operation, how many stack items it stores in the object that it leaves on top of the stack."""

MARK_OPERATIONS = {
    pickle.TUPLE, pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS, pickle.INST,
    pickle.OBJ,
}  # fmt: skip
"""Operations that consume all items since the last mark."""

CALLS = {pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.BUILD, pickle.INST, pickle.OBJ}

Operation = Callable[[Any], None]


class TooLarge(ValueError):
    """The pickle exceeds a bound."""


class PickleBudget:
    """Mixin for subclasses of the pure-Python Unpickler whose `dispatch` comes from `check_pickle_size`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left, self._steps, self._end = MAX_WEIGHT, 0, time.process_time() + MAX_SECONDS
        self._weights: dict[int, tuple[int, int, Any]] = {}  # with the object, so that its id is not reused
        self._marked: Sequence[Any] = ()

    def share_budget(self, other: PickleBudget) -> None:
        """Continue with what another reader has left of its bounds."""
        self._left, self._end, self._weights = other._left, other._end, other._weights

    def pop_mark(self) -> Any:
        self._marked = super().pop_mark()  # type: ignore[misc]
        self.pay(self._marked)
        return self._marked

    def pay(self, items: Sequence[Any]) -> None:
        """Count the weight of items towards the bound before they are put into another object. Raises TooLarge."""
        self._left -= sum(self._weight(item) for item in items)
        if self._left < 0:
            raise TooLarge("the pickle repeats its parts too often")

    def step(self, calls: bool) -> None:
        """Count one step towards the bound before each operation. Raises TooLarge."""
        self._left -= 1
        self._steps += 1
        if (calls or self._steps % STEPS_PER_TIME_CHECK == 0) and time.process_time() > self._end:
            raise TooLarge("the pickle takes too long to read")

    def record(self, items: Sequence[Any]) -> None:
        """Add the weight of items to the object on top of the stack, which now contains them. Raises TooLarge."""
        top = self.stack[-1]  # type: ignore[attr-defined]
        weight, depth, _ = self._weights.get(id(top), (1, 0, None))
        weight += sum(self._weight(item) for item in items)
        depth = max([depth, *(1 + self._weights[id(item)][1] for item in items if id(item) in self._weights), 1])
        if depth > MAX_DEPTH:
            raise TooLarge(f"the pickle is nested deeper than {MAX_DEPTH}")
        self._weights[id(top)] = weight, depth, top

    def _weight(self, item: Any) -> int:
        if recorded := self._weights.get(id(item)):
            return recorded[0]
        return 1 + len(item) // 1000 if isinstance(item, str | bytes | bytearray) else 1

    @property
    def marked(self) -> Sequence[Any]:
        return self._marked


def check_pickle_size(dispatch: Mapping[int, Operation]) -> dict[int, Operation]:
    """Return an Unpickler's operations, each wrapped to weigh what it builds."""
    return {code: _with_weighing(bytes([code]), operation) for code, operation in dispatch.items()} | {
        pickle.BYTEARRAY8[0]: _read_bytearray
    }


def _with_weighing(code: bytes, operation: Operation) -> Operation:
    count, marked, calls = STACK_OPERANDS.get(code, 0), code in MARK_OPERATIONS, code in CALLS

    def weighed(reader: Any) -> None:
        reader.step(calls)
        items = reader.stack[-count:] if count else ()
        reader.pay(items)
        operation(reader)
        if count or marked:
            reader.record(reader.marked if marked else items)

    return weighed


def _read_bytearray(reader: Any) -> None:
    """Read a bytearray without first allocating the stated length."""
    (length,) = struct.unpack("<Q", reader.read(8))
    reader.append(bytearray(reader.read(length)))

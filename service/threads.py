"""Threads for computing: few, so that those who hold the interpreter's lock do not keep the event loop waiting for long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from service.pools import Pool

AT_ONCE = 4
Result = TypeVar("Result")


@functools.cache
def _pool() -> Pool:
    """Of the one event loop of this process."""
    return Pool(AT_ONCE, "computing")


async def computed(function: Callable[..., Result], *arguments: Any) -> Result:
    """The function's result from a thread. A cancelled request waits for no thread; the thread is used until it ends."""
    return await _pool().run(function, *arguments)

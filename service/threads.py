"""Threads for computing: few, so that those who hold the interpreter's lock do not keep the event loop waiting for long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

AT_ONCE = 4
Result = TypeVar("Result")


@functools.cache
def _limiter() -> CapacityLimiter:
    """Of the one event loop of this process."""
    return CapacityLimiter(AT_ONCE)


async def computed(function: Callable[..., Result], *arguments: Any) -> Result:
    """The function's result from a thread; apart from the threads that wait for the store."""
    return await to_thread.run_sync(functools.partial(function, *arguments), limiter=_limiter())

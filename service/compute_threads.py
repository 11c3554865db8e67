"""Threads for computation: few, so that threads holding the GIL do not delay the event loop for long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from service.thread_pools import ThreadPool

THREADS = 4
Result = TypeVar("Result")


@functools.cache
def _pool() -> ThreadPool:
    """Return the pool of this process."""
    return ThreadPool(THREADS, "computing")


async def run_in_compute_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a function in a thread and return its result; the thread continues if the request is cancelled."""
    return await _pool().run(function, *arguments)

"""Threads for computing: few, so that those who hold the interpreter's lock do not keep the event loop waiting for long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from service.thread_pools import ThreadPool

THREADS = 4
Result = TypeVar("Result")


@functools.cache
def _pool() -> ThreadPool:
    """Of the one event loop of this process."""
    return ThreadPool(THREADS, "computing")


async def run_in_compute_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """The function's result from a thread. A cancelled request waits for no thread; the thread is used until it ends."""
    return await _pool().run(function, *arguments)

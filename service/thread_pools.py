"""Threads of their own for calls that may hang, so that these calls use up no threads that others need."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class ThreadPool:
    """At most so many calls at once; a call whose caller stopped waiting keeps its thread until it ends."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The function's result from one of the threads; a call that still waits for a thread is dropped with its caller."""
        return await asyncio.wrap_future(self._threads.submit(functools.partial(function, *arguments)))

    def close(self) -> None:
        """Start no further call; waits for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Separate thread pools for calls that may hang, so that they cannot use up threads that other calls need."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class ThreadPool:
    """A bounded pool of threads; a call keeps its thread until it ends, even if its caller was cancelled."""

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, name)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function in a thread and return its result; a queued call is dropped when its caller is cancelled."""
        return await asyncio.wrap_future(self._executor.submit(functools.partial(function, *arguments)))

    def close(self) -> None:
        """Start no further calls, and do not wait for running ones."""
        self._executor.shutdown(wait=False, cancel_futures=True)

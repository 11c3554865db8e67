"""Calls to the store on behalf of a page: they answer in time, or the page says that the store is unavailable."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from podium.storage.object_store import StoreError
from service.thread_pools import ThreadPool

PAGE_SECONDS = 3.0
THREADS = 8
Result = TypeVar("Result")


@functools.cache
def _pool() -> ThreadPool:
    """Of this process; calls that hang fill it, and then pages answer 503 without a call."""
    return ThreadPool(THREADS, "store-pages")


async def from_store(call: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call that blocks on the store. Raises StoreError, also when there is no result after PAGE_SECONDS."""
    async with in_time():
        return await _pool().run(call, *arguments)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """One deadline for several calls. Raises StoreError when it passes."""
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            yield
    except TimeoutError:
        raise StoreError(f"no answer within {PAGE_SECONDS:g} s") from None

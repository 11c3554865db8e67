"""Store calls for endpoints, with a deadline: a slow store makes a request fail, not hang."""

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
    """Return the pool of this process; while hanging calls fill it, further calls wait until their deadline and fail."""
    return ThreadPool(THREADS, "store-pages")


async def from_store(call: Callable[..., Result], *arguments: Any) -> Result:
    """Return the result of a call that blocks on the store. Raises StoreError, including after a timeout of PAGE_SECONDS."""
    async with page_deadline():
        return await _pool().run(call, *arguments)


@asynccontextmanager
async def page_deadline() -> AsyncIterator[None]:
    """Share one deadline of PAGE_SECONDS between several calls. Raises StoreError when it passes."""
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            yield
    except TimeoutError:
        raise StoreError(f"no response within {PAGE_SECONDS:g} s") from None

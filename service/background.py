"""Background tasks that run for as long as the service does and are restarted if they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.metrics import Metrics

log = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 300.0
"""A task that ran for longer than this is restarted after the shortest pause."""


async def supervised(name: str, work: Callable[[], Awaitable[None]], metrics: Metrics, pause: float = PAUSE_SECONDS) -> None:
    """Run `work` until this task is cancelled; whenever it ends, log, count and restart it after a pause that doubles."""
    metrics.background_failures[name] += 0
    clock, next_pause = asyncio.get_running_loop().time, pause
    while True:
        started = clock()
        try:
            await work()
            log.error("a background task ended", extra={"task": name})
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            log.error("a background task was cancelled", extra={"task": name})
        except Exception:
            log.exception("a background task failed", extra={"task": name})
        metrics.background_failures[name] += 1
        next_pause = pause if clock() - started > STEADY_SECONDS else next_pause
        await asyncio.sleep(next_pause)
        next_pause = min(2 * next_pause, MAX_PAUSE_SECONDS)


def _is_cancelled() -> bool:
    """Return whether this task itself is being cancelled, not just a call within it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""Tasks that run as long as the service: when one ends, that is logged and counted, and the task starts again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.metrics import Metrics

log = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 300.0
"""A task that ran for so long starts again after the shortest pause."""


async def supervised(name: str, work: Callable[[], Awaitable[None]], metrics: Metrics, pause: float = PAUSE_SECONDS) -> None:
    """Run `work` until this task is cancelled; each time it ends, start it again after a pause that doubles."""
    clock, seconds = asyncio.get_running_loop().time, pause
    while True:
        began = clock()
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
        seconds = pause if clock() - began > STEADY_SECONDS else seconds
        await asyncio.sleep(seconds)
        seconds = min(2 * seconds, MAX_PAUSE_SECONDS)


def _is_cancelled() -> bool:
    """Whether somebody cancels this task, and not a call within it only."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""When the service last looked at the store with success, and since when what it serves may be out of date."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from podium.storage.object_store import StoreError
from service.metrics import Metrics

STALE_POLLS = 3
MIN_STALE_SECONDS = 2.0


class StoreChecks:
    """The outcome of the last looks; `confirmed` is when the store last confirmed what the cache remembers."""

    def __init__(self, poll_seconds: float, metrics: Metrics) -> None:
        self._limit, self._metrics = max(STALE_POLLS * poll_seconds, MIN_STALE_SECONDS), metrics
        self._at: tuple[float, float] | None = None
        self.confirmed: float | None = None
        self.error: str | None = None

    def succeeded(self) -> None:
        self._at, self.error = (time.time(), time.monotonic()), None
        self._metrics.store_last_success, self._metrics.store_up = self._at[0], True

    def failed(self, error: Exception) -> None:
        self.error = public_reason(error)
        self._metrics.store_up = False

    @property
    def looked_at(self) -> str | None:
        """When the last look succeeded."""
        return _text(self._at[0], "milliseconds") if self._at else None

    @property
    def stale_since(self) -> str | None:
        """When the store was last known to agree with what serves, if that is too long ago."""
        if self._at is None:
            return _text(self.confirmed) if self.confirmed and self.error else None
        return _text(self._at[0]) if time.monotonic() - self._at[1] > self._limit else None


def public_reason(error: BaseException) -> str:
    """What went wrong in words for everybody: errors of the store itself are named only, as their texts hold addresses."""
    if isinstance(error, TimeoutError):
        return "store-unavailable: the look took too long"
    if type(error) is StoreError:
        return f"store-unavailable: {type(error.__cause__ or error).__name__}"
    return str(error) if isinstance(error, StoreError) else type(error).__name__


def _text(seconds: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision)

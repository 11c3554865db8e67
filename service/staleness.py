"""The last successful check of the store, and the time from which the served models may be out of date."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from podium.storage.object_store import StoreError
from service.metrics import Metrics

STALE_POLLS = 3
MIN_STALE_SECONDS = 2.0


class StoreChecks:
    """The outcome of the last checks; `confirmed` is when the store last confirmed the cached aliases."""

    def __init__(self, poll_seconds: float, metrics: Metrics) -> None:
        self._limit, self._metrics = max(STALE_POLLS * poll_seconds, MIN_STALE_SECONDS), metrics
        self._succeeded_at: tuple[float, float] | None = None
        self.confirmed: float | None = None
        self.error: str | None = None

    def succeeded(self) -> None:
        self._succeeded_at, self.error = (time.time(), time.monotonic()), None
        self._metrics.store_last_success, self._metrics.store_up = self._succeeded_at[0], True

    def failed(self, error: Exception) -> None:
        self.error = public_reason(error)
        self._metrics.store_up = False

    @property
    def checked_at(self) -> str | None:
        """The time of the last successful check, in UTC."""
        return _iso_time(self._succeeded_at[0], "milliseconds") if self._succeeded_at else None

    @property
    def stale_since(self) -> str | None:
        """When the served models last matched the store, if that is too long ago; else None."""
        if self._succeeded_at is None:
            return _iso_time(self.confirmed) if self.confirmed and self.error else None
        seconds, monotonic = self._succeeded_at
        return _iso_time(seconds) if time.monotonic() - monotonic > self._limit else None


def public_reason(error: BaseException) -> str:
    """Return an error message without the messages of S3 errors, which contain addresses."""
    if isinstance(error, TimeoutError):
        return "store-unavailable: the check timed out"
    if type(error) is StoreError:
        return f"store-unavailable: {type(error.__cause__ or error).__name__}"
    return str(error) if isinstance(error, StoreError) else type(error).__name__


def _iso_time(seconds: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision)

"""Swap in a loaded version, keep the previous one warm, and record the latency and failures of requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from podium.inference.served_model import ServedModel
from service.active_models import ActiveModels
from service.metrics import Metrics

OBSERVATION_SECONDS = 5.0
"""How long before and after a swap the latency of requests is recorded."""
MAX_RECORDS = 50


@dataclass(frozen=True, slots=True)
class PreparedSwap:
    """A loaded version, the bytes of its alias, whether it was still in memory, and when loading started."""

    served: ServedModel
    alias_data: bytes
    warm: bool
    started: float


class Swaps:
    """Swaps versions within the memory limit; a project never returns to an older audit-log entry."""

    def __init__(self, live: ActiveModels, metrics: Metrics, max_bytes: int = 1 << 40) -> None:
        self.live, self.metrics, self._max_bytes = live, metrics, max_bytes
        self._previous: dict[str, ServedModel] = {}
        self.alias_data: dict[str, bytes] = {}
        self.latest_sequence: dict[str, int] = {}
        self.records: deque[dict[str, Any]] = deque(maxlen=MAX_RECORDS)

    def find_warm(self, project: str, version: str, manifest_sha256: str) -> ServedModel | None:
        """Return the version if it is the previous one, which is still in memory."""
        previous = self._previous.get(project)
        return previous if previous and (previous.version, previous.manifest_sha256) == (version, manifest_sha256) else None

    def note_sequence(self, project: str, sequence: int) -> None:
        """Remember the highest audit-log sequence number of a project."""
        self.latest_sequence[project] = max(self.latest_sequence.get(project, 0), sequence)

    def swap(self, prepared: PreparedSwap) -> None:
        """Start serving a version, unless the project has a newer audit-log entry by now."""
        served, project = prepared.served, prepared.served.project
        current = self.live.find(project)
        if served.sequence < max(self.latest_sequence.get(project, 0), current.sequence if current else 0):
            return
        previous = self.live.swap(served)
        self.alias_data[project] = prepared.alias_data
        swapped = time.monotonic()
        if previous:
            self._previous[project] = previous
        self.note_sequence(project, served.sequence)
        record = {
            "project": project,
            "from": previous.version if previous else None,
            "to": served.version,
            "sequence": served.sequence,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "load_milliseconds": round((swapped - prepared.started) * 1000, 1),
            "warm": prepared.warm,
            "golden_difference": served.golden_difference,
            "runner": served.manifest.data.get("runner") or None,
            "fast_paths": [family for family, scorer in served.fast.items() if scorer],
        }
        self.records.append(record)
        self.metrics.record_swap(project, served.version)
        self.metrics.load_durations[project].add(swapped - prepared.started)
        loop = asyncio.get_running_loop()
        later = (self._record_swap_latency, record, prepared.started, swapped)
        loop.call_later(OBSERVATION_SECONDS, loop.run_in_executor, None, *later)
        self._evict(keep=served)

    def _evict(self, keep: ServedModel) -> None:
        """Free memory until the limit is met: previous versions first, then the least recently used models."""
        while sum(model.bytes for model in [*self.live.all(), *self._previous.values()]) > self._max_bytes:
            oldest = next(iter(self._previous), None)
            if oldest is not None:
                del self._previous[oldest]
                continue
            unused = self.live.least_recently_used()
            if unused is None or unused is keep:
                return
            self.live.evict(unused)

    def _record_swap_latency(self, record: dict[str, Any], started: float, swapped: float) -> None:
        """Add the latency and failures of requests before, during and after a swap to its record."""
        spans = {
            "before": (started - OBSERVATION_SECONDS, started),
            "during": (started, swapped),
            "after": (swapped, time.monotonic()),
        }
        record |= {name: self.metrics.recent(record["project"], *span) for name, span in spans.items() if span[0] < span[1]}

"""The swap itself: a loaded version goes live, the one before stays warm, and a receipt says how requests fared."""

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

SETTLE_SECONDS = 5.0
"""For so long after a swap its receipt gathers figures, and as long before it."""


@dataclass(frozen=True, slots=True)
class PreparedSwap:
    """What an alias asks for, ready to be swapped in."""

    snapshot: ServedModel
    data: bytes
    warm: bool
    began: float


class Swaps:
    """Swaps within the memory for models, and their receipts. A project never goes back to an entry older than one seen."""

    def __init__(self, live: ActiveModels, metrics: Metrics, max_bytes: int) -> None:
        self._live, self._metrics, self._most_bytes = live, metrics, max_bytes
        self._before: dict[str, ServedModel] = {}
        self.entries: dict[str, bytes] = {}
        self.latest: dict[str, int] = {}
        self.receipts: deque[dict[str, Any]] = deque(maxlen=50)

    def warm(self, project: str, version: str, manifest: str) -> ServedModel | None:
        """The version that served before, if it is this one."""
        before = self._before.get(project)
        return before if before and (before.version, before.manifest_sha256) == (version, manifest) else None

    def swap(self, found: PreparedSwap) -> None:
        """Put a version in service, unless the project moved on meanwhile."""
        snapshot, project = found.snapshot, found.snapshot.project
        live = self._live.find(project)
        if snapshot.sequence < max(self.latest.get(project, 0), live.sequence if live else 0):
            return
        before = self._live.swap(snapshot)
        self.entries[project] = found.data
        swapped = time.monotonic()
        if before:
            self._before[project] = before
        self.latest[project] = snapshot.sequence
        receipt = {
            "project": project,
            "from": before.version if before else None,
            "to": snapshot.version,
            "sequence": snapshot.sequence,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "load_milliseconds": round((swapped - found.began) * 1000, 1),
            "warm": found.warm,
            "golden_difference": snapshot.golden_difference,
            "fast_paths": [family for family, path in snapshot.fast.items() if path],
        }
        self.receipts.append(receipt)
        self._metrics.swapped(project, snapshot.version)
        self._metrics.loads[project].add(swapped - found.began)
        loop = asyncio.get_running_loop()
        loop.call_later(SETTLE_SECONDS, loop.run_in_executor, None, self._settle, receipt, found.began, swapped)
        self._make_room(snapshot)

    def _make_room(self, newest: ServedModel) -> None:
        """Within the memory for models: first the versions before go, then what nobody has asked for the longest."""
        while sum(each.bytes for each in [*self._live.all(), *self._before.values()]) > self._most_bytes:
            spare = next(iter(self._before), None)
            if spare is not None:
                del self._before[spare]
                continue
            least = self._live.least_recently_used()
            if least is None or least is newest:
                return
            self._live.evict(least)

    def _settle(self, receipt: dict[str, Any], began: float, swapped: float) -> None:
        """How requests fared before, during and after a swap, once it is known."""
        spans = {"before": (began - SETTLE_SECONDS, began), "during": (began, swapped), "after": (swapped, time.monotonic())}
        receipt |= {name: self._metrics.recent(receipt["project"], *span) for name, span in spans.items() if span[0] < span[1]}

"""Exponential backoff for aliases whose version failed to load."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from service.aliases import Alias

MAX_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An alias whose version failed to load, and when to try again (`time.monotonic`)."""

    alias: Alias
    retry_at: float
    attempts: int = 1


class Backoff:
    """The failures by project; a new alias for the project is tried at once."""

    def __init__(self, base_seconds: float) -> None:
        self._base_seconds = base_seconds
        self._failures: dict[str, Failure] = {}

    def __contains__(self, project: str) -> bool:
        return project in self._failures

    def add(self, alias: Alias) -> None:
        """Count a failure; the pause doubles while the alias stays the same."""
        last = self._failures.get(alias.entry.project)
        attempts = last.attempts + 1 if last and last.alias is alias else 1
        pause = min(MAX_SECONDS, self._base_seconds * 2**attempts) * random.uniform(0.8, 1.2)
        self._failures[alias.entry.project] = Failure(alias, time.monotonic() + pause, attempts)

    def reset(self, project: str) -> None:
        self._failures.pop(project, None)

    def is_paused(self, alias: Alias) -> bool:
        failure = self._failures.get(alias.entry.project)
        return failure is not None and failure.alias is alias and time.monotonic() < failure.retry_at

"""Promotion and rollback by hand as tasks: done once a request, with an immutable receipt."""

from __future__ import annotations

import hashlib
import json

import luigi

from luigi_tasks.target import StoredTarget, desk
from podium.promotion import ANY, Desk, promote, rollback, utc_now
from podium.store.history import Entry, entries_since


class Act(luigi.Task):
    """A move of the champion. The receipt is the target, not the alias: the same request twice moves it once."""

    project: str = luigi.Parameter(description="whose champion")
    reason: str = luigi.Parameter(description="why, for the history")
    request: str = luigi.Parameter(default="", description="any word that tells this act from an earlier one of the same words")
    expect: str = luigi.Parameter(default=ANY, description="only if this version serves now")

    @property
    def name(self) -> str:
        """This request among all others."""
        words = json.dumps(sorted(self.to_str_params().items()))
        return f"{self.get_task_family()}-{hashlib.sha256(words.encode()).hexdigest()[:24]}"

    def output(self) -> StoredTarget:
        return StoredTarget(f"runs/{self.project}/acts/{self.name}.json")

    def run(self) -> None:
        """Act, unless the history shows that it was done and only the receipt is missing."""
        own = desk(signing=True)
        done = [entry for entry in entries_since(own.store, self.project, own.trust.promoters) if entry.request == self.name]
        entry = done[-1] if done and done[-1].action != "refuse" else self.act(own)
        self.output().write(entry.model_dump_json(indent=1).encode())

    def act(self, own: Desk) -> Entry:
        """Move it. Raises AliasMoved, GateFailed."""
        raise NotImplementedError


class PromoteVersion(Act):
    """Judge a version by its gates and make it the champion."""

    version: str = luigi.Parameter(description="the name of a published version")

    def act(self, own: Desk) -> Entry:
        return promote(own, self.project, self.version, self.reason, utc_now, expect=self.expect, request=self.name)


class Rollback(Act):
    """Go back to the version that served before, or to the one that is named."""

    to: str = luigi.Parameter(default="", description="a version that served; the one before the present one when empty")

    def act(self, own: Desk) -> Entry:
        return rollback(own, self.project, self.reason, utc_now, to=self.to or None, expect=self.expect, request=self.name)

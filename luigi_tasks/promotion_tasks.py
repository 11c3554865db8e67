"""Promotion and rollback by hand as tasks: done once a request, with an immutable receipt."""

from __future__ import annotations

import hashlib
import json

import luigi

from luigi_tasks.target import StoreTarget, promotion_context
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import entries_since
from podium.registry.promotion import ANY_CHAMPION, PromotionContext, promote, rollback, utc_now


class ChampionChange(luigi.Task):
    """A move of the champion. The receipt is the target, not the alias: the same request twice moves it once."""

    project: str = luigi.Parameter(description="whose champion")
    reason: str = luigi.Parameter(description="why, for the history")
    request: str = luigi.Parameter(default="", description="any word that tells this act from an earlier one of the same words")
    expect: str = luigi.Parameter(default=ANY_CHAMPION, description="only if this version serves now")

    @property
    def name(self) -> str:
        """This request among all others."""
        words = json.dumps(sorted(self.to_str_params().items()))
        return f"{self.get_task_family()}-{hashlib.sha256(words.encode()).hexdigest()[:24]}"

    def output(self) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/acts/{self.name}.json")

    def run(self) -> None:
        """Act, unless the history shows that it was done and only the receipt is missing."""
        own = promotion_context(signing=True)
        done = [entry for entry in entries_since(own.store, self.project, own.trust.promoters) if entry.request == self.name]
        entry = done[-1] if done and done[-1].action != "refuse" else self.act(own)
        self.output().write(entry.model_dump_json(indent=1).encode())

    def act(self, own: PromotionContext) -> AuditEntry:
        """Move it. Raises AliasMoved, GateFailed."""
        raise NotImplementedError


class PromoteVersion(ChampionChange):
    """Judge a version by its gates and make it the champion."""

    version: str = luigi.Parameter(description="the name of a published version")

    def act(self, own: PromotionContext) -> AuditEntry:
        return promote(own, self.project, self.version, self.reason, utc_now, expect=self.expect, request=self.name)


class Rollback(ChampionChange):
    """Go back to the version that served before, or to the one that is named."""

    to: str = luigi.Parameter(default="", description="a version that served; the one before the present one when empty")

    def act(self, own: PromotionContext) -> AuditEntry:
        return rollback(own, self.project, self.reason, utc_now, to=self.to or None, expect=self.expect, request=self.name)

"""Manual promotion and rollback as tasks; each request runs once and writes an immutable receipt."""

from __future__ import annotations

import hashlib
import json

import luigi

from luigi_tasks.target import StoreTarget, promotion_context
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import entries_since
from podium.registry.promotion import ANY_CHAMPION, PromotionContext, promote, rollback, utc_now


class ChampionChange(luigi.Task):
    """A change to the champion alias.

    The target is the receipt, not the alias, so repeating a request has no effect.
    """

    project: str = luigi.Parameter(description="name of the project")
    reason: str = luigi.Parameter(description="reason, recorded in the promotion history")
    request: str = luigi.Parameter(default="", description="idempotency key; change it to repeat an identical request")
    expect: str = luigi.Parameter(default=ANY_CHAMPION, description="fail unless this version is the current champion")

    @property
    def name(self) -> str:
        """A digest of the request."""
        parameters = json.dumps(sorted(self.to_str_params().items()))
        return f"{self.get_task_family()}-{hashlib.sha256(parameters.encode()).hexdigest()[:24]}"

    def output(self) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/receipts/{self.name}.json")

    def run(self) -> None:
        """Change the champion, unless the audit log shows that this was already done and only the receipt is missing."""
        context = promotion_context(signing=True)
        entries = entries_since(context.store, self.project, context.trust.promoters)
        done = [entry for entry in entries if entry.request == self.name]
        entry = done[-1] if done and done[-1].action != "refuse" else self.change(context)
        self.output().write(entry.model_dump_json(indent=1).encode())

    def change(self, context: PromotionContext) -> AuditEntry:
        """Change the champion. Raises AliasMoved, GateFailed."""
        raise NotImplementedError


class PromoteVersion(ChampionChange):
    """Promote a version if it passes its gates."""

    version: str = luigi.Parameter(description="name of a published version")

    def change(self, context: PromotionContext) -> AuditEntry:
        return promote(context, self.project, self.version, self.reason, utc_now, expect=self.expect, request=self.name)


class Rollback(ChampionChange):
    """Restore the previous champion, or a named earlier one."""

    to: str = luigi.Parameter(default="", description="an earlier champion; the previous one when empty")

    def change(self, context: PromotionContext) -> AuditEntry:
        to = self.to or None
        return rollback(context, self.project, self.reason, utc_now, to=to, expect=self.expect, request=self.name)

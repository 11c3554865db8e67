"""Manual promotion and rollback as tasks; each request runs once and writes an immutable receipt."""

from __future__ import annotations

import hashlib
import json

import luigi

from luigi_tasks.target import StoreTarget, promotion_context, store
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import AliasMoved, entries_since
from podium.registry.champion_alias import read_alias
from podium.registry.promotion import ANY_CHAMPION, PromotionContext, promote, rollback, utc_now
from podium.settings import StoreSettings


class ChampionChange(luigi.Task):
    """A change to the champion alias.

    The target is the receipt, not the alias, so repeating a request has no effect. If the champion has changed since, it fails.
    """

    project: str = luigi.Parameter(description="name of the project")
    reason: str = luigi.Parameter(description="reason, recorded in the promotion history")
    request: str = luigi.Parameter(default="", description="any text; with another one, an identical request is repeated")
    expect: str = luigi.Parameter(default=ANY_CHAMPION, description="fail unless this version is the current champion")

    @property
    def name(self) -> str:
        """A digest of the request."""
        parameters = json.dumps(sorted(self.to_str_params().items()))
        return f"{self.get_task_family()}-{hashlib.sha256(parameters.encode()).hexdigest()[:24]}"

    def output(self) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/receipts/{self.name}.json")

    def complete(self) -> bool:
        """Return whether the request was carried out and its champion is still the champion."""
        if not self.output().exists():
            return False
        alias, *_ = read_alias(store(), self.project, StoreSettings().trust().promoters)
        return alias is not None and alias.champion == self.output().document()["champion"]

    def run(self) -> None:
        """Change the champion, unless the audit log shows that this was already done.

        Raises AliasMoved if it was done and the champion has changed since.
        """
        context = promotion_context(signing=True)
        entries = entries_since(context.store, self.project, context.trust.promoters)
        done = [entry for entry in entries if entry.request == self.name and entry.action != "refuse"]
        entry = done[-1] if done else self.change(context)
        self.output().write(entry.model_dump_json(indent=1).encode())
        if done and entry.champion != entries[-1].champion:
            raise AliasMoved(
                f"this request was carried out at {entry.at} (entry {entry.sequence}), and the champion has changed since, to "
                f"{entries[-1].champion}; add --request with a new text to repeat it"
            )

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

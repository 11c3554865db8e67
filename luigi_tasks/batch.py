"""Predictions of a table on S3, once a day or at will, by the champion and without a service."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import luigi

from luigi_tasks.target import StoreTarget, promotion_context, store
from podium.inference.inbox import (
    InboxFile,
    ObjectRef,
    ProcessingOptions,
    bucket_opener,
    configured_inbox,
    process_file,
    read_receipt,
)
from podium.inference.served_model import ServedModel, scores_here
from podium.registry.audit_log import read_champion
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError

MAX_BYTES = 1 << 30


def utc_today() -> date:
    return datetime.now(UTC).date()


class DayParameter(luigi.DateParameter):
    """A day; today when none is given, at the moment when the task is made."""

    def __init__(self, today: Callable[[], date] = utc_today, **options: Any) -> None:
        super().__init__(**options)
        self._today = today

    def has_task_value(self, task_name: str, param_name: str) -> bool:
        return True

    def task_value(self, task_name: str, param_name: str) -> date:
        if super().has_task_value(task_name, param_name):
            given: date = super().task_value(task_name, param_name)
            return given
        return self._today()


class PredictBatch(luigi.Task):
    """Answer a project's `input_url` for a day: under `predictions/<project>/dt=<date>/`, and at its `output_url`.

    Another `source` has a result of its own, named by its digest.
    """

    project: str = luigi.Parameter(description="whose champion answers")
    date = DayParameter(description="the day; {date} in a URL becomes it")
    source: str = luigi.Parameter(default="", description="s3:// URL of the table; the project's input_url when empty")

    def output(self) -> StoreTarget:
        own = f"-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}" if self.source else ""
        return StoreTarget(f"predictions/{self.project}/dt={self.date}/predictions{own}.csv.receipt.json")

    def complete(self) -> bool:
        return self.output().exists() and self.output().document().get("state") == "done"

    def run(self) -> None:
        """Raises StoreError, with the rows that are wrong when the table cannot be answered."""
        snapshot = self._champion()
        urls = snapshot.manifest.configuration.get("inbox") or {}
        source, result = self.source or urls.get("input_url"), urls.get("output_url")
        if not source:
            hint = "give --source, or [inbox] in its project file and train again"
            raise StoreError(f"{self.project} {snapshot.version} was trained without a input_url: {hint}")
        open_ = bucket_opener(store(), StoreSettings().source_buckets, store)
        where = ObjectRef.of(source, open_, str(self.date))
        own = ObjectRef(store(), self.output().key.removesuffix(".receipt.json"))
        if not self.source and result:
            named = configured_inbox(snapshot.manifest, open_) or InboxFile(
                self.project, where, ObjectRef.of(result, open_, str(self.date))
            )
            self._answer(named, snapshot)
        self._answer(InboxFile(self.project, where, own), snapshot)  # the last: it is what makes the task complete

    def _champion(self) -> ServedModel:
        own = promotion_context(signing=False)
        entry = read_champion(own.store, self.project, own.trust.promoters)
        if entry is None or entry.champion is None or entry.manifest_sha256 is None:
            raise StoreError(f"{self.project} has no champion")
        try:
            loaded = own.validator.load(self.project, entry.champion, entry.manifest_sha256, own.fetch, own.trust.trainers)
        finally:
            own.validator.close()
        return ServedModel.of(entry, loaded)

    def _answer(self, drop: InboxFile, snapshot: ServedModel) -> None:
        terms = ProcessingOptions(scores_here, MAX_BYTES, lambda: datetime.now(UTC), lambda: secrets.token_hex(8))
        receipt = process_file(drop, snapshot, terms) or read_receipt(drop)[1]
        if not receipt:
            raise StoreError(f"there is no {drop.source.url} yet")
        if receipt["state"] == "error":
            raise StoreError(f"{drop.source.url} cannot be answered: {json.dumps(receipt['errors'])[:2000]}")

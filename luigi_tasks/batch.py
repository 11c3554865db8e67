"""Predictions of a table on S3, once a day or at will, by the champion and without a service."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import luigi

from luigi_tasks.target import StoredTarget, desk, store
from podium.dropbox import Drop, Place, Terms, answer, bucket_opener, named_drop, receipt_of
from podium.predict.snapshot import Snapshot, scores_here
from podium.settings import StoreSettings
from podium.store.history import read_champion
from podium.store.s3 import StoreError

MOST_BYTES = 1 << 30


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
    """Answer a project's `test_url` for a day: under `predictions/<project>/dt=<date>/`, and at its `pred_url`.

    Another `source` has a result of its own, named by its digest.
    """

    project: str = luigi.Parameter(description="whose champion answers")
    date = DayParameter(description="the day; {date} in a URL becomes it")
    source: str = luigi.Parameter(default="", description="s3:// URL of the table; the project's test_url when empty")

    def output(self) -> StoredTarget:
        own = f"-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}" if self.source else ""
        return StoredTarget(f"predictions/{self.project}/dt={self.date}/predictions{own}.csv.receipt.json")

    def complete(self) -> bool:
        return self.output().exists() and self.output().document().get("state") == "done"

    def run(self) -> None:
        """Raises StoreError, with the rows that are wrong when the table cannot be answered."""
        snapshot = self._champion()
        urls = snapshot.manifest.configuration.get("dropbox") or {}
        source, result = self.source or urls.get("test_url"), urls.get("pred_url")
        if not source:
            hint = "give --source, or [dropbox] in its project file and train again"
            raise StoreError(f"{self.project} {snapshot.version} was trained without a test_url: {hint}")
        open_ = bucket_opener(store(), StoreSettings().source_buckets, store)
        where = Place.of(source, open_, str(self.date))
        own = Place(store(), self.output().key.removesuffix(".receipt.json"))
        if not self.source and result:
            named = named_drop(snapshot.manifest, open_) or Drop(self.project, where, Place.of(result, open_, str(self.date)))
            self._answer(named, snapshot)
        self._answer(Drop(self.project, where, own), snapshot)  # the last: it is what makes the task complete

    def _champion(self) -> Snapshot:
        own = desk(signing=False)
        entry = read_champion(own.store, self.project, own.trust.promoters)
        if entry is None or entry.champion is None or entry.manifest is None:
            raise StoreError(f"{self.project} has no champion")
        try:
            loaded = own.prover.load(self.project, entry.champion, entry.manifest, own.fetch, own.trust.trainers)
        finally:
            own.prover.close()
        return Snapshot.of(entry, loaded)

    def _answer(self, drop: Drop, snapshot: Snapshot) -> None:
        terms = Terms(scores_here, MOST_BYTES, lambda: datetime.now(UTC), lambda: secrets.token_hex(8))
        receipt = answer(drop, snapshot, terms) or receipt_of(drop)[1]
        if not receipt:
            raise StoreError(f"there is no {drop.source.url} yet")
        if receipt["state"] == "error":
            raise StoreError(f"{drop.source.url} cannot be answered: {json.dumps(receipt['errors'])[:2000]}")

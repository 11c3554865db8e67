"""Predict a table on S3 with the champion, daily or on demand, without running the service."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import luigi

from luigi_tasks.target import StoreTarget, promotion_context, store
from podium.inference.champion import load_champion
from podium.inference.inbox import (
    InboxFile,
    ObjectRef,
    ProcessingOptions,
    RecordFile,
    bucket_opener,
    configured_inbox,
    process_file,
    read_receipt,
)
from podium.inference.served_model import ServedModel, scores_here
from podium.monitoring.alarms import send_alarm
from podium.prediction_log.journal import Journal
from podium.prediction_log.recorder import Recorder
from podium.prediction_log.shipping import Shipper
from podium.schema.schedules import deadline_of
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError

log = logging.getLogger(__name__)
MAX_BYTES, MAX_JOURNAL_BYTES = 1 << 30, 1 << 34


def utc_today() -> date:
    return datetime.now(UTC).date()


class DayParameter(luigi.DateParameter):
    """A day; the default is today, evaluated when the task is created rather than at import."""

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


@contextmanager
def recorder() -> Iterator[RecordFile]:
    """Yield a function that writes rows to the prediction log; without a key, they are not logged."""
    settings = StoreSettings()
    if not settings.log_key.get_secret_value():
        yield lambda *_: ""
        return
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), MAX_JOURNAL_BYTES)
        shipper = Shipper(Path(folder), store(), settings.log_signer(), settings.trust().trainers)

        def record(*fields: Any) -> str:
            prediction_id = Recorder(journal).record_rows(*fields)
            journal.seal()
            shipper.ship()  # before the result is written
            return prediction_id

        yield record


def raise_alarm(alarm: dict[str, Any]) -> None:
    """Log an alarm, and send it if there is a receiver. Raises AlarmNotSent."""
    settings = StoreSettings()
    log.warning("%s: %s", alarm["day"], alarm["message"])
    if settings.alarm_url:
        send_alarm(settings.alarm_url, settings.alarm_key(), f"{alarm['project']}-{alarm['day']}-{alarm['kind']}", alarm)


class PredictBatch(luigi.Task):
    """Predict a project's `input_url` for a day; write `predictions/<project>/dt=<date>/` and the project's `output_url`.

    With another `source`, write only a file named after the digest of its URL.
    """

    project: str = luigi.Parameter(description="name of the project")
    date = DayParameter(description="the day; replaces {date} in URLs")
    source: str = luigi.Parameter(default="", description="s3:// URL of the table; the project's input_url when empty")

    def output(self) -> StoreTarget:
        suffix = f"-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}" if self.source else ""
        return StoreTarget(f"predictions/{self.project}/dt={self.date}/predictions{suffix}.csv.receipt.json")

    def complete(self) -> bool:
        return self.output().exists() and self.output().document().get("state") == "done"

    def run(self) -> None:
        """Predict the table. Raises StoreError; for an invalid table, the message lists its errors."""
        model = load_champion(promotion_context(signing=False), self.project)
        urls = model.manifest.configuration.get("inbox") or {}
        source_url, output_url = self.source or urls.get("input_url"), urls.get("output_url")
        if not source_url:
            raise StoreError(
                f"{self.project} {model.version} was trained without inbox.input_url: pass --source, or set [inbox] in "
                "project.toml and train again"
            )
        open_bucket = bucket_opener(store(), StoreSettings().source_buckets, store)
        source = ObjectRef.of(source_url, open_bucket, str(self.date))
        if not self.source and output_url:
            dated = InboxFile(self.project, source, ObjectRef.of(output_url, open_bucket, str(self.date)))
            self._predict(configured_inbox(model.manifest, open_bucket) or dated, model)
        # last, because this receipt marks the task as complete
        result = ObjectRef(store(), self.output().key.removesuffix(".receipt.json"))
        self._predict(InboxFile(self.project, source, result), model)
        if (deadline := urls.get("deadline")) and datetime.now(UTC) > deadline_of(deadline, self.date):
            message = f"the predictions of {self.project} for {self.date} were written after {deadline}"
            raise_alarm({"project": self.project, "day": str(self.date), "kind": "deadline", "message": message})

    def _predict(self, file: InboxFile, model: ServedModel) -> None:
        with recorder() as record:
            options = ProcessingOptions(scores_here, MAX_BYTES, lambda: datetime.now(UTC), store(), record)
            receipt = process_file(file, model, options) or read_receipt(file)[1]
        if not receipt:
            raise StoreError(f"{file.source.url} does not exist yet")
        if receipt["state"] == "error":
            raise StoreError(f"{file.source.url} cannot be predicted: {json.dumps(receipt['errors'])[:2000]}")


class CheckDeadline(luigi.Task):
    """Raise an alarm if the predictions of a day are not complete; run it at the project's deadline."""

    project: str = luigi.Parameter(description="name of the project")
    date = DayParameter(description="the day of the predictions")
    checked = False

    def complete(self) -> bool:
        return self.checked

    def run(self) -> None:
        """Raises StoreError, AlarmNotSent."""
        self.checked = True
        if not self.clone(PredictBatch).complete():
            message = f"the predictions of {self.project} for {self.date} are not complete"
            raise_alarm({"project": self.project, "day": str(self.date), "kind": "deadline", "message": message})
            raise StoreError(message)

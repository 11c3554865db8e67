"""Predict a table of many files with any number of workers, on one machine or on many."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import luigi

from luigi_tasks.batch import MAX_BYTES, DayParameter, recorder
from luigi_tasks.target import StoreTarget, promotion_context, store
from podium.formatting import count
from podium.inference.champion import champion_entry, load_served
from podium.inference.inbox import ObjectRef, ProcessingOptions, bucket_opener
from podium.inference.parts import PartList, PartsJob, Source, agree_on_parts, latest_list
from podium.inference.served_model import scores_here
from podium.registry.audit_entry import parse_entry
from podium.registry.audit_log import entry_key
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError


class _Parts(luigi.Task):
    project: str = luigi.Parameter(description="name of the project")
    source: str = luigi.Parameter(description="s3:// URL of a folder, or the start of the names of its CSV and Parquet files")
    date = DayParameter(description="the day; replaces {date} in the URL")
    lease: int = luigi.IntParameter(
        default=900, description="seconds after which another worker takes a file", significant=False
    )

    @property
    def prefix(self) -> str:
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:12]
        return f"predictions/{self.project}/dt={self.date}/parts-{digest}/"

    @property
    def files(self) -> Source:
        found = ObjectRef.of(self.source, bucket_opener(store(), StoreSettings().source_buckets, store), str(self.date))
        return Source(found.store, found.key)

    def listed(self) -> PartsJob | None:
        """Return the job if its list has the files as they are now."""
        listed = latest_list(store(), self.prefix)
        return self._job(listed) if listed and listed.parts == self.files.parts()[0] else None

    def _job(self, listed: PartList) -> PartsJob:
        return PartsJob(store(), self.prefix, self.files, listed, timedelta(seconds=self.lease))


class PartsWorker(_Parts):
    """One of the workers of PredictParts; its version is that of the first worker, also after a promotion."""

    number: int = luigi.IntParameter(default=1, description="number of the worker on this machine")

    def complete(self) -> bool:
        job = self.listed()
        return job is not None and not job.waiting()

    def run(self) -> None:
        """Predict parts until all have a receipt. Raises StoreError."""
        context = promotion_context(signing=False)
        listed = agree_on_parts(store(), self.prefix, self.files, champion_entry(context, self.project))
        data = store().read(entry_key(self.project, listed.promotion)).data
        entry = parse_entry(data, self.project, context.trust.promoters.past)
        job, model = self._job(listed), load_served(context, entry)
        started, done = time.monotonic(), 0
        with recorder() as record:
            options = ProcessingOptions(scores_here, MAX_BYTES, lambda: datetime.now(UTC), store(), record, families="champion")
            for receipt in job.work(model, options):
                done += receipt.get("rows", 0)
                left, seconds = len(job.waiting()), time.monotonic() - started
                facts = f"{left} of {len(listed.parts)} parts left, {done / seconds:,.0f} rows/s of this worker"
                print(f"  {receipt['source']}  {_outcome(receipt)}; {facts}", flush=True)


class PredictParts(_Parts):
    """Predict all files of a folder, and write `predictions/<project>/dt=<date>/parts-…/`: results, receipts and a summary.

    Start it on as many machines as you like: workers claim files by conditional writes. After a kill, the same command goes on.
    The champion's predictions are written, each row with its input columns.
    """

    processes: int = luigi.IntParameter(
        default=1, description="workers on this machine; set --workers as well", significant=False
    )

    def requires(self) -> Iterator[PartsWorker]:
        for number in range(1, self.processes + 1):
            yield self.clone(PartsWorker, number=number)

    def output(self) -> StoreTarget:
        listed = latest_list(store(), self.prefix)
        return StoreTarget(f"{self.prefix}summary-{listed.number if listed else 1}.json")

    def complete(self) -> bool:
        return self.listed() is not None and self.output().exists()

    def run(self) -> None:
        """Write the summary. Raises StoreError if files cannot be predicted; correct them and run again."""
        job = self.listed()
        if job is None:
            raise StoreError(f"{self.source} has changed meanwhile: run again")
        summary = job.summary()
        if problems := summary["problems"]:
            shown = "; ".join(f"{receipt['source']}: {_first(receipt)}" for receipt in problems[:10])
            raise StoreError(f"{len(problems)} of {summary['parts']} files cannot be predicted: {shown}")
        self.output().write(json.dumps(summary, indent=1).encode())


def _outcome(receipt: dict[str, Any]) -> str:
    if receipt["state"] == "done":
        return count(receipt["rows"], "row")
    return "no rows" if receipt["state"] == "empty" else f"ERROR {_first(receipt)}"


def _first(receipt: dict[str, Any]) -> str:
    """Return the first problem of a file as text."""
    problem = receipt["errors"][0]
    where = ", ".join(f"{name} {problem[name]}" for name in ("row", "column") if problem.get(name))
    return f"{where}: {problem['message']}" if where else problem["message"]


def parts_text(summary: dict[str, Any]) -> str:
    rows, seconds = summary["rows"], summary["worker_seconds"]
    rate = f", {rows / seconds:,.0f} rows/s per worker" if seconds else ""
    lines = [f"{count(rows, 'row')} of {count(summary['parts'], 'file')} predicted by {summary['version']}{rate}"]
    if summary["empty"]:
        lines.append(f"  {count(len(summary['empty']), 'file')} without rows")
    if unknown := summary["not_predicted"]:
        lines.append(f"  {count(unknown, 'row')} not predicted, because the model does not know their entity: see the receipts")
    if left_out := summary["left_out"]:
        names = ", ".join(left_out[:5]) + ", …" * (len(left_out) > 5)
        lines.append(f"  {count(len(left_out), 'file')} left out, empty or not a table: {names}")
    return "\n".join(lines)

"""Large tables in the background: piece by piece from disk to disk, so that memory stays small."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from podium.inference.batch import predict_file
from podium.inference.parsed_rows import ParseOptions
from podium.inference.served_model import ServedModel, UnknownModel
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem
from podium.storage.files import file_lock
from service.dask_executor import DaskExecutor
from service.problems import NotDone, StorageFull, TooManyJobs
from service.worker_directory import (
    MAX_JOBS,
    UNFINISHED,
    JobRecord,
    WorkerDirectory,
    delete_oldest,
    is_abandoned,
    read_record,
    remove_files,
    write_record,
)

log = logging.getLogger(__name__)
Find = Callable[[str], ServedModel | None]


class Stopped(Exception):
    """The job ends before its table: it was cancelled or exceeds a limit."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How many jobs may be unfinished, of all callers and of one, and how long and how large one may become."""

    jobs: int
    jobs_per_caller: int
    seconds: float
    result_bytes: int


@dataclass(slots=True)
class Job:
    """A table on disk, what was asked, and its progress; one version answers all of it."""

    upload: Path
    snapshot: ServedModel
    families: Sequence[str]
    asked: ParseOptions
    raw: bool
    headers: dict[str, str]
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    rows: int = 0
    wrong_rows: int = 0
    warnings: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    reason: str = ""
    started: float = 0.0

    @property
    def name(self) -> str:
        return self.upload.stem

    @property
    def result(self) -> Path:
        return self.upload.with_suffix(".csv")

    @property
    def is_cancelled(self) -> bool:
        return self.upload.with_suffix(".cancel").exists()

    def note(self) -> JobRecord:
        """For the answer, for the page, and for the process that takes the job over."""
        facts: dict[str, Any] = {
            "job": self.name,
            "project": self.snapshot.project,
            "version": self.snapshot.version,
            "state": self.state,
            "rows": self.rows,
            "wrong_rows": self.wrong_rows,
            "warnings": self.warnings,
            "bytes": self.bytes,
            "seconds": round(time.time() - self.started, 3) if self.started else 0,
        }
        if self.state == "done":
            facts["result"] = f"/jobs/{self.name}/result.csv"
        if self.state == "failed":
            facts |= {"reason": self.reason, "errors": [problem.as_json() for problem in self.problems]}
        return JobRecord(self.headers, facts, {"families": list(self.families), "asked": asdict(self.asked), "raw": self.raw})


class Jobs:
    """One thread that works on tables in order, and notes of them that every worker of the host can read."""

    def __init__(self, spread: DaskExecutor, shared: WorkerDirectory, limits: JobLimits, ended: Counter[str]) -> None:
        self._spread, self._shared, self._limits, self._ended = spread, shared, limits, ended
        self._worker = ThreadPoolExecutor(1, "jobs")
        self._closed = False

    def new_upload(self, owner: str) -> Path:
        """An empty file for a table; it counts as a job from now on. Raises TooManyJobs, StorageFull."""
        path = self._shared.new_path(self._shared.jobs, owner, ".upload")
        unfinished = list(self._shared.jobs.glob("*/*.upload"))
        if len(unfinished) >= self._limits.jobs:
            raise TooManyJobs("try again when some are done")
        if sum(upload.parent == path.parent for upload in unfinished) >= self._limits.jobs_per_caller:
            raise TooManyJobs("wait until one of your jobs is done, or cancel one")
        try:
            path.touch()
        except OSError:
            raise StorageFull("the job cannot be kept now") from None
        return path

    def start(
        self,
        upload: Path,
        snapshot: ServedModel,
        families: Sequence[str],
        asked: ParseOptions,
        raw: bool,
        headers: dict[str, str],
    ) -> dict[str, Any]:
        """Queue a table and return the facts of its job. Raises StorageFull."""
        job = Job(upload, snapshot, families, asked, raw, headers, bytes=upload.stat().st_size)
        try:
            write_record(upload, job.note())
        except OSError:
            remove_files(upload)
            raise StorageFull("the job cannot be kept now") from None
        facts = job.note().facts
        delete_oldest(upload.parent, MAX_JOBS)
        self._worker.submit(self._run, job)
        return facts

    def get(self, name: str, owner: str) -> JobRecord:
        """Of any worker's job. Raises UnknownResult, for another caller's job too."""
        return read_record(self._shared.find(self._shared.jobs, name, owner))

    def result(self, name: str, owner: str) -> tuple[Path, dict[str, str]]:
        """Raises UnknownResult, NotDone."""
        note = self.get(name, owner)
        if note.facts["state"] != "done":
            raise NotDone(f"the job is {note.facts['state']}")
        return self._shared.find(self._shared.jobs, name, owner).with_suffix(".csv"), note.headers

    def cancel(self, name: str, owner: str) -> None:
        """End a job, in whatever process it runs, and remove its files. Raises UnknownResult, StorageFull."""
        path = self._shared.find(self._shared.jobs, name, owner)
        if read_record(path).facts["state"] not in UNFINISHED or is_abandoned(path):
            return remove_files(path)
        try:
            path.with_suffix(".cancel").touch()
        except OSError:
            raise StorageFull("the job cannot be marked as cancelled now") from None

    def take_over(self, find: Find) -> None:
        """Continue the jobs of processes that have ended, from their beginning, and remove uploads that belong to none."""
        for path in self._shared.jobs.glob("*/*.json"):
            if is_abandoned(path):
                with file_lock(self._shared.folder / "take-over.lock"):
                    if is_abandoned(path):  # and no other process was faster
                        self._restart(path, find)

    def _restart(self, path: Path, find: Find) -> None:
        note, upload = read_record(path), path.with_suffix(".upload")
        snapshot = find(note.facts["project"])
        if snapshot is None:
            return None  # until it is in service again
        try:
            families = [snapshot.models[name].family for name in note.work["families"]]
            if not upload.exists():
                raise UnknownModel
        except (KeyError, UnknownModel):
            return remove_files(path)
        headers = {**note.headers, "X-Model-Version": snapshot.version}
        log.warning("job %s of a process that has ended starts again with version %s", path.stem, snapshot.version)
        self.start(upload, snapshot, families, ParseOptions(**note.work["asked"]), note.work["raw"], headers)

    def _run(self, job: Job) -> None:
        job.state, job.started = "running", time.time()
        try:
            self._predict(job)
            job.state = "done"
        except BadData as error:
            job.problems, job.reason = list(error.problems), str(error)
        except Stopped as error:
            job.reason = str(error)
        except OSError:
            log.exception("job %s could not be written", job.name)
            job.reason = StorageFull.title
        except Exception:
            log.exception("job %s failed", job.name)
            job.reason = "this is a fault of the service; it was logged"
        finally:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.is_cancelled:
            return remove_files(job.upload)
        if self._closed and job.state != "done":
            return None  # the note stays as it is: another process continues the job
        if job.state != "done":
            job.state = "failed"
            job.result.unlink(missing_ok=True)
        job.upload.unlink(missing_ok=True)
        self._ended[job.state] += 1
        try:
            write_record(job.upload, job.note())
        except OSError:
            log.exception("the end of job %s could not be noted", job.name)

    def _predict(self, job: Job) -> None:
        """Raises Stopped, OSError, and BadData with the rows counted over the whole table."""
        end, size = time.monotonic() + self._limits.seconds, 0
        with job.result.open("wb") as file:
            self._check(job, end, size)
            for piece in predict_file(job.upload, job.snapshot, job.families, self._spread.scores, job.asked, raw=job.raw):
                size += file.write(piece.csv)
                self._check(job, end, size)
                job.rows += piece.rows
                job.wrong_rows += piece.wrong_rows
                job.warnings = min(job.warnings + piece.warnings, MAX_REPORTED)
                write_record(job.upload, job.note())

    def _check(self, job: Job, end: float, size: int) -> None:
        """Raises Stopped."""
        if self._closed:
            raise Stopped("the service stops")
        if job.is_cancelled:
            raise Stopped("the job was cancelled")
        if time.monotonic() > end:
            raise Stopped(f"the job took longer than {self._limits.seconds:g} s: send the table in parts")
        if size > self._limits.result_bytes:
            raise Stopped(f"the result has more than {self._limits.result_bytes} bytes: send the table in parts")

    def close(self) -> None:
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)

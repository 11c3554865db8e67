"""Background jobs: predict large tables in chunks from disk to disk, so that memory use stays small."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from podium.inference.batch import LoggedRows, logged_rows, predict_file
from podium.inference.parsed_rows import ParseOptions
from podium.inference.served_model import ServedModel, UnknownModel
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem
from podium.storage.files import file_lock
from service.dask_executor import DaskExecutor
from service.errors import JobNotDone, PredictionLogFull, StorageFull, TooManyJobs
from service.prediction_log import PredictionLog
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
FindModel = Callable[[str], ServedModel | None]


class JobStopped(Exception):
    """The job was cancelled or exceeded a limit, or the service is stopping."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Maximum unfinished jobs in total and per caller, and maximum duration and result size of a job."""

    max_jobs: int
    max_jobs_per_caller: int
    max_seconds: float
    max_result_bytes: int


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What to predict for an uploaded table, and for whom; one version predicts the whole table."""

    served: ServedModel
    caller: str
    families: Sequence[str]
    options: ParseOptions
    raw: bool
    headers: dict[str, str]


@dataclass(slots=True)
class Job:
    """A table on disk, the request, and its progress."""

    upload: Path
    request: JobRequest
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    rows: int = 0
    wrong_rows: int = 0
    warnings: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    reason: str = ""
    started: float = 0.0
    logged: list[LoggedRows] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.upload.stem

    @property
    def result(self) -> Path:
        return self.upload.with_suffix(".csv")

    @property
    def is_cancelled(self) -> bool:
        return self.upload.with_suffix(".cancel").exists()

    def record(self) -> JobRecord:
        """Return the state to store, for clients and for a process that takes over the job."""
        request = self.request
        facts: dict[str, Any] = {
            "job": self.name,
            "project": request.served.project,
            "version": request.served.version,
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
        if self.logged:
            facts["logged"] = self.logged
        work = {"caller": request.caller, "families": list(request.families), "raw": request.raw}
        work["options"] = asdict(request.options)
        return JobRecord(request.headers, facts, work)


class Jobs:
    """Runs jobs in order in one thread; every worker of the host can read their records."""

    def __init__(
        self,
        dask: DaskExecutor,
        directory: WorkerDirectory,
        limits: JobLimits,
        finished: Counter[str],
        predictions: PredictionLog,
    ) -> None:
        self._dask, self._directory, self._limits, self._finished = dask, directory, limits, finished
        self._predictions = predictions
        self._thread = ThreadPoolExecutor(1, "jobs")
        self._closed = False

    def new_upload(self, owner: str) -> Path:
        """Create an empty file for a table; it counts as a job. Raises TooManyJobs, StorageFull."""
        path = self._directory.new_path(self._directory.jobs, owner, ".upload")
        unfinished = list(self._directory.jobs.glob("*/*.upload"))
        if len(unfinished) >= self._limits.max_jobs:
            raise TooManyJobs("too many unfinished jobs, try again later")
        if sum(upload.parent == path.parent for upload in unfinished) >= self._limits.max_jobs_per_caller:
            raise TooManyJobs("wait until one of your jobs is done, or cancel one")
        try:
            path.touch()
        except OSError:
            raise StorageFull("the job cannot be stored") from None
        return path

    def start(self, upload: Path, request: JobRequest) -> dict[str, Any]:
        """Queue a table and return the state of its job. Raises StorageFull."""
        job = Job(upload, request, bytes=upload.stat().st_size)
        record = job.record()
        try:
            write_record(upload, record)
        except OSError:
            remove_files(upload)
            raise StorageFull("the job cannot be stored") from None
        delete_oldest(upload.parent, MAX_JOBS)
        self._thread.submit(self._run, job)
        return record.facts

    def get(self, name: str, owner: str) -> JobRecord:
        """Return a caller's job, whichever worker runs it. Raises UnknownResult."""
        return read_record(self._directory.find(self._directory.jobs, name, owner))

    def result(self, name: str, owner: str) -> tuple[Path, dict[str, str]]:
        """Return the path of a result and its response headers. Raises UnknownResult, JobNotDone."""
        record = self.get(name, owner)
        if record.facts["state"] != "done":
            raise JobNotDone(f"the job is {record.facts['state']}")
        return self._directory.find(self._directory.jobs, name, owner).with_suffix(".csv"), record.headers

    def cancel(self, name: str, owner: str) -> None:
        """Stop a job, in whichever process it runs, and delete its files. Raises UnknownResult, StorageFull."""
        path = self._directory.find(self._directory.jobs, name, owner)
        if read_record(path).facts["state"] not in UNFINISHED or is_abandoned(path):
            return remove_files(path)
        try:
            path.with_suffix(".cancel").touch()
        except OSError:
            raise StorageFull("the cancellation cannot be stored") from None

    def take_over(self, find_model: FindModel) -> None:
        """Restart the unfinished jobs of processes that have ended, and delete uploads that cannot be predicted."""
        for path in self._directory.jobs.glob("*/*.json"):
            if is_abandoned(path):
                with file_lock(self._directory.folder / "take-over.lock"):
                    if is_abandoned(path):  # no other process took it over meanwhile
                        self._restart(path, find_model)

    def _restart(self, path: Path, find_model: FindModel) -> None:
        record, upload = read_record(path), path.with_suffix(".upload")
        served = find_model(record.facts["project"])
        if served is None:
            return None  # wait until the model is loaded
        try:
            families = [served.models[name].family for name in record.work["families"]]
            if not upload.exists():
                raise UnknownModel
        except (KeyError, UnknownModel):
            return remove_files(path)
        log.warning("restarting job %s with version %s, because its process has ended", path.stem, served.version)
        headers = {**record.headers, "X-Model-Version": served.version}
        options = ParseOptions(**record.work["options"])
        self.start(upload, JobRequest(served, record.work["caller"], families, options, record.work["raw"], headers))

    def _run(self, job: Job) -> None:
        job.state, job.started = "running", time.time()
        try:
            self._predict(job)
            job.state = "done"
        except BadData as error:
            job.problems, job.reason = list(error.problems), str(error)
        except (JobStopped, PredictionLogFull) as error:
            job.reason = str(error)
        except OSError:
            log.exception("job %s cannot be written", job.name)
            job.reason = StorageFull.title
        except Exception:
            log.exception("job %s failed", job.name)
            job.reason = "Internal server error; the error was logged"
        finally:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.is_cancelled:
            return remove_files(job.upload)
        if self._closed and job.state != "done":
            return None  # the record stays, so that another process restarts the job
        if job.state != "done":
            job.state = "failed"
            job.result.unlink(missing_ok=True)
        job.upload.unlink(missing_ok=True)
        self._finished[job.state] += 1
        try:
            write_record(job.upload, job.record())
        except OSError:
            log.exception("the final state of job %s cannot be written", job.name)

    def _predict(self, job: Job) -> None:
        """Predict a job's table. Raises JobStopped, OSError, and BadData, whose row numbers refer to the whole table."""
        deadline, size, request = time.monotonic() + self._limits.max_seconds, 0, job.request
        with job.upload.open("rb") as upload:
            sha256 = hashlib.file_digest(upload, "sha256").digest()
        record = functools.partial(self._predictions.record_file_rows, request.served, request.caller, sha256)
        with job.result.open("wb") as file:
            self._check_limits(job, deadline, size)
            score, options = self._dask.scores, request.options
            for chunk in predict_file(
                job.upload, request.served, request.families, score, options, raw=request.raw, record=record
            ):
                if chunk.prediction_id:
                    job.logged.append(logged_rows(chunk.prediction_id, job.rows, chunk.rows))
                size += file.write(chunk.csv)
                self._check_limits(job, deadline, size)
                job.rows += chunk.rows
                job.wrong_rows += chunk.wrong_rows
                job.warnings = min(job.warnings + chunk.warnings, MAX_REPORTED)
                write_record(job.upload, job.record())

    def _check_limits(self, job: Job, deadline: float, size: int) -> None:
        """Check that the job may continue. Raises JobStopped."""
        if self._closed:
            raise JobStopped("the service is shutting down")
        if job.is_cancelled:
            raise JobStopped("the job was cancelled")
        if time.monotonic() > deadline:
            raise JobStopped(f"the job took longer than {self._limits.max_seconds:g} s: split the table")
        if size > self._limits.max_result_bytes:
            raise JobStopped(f"the result has more than {self._limits.max_result_bytes} bytes: split the table")

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)

"""Large tables in the background: piece by piece from disk to disk, so that memory stays small."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from podium.data.problems import MOST_REPORTED, BadData, Problem
from podium.predict.files import predict_file
from podium.predict.inputs import Asked
from podium.predict.snapshot import Snapshot
from service.problems import NotDone, StorageFull, TooManyJobs
from service.shared import Note, Shared
from service.spread import Spread

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """One table: where it lies, what was asked, and how far it is; one version answers all of it."""

    name: str
    snapshot: Snapshot
    families: Sequence[str]
    upload: Path
    asked: Asked
    raw: bool
    headers: dict[str, str]
    bytes: int
    owner: str
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    rows: int = 0
    wrong_rows: int = 0
    warnings: int = 0
    problems: list[Problem] = field(default_factory=list)
    reason: str = ""
    started: float = 0.0

    @property
    def result(self) -> Path:
        return self.upload.with_suffix(".csv")

    def facts(self) -> dict[str, Any]:
        """For the answer and for the page."""
        found: dict[str, Any] = {
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
            found["result"] = f"/jobs/{self.name}/result.csv"
        if self.state == "failed":
            found |= {"reason": self.reason, "errors": [problem.as_json() for problem in self.problems]}
        return found


class Jobs:
    """One thread that works on tables in order, and notes of them that every worker of the host can read."""

    def __init__(self, spread: Spread, shared: Shared, most_waiting: int) -> None:
        self._spread, self._shared, self._most = spread, shared, most_waiting
        self._open: dict[str, Job] = {}
        self._worker = ThreadPoolExecutor(1, "jobs")
        self._closed = False

    def new_upload(self) -> Path:
        """Where to write what comes. Raises TooManyJobs."""
        if len(self._open) >= self._most:
            raise TooManyJobs("try again when some are done")
        return self._shared.jobs / f"{self._shared.new_name()}.upload"

    def start(
        self,
        upload: Path,
        snapshot: Snapshot,
        families: Sequence[str],
        asked: Asked,
        raw: bool,
        headers: dict[str, str],
        owner: str = "",
    ) -> Job:
        """Queue a table; only its owner will find the job. Raises StorageFull."""
        job = Job(upload.stem, snapshot, families, upload, asked, raw, headers, upload.stat().st_size, owner)
        try:
            self._note(job)
        except OSError:
            upload.unlink(missing_ok=True)
            raise StorageFull("the job cannot be kept now") from None
        self._open[job.name] = job
        self._shared.make_room_for_jobs()
        self._worker.submit(self._run, job)
        return job

    def get(self, name: str, owner: str = "") -> Note:
        """Of any worker's job. Raises UnknownResult, for somebody else's job too."""
        return self._shared.read(self._shared.jobs, name, owner)

    def result(self, name: str, owner: str = "") -> tuple[Path, dict[str, str]]:
        """Raises UnknownResult, NotDone."""
        note = self.get(name, owner)
        if note.facts["state"] != "done":
            raise NotDone(f"the job is {note.facts['state']}")
        return self._shared.jobs / f"{name}.csv", note.headers

    def _note(self, job: Job) -> None:
        self._shared.note(self._shared.jobs, job.name, Note(job.owner, job.headers, job.facts()))

    def _run(self, job: Job) -> None:
        job.state, job.started = "running", time.time()
        try:
            self._predict(job)
            job.state = "done"
        except BadData as error:
            job.problems, job.reason = list(error.problems), str(error)
        except OSError:
            log.exception("job %s could not be written", job.name)
            job.reason = StorageFull.title
        except Exception:
            log.exception("job %s failed", job.name)
            job.reason = "this is a fault of the service; it was logged"
        finally:
            if job.state != "done":
                job.state = "failed"
                job.result.unlink(missing_ok=True)
            job.upload.unlink(missing_ok=True)
            del self._open[job.name]
            try:
                self._note(job)
            except OSError:
                log.exception("the end of job %s could not be noted", job.name)

    def _predict(self, job: Job) -> None:
        """Raises BadData with the rows counted over the whole table."""
        with job.result.open("wb") as file:
            for piece in predict_file(job.upload, job.snapshot, job.families, self._spread.scores, job.asked, raw=job.raw):
                if self._closed:
                    raise RuntimeError("the service stops")
                file.write(piece.csv)
                job.rows += piece.rows
                job.wrong_rows += piece.wrong_rows
                job.warnings = min(job.warnings + piece.warnings, MOST_REPORTED)
                self._note(job)

    def close(self) -> None:
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)

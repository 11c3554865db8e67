"""Large tables in the background: piece by piece from disk to disk, so that memory stays small."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from podium.data.problems import MOST_REPORTED, BadData, Problem
from podium.predict.files import predict_file
from podium.predict.inputs import Asked
from podium.predict.snapshot import Snapshot
from service.problems import NotDone, StorageFull, TooManyJobs, UnknownResult
from service.spread import Spread

log = logging.getLogger(__name__)
KEPT = 50


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
    seconds: float = 0.0

    @property
    def result(self) -> Path:
        return self.upload.with_suffix(".csv")

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "job": self.name,
            "project": self.snapshot.project,
            "version": self.snapshot.version,
            "state": self.state,
            "rows": self.rows,
            "wrong_rows": self.wrong_rows,
            "warnings": self.warnings,
            "bytes": self.bytes,
            "seconds": round(self.seconds if self.state in ("done", "failed") else time.time() - self.started, 3)
            if self.started
            else 0,
        }
        if self.state == "done":
            found["result"] = f"/jobs/{self.name}/result.csv"
        if self.state == "failed":
            found |= {"reason": self.reason, "errors": [problem.as_json() for problem in self.problems]}
        return found


class Jobs:
    """A folder of uploads and results that goes with the service, and one thread that works on them in order."""

    def __init__(self, spread: Spread, most_waiting: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="podium-jobs-"))
        self._spread, self._most = spread, most_waiting
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "jobs")
        self._closed = False

    def new_upload(self) -> Path:
        """Where to write what comes. Raises TooManyJobs."""
        if sum(job.state in ("waiting", "running") for job in self._jobs.values()) >= self._most:
            raise TooManyJobs("try again when some are done")
        return self.folder / f"{secrets.token_urlsafe(18)}.upload"

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
        """Queue a table; only its owner will find the job."""
        job = Job(upload.stem, snapshot, families, upload, asked, raw, headers, upload.stat().st_size, owner)
        self._jobs[job.name] = job
        self._make_room()
        self._worker.submit(self._run, job)
        return job

    def get(self, name: str, owner: str = "") -> Job:
        """Raises UnknownResult, for somebody else's job too."""
        job = self._jobs.get(name)
        if job is None or job.owner != owner:
            raise UnknownResult("there is no job of that name, or it made room for newer ones")
        return job

    def result(self, name: str, owner: str = "") -> tuple[Path, dict[str, str]]:
        """Raises UnknownResult, NotDone."""
        job = self.get(name, owner)
        if job.state != "done":
            raise NotDone(f"the job is {job.state}")
        return job.result, job.headers

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
            job.seconds = time.time() - job.started
            if job.state != "done":
                job.state = "failed"
                job.result.unlink(missing_ok=True)
            job.upload.unlink(missing_ok=True)

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

    def _make_room(self) -> None:
        while len(self._jobs) > KEPT:
            oldest = next((job for job in self._jobs.values() if job.state in ("done", "failed")), None)
            if oldest is None:
                return
            oldest.result.unlink(missing_ok=True)
            del self._jobs[oldest.name]

    def close(self) -> None:
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

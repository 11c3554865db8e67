"""Print one line when a task ends."""

from __future__ import annotations

import logging
import sys
from typing import Any

import luigi

from luigi_tasks.batch import PredictBatch
from luigi_tasks.monitor import Monitor
from luigi_tasks.parts import PartsWorker, PredictParts, parts_text
from luigi_tasks.promotion_tasks import ChampionChange
from luigi_tasks.retrain import Retrain, RetrainDue
from luigi_tasks.stage import Ingest, Stage
from podium.monitoring.report_text import report_text
from podium.schema.data_errors import BadData

RECEIPT_TASKS = (ChampionChange, Monitor, PredictBatch, PredictParts, Retrain)
"""Tasks that run once per request, day or week and write a receipt or a report."""


class _Progress(logging.Handler):
    """Prints what training tries."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"  {record.getMessage()}", flush=True)


logging.getLogger("podium.training").setLevel(logging.INFO)
logging.getLogger("podium.training").addHandler(_Progress())


def _name(task: luigi.Task) -> str:
    return " ".join(filter(None, [task.get_task_family(), getattr(task, "family", "")]))


def _print(mark: str, task: Any, text: str) -> None:
    print(f"{mark} {task.project:<16} {_name(task):<22} {text}", flush=True)


def _has_output(task: Any) -> bool:
    """Return False for a stage that only delegates to the stage for the latest snapshot."""
    return isinstance(task, (Ingest, *RECEIPT_TASKS)) or (isinstance(task, Stage) and bool(task.snapshot))


@luigi.Task.event_handler(luigi.Event.PROCESSING_TIME)
def on_end(task: Any, seconds: float) -> None:
    if _has_output(task):
        _print("✓", task, f"{seconds:6.1f} s  {task.output().url}")
        print_summary(task)


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def on_present(task: Any) -> None:
    if isinstance(task, Stage):
        done = task if task.snapshot else task.of_latest()
        _print("=", task, f"done before  {done.output_target.url}")
        if not task.snapshot:
            print_summary(done)
    elif isinstance(task, RetrainDue):
        _print("=", task, f"nothing is due on {task.date}")
    elif isinstance(task, RECEIPT_TASKS):
        _print("=", task, f"done before  {task.output().url}")


@luigi.Task.event_handler(luigi.Event.FAILURE)
@luigi.Task.event_handler(luigi.Event.BROKEN_TASK)
def on_failure(task: Any, error: BaseException) -> None:
    if isinstance(task, (Ingest, PartsWorker, Stage, *RECEIPT_TASKS)):
        _print("✗", task, f"{type(error).__name__}: {error}")
        for problem in error.problems if isinstance(error, BadData) else ():
            print(f"    {problem.as_json()}", file=sys.stderr, flush=True)


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_MISSING)
def on_missing(task: Any) -> None:
    """Check the task again to print why it is incomplete, which Luigi does not report."""
    try:
        if not task.complete():
            _print("✗", task, f"{task.output().url} does not exist")
    except Exception as error:
        on_failure(task, error)


def print_summary(task: Any) -> None:
    if task.get_task_family() == "Pipeline":
        print("\n" + task.output().read().decode(), flush=True)
    if isinstance(task, PredictParts):
        print("\n" + parts_text(task.output().document()), flush=True)
    if isinstance(task, Monitor):
        print("\n" + report_text(task.output().document()), flush=True)

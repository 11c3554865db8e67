"""A line for each task as it ends, for the person who watches."""

from __future__ import annotations

import sys
from typing import Any

import luigi

from luigi_tasks.batch import PredictBatch
from luigi_tasks.promotion_tasks import ChampionChange
from luigi_tasks.retrain import Retrain
from luigi_tasks.stage import Ingest, Stage
from podium.schema.data_errors import BadData

RECEIPT_TASKS = (ChampionChange, PredictBatch, Retrain)
"""Done once a request, a day or a week, with a receipt."""


def _name(task: luigi.Task) -> str:
    return " ".join(filter(None, [task.get_task_family(), getattr(task, "family", "")]))


def _say(mark: str, task: Any, text: str) -> None:
    print(f"{mark} {task.project:<16} {_name(task):<22} {text}", flush=True)


def _is_step(task: Any) -> bool:
    """Not a stage that only stands for its run of the latest snapshot."""
    return isinstance(task, (Ingest, *RECEIPT_TASKS)) or (isinstance(task, Stage) and bool(task.snapshot))


@luigi.Task.event_handler(luigi.Event.PROCESSING_TIME)
def ended(task: Any, seconds: float) -> None:
    if _is_step(task):
        _say("✓", task, f"{seconds:6.1f} s  {task.output().url}")
        summary(task)


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def present(task: Any) -> None:
    if isinstance(task, Stage):
        done = task if task.snapshot else task.of_latest()
        _say("=", task, f"done before  {done.own.url}")
        if not task.snapshot:
            summary(done)
    elif isinstance(task, RECEIPT_TASKS):
        _say("=", task, f"done before  {task.output().url}")


@luigi.Task.event_handler(luigi.Event.FAILURE)
@luigi.Task.event_handler(luigi.Event.BROKEN_TASK)
def failed(task: Any, error: BaseException) -> None:
    if isinstance(task, (Ingest, Stage, *RECEIPT_TASKS)):
        _say("✗", task, f"{type(error).__name__}: {error}")
        for problem in error.problems if isinstance(error, BadData) else ():
            print(f"    {problem.as_json()}", file=sys.stderr, flush=True)


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_MISSING)
def missing(task: Any) -> None:
    """Luigi keeps to itself why it could not look at a task, so look again and say it."""
    try:
        if not task.complete():
            _say("✗", task, f"{task.output().url} is not there")
    except Exception as error:
        failed(task, error)


def summary(task: Any) -> None:
    if task.get_task_family() == "Pipeline":
        print("\n" + task.output().read().decode(), flush=True)

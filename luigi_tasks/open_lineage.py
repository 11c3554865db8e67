"""OpenLineage events of the stages, for those who collect them.

They are sent if OPENLINEAGE_URL, OPENLINEAGE_CONFIG or an OPENLINEAGE__… variable is set, as the client's documentation says.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import luigi
from luigi.task import flatten

from luigi_tasks.stage import Ingest, Stage
from luigi_tasks.target import StoreTarget
from podium import __version__

log = logging.getLogger(__name__)
NAMESPACE, PRODUCER = "podium", f"urn:podium:{__version__}"


def is_configured() -> bool:
    return any(name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__") for name in os.environ)


@functools.cache
def _client() -> Any:
    """Return the client. Raises ImportError, with advice."""
    try:
        from openlineage.client import OpenLineageClient
    except ImportError:
        raise ImportError("OpenLineage is configured but not installed: pip install 'podium[lineage]'") from None
    return OpenLineageClient()


@functools.cache
def _run_id(task_id: str) -> str:
    from openlineage.client.uuid import generate_new_uuid

    return str(generate_new_uuid())


def _datasets(tasks: Any, kind: Any) -> Iterator[Any]:
    """Yield the datasets of outputs; their namespace is the bucket."""
    for target in flatten(tasks):
        if isinstance(target, StoreTarget):
            bucket, _, key = target.url.removeprefix("s3://").partition("/")
            yield kind(f"s3://{bucket}", key)


def emit(task: Any, state: str) -> None:
    """Send the event of a stage that has outputs. A receiver that fails does not stop the training."""
    if not is_configured() or not isinstance(task, Ingest | Stage) or (isinstance(task, Stage) and not task.snapshot):
        return
    client = _client()
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    event = RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        producer=PRODUCER,
        eventType=RunState[state],
        run=Run(_run_id(task.task_id)),
        job=Job(NAMESPACE, f"{task.project}.{'.'.join(filter(None, [task.get_task_family(), getattr(task, 'family', '')]))}"),
        inputs=list(_datasets(task.input(), InputDataset)),
        outputs=list(_datasets(task.output(), OutputDataset)),
    )
    try:
        client.emit(event)
    except Exception as error:
        log.warning("an OpenLineage event was not accepted: %s", error)


@luigi.Task.event_handler(luigi.Event.START)
def on_start(task: Any) -> None:
    emit(task, "START")


@luigi.Task.event_handler(luigi.Event.SUCCESS)
def on_success(task: Any) -> None:
    emit(task, "COMPLETE")


@luigi.Task.event_handler(luigi.Event.FAILURE)
def on_failure(task: Any, error: BaseException) -> None:
    emit(task, "FAIL")

"""What the endpoints share, made once when the service starts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from podium.storage.object_store import Store
from service.active_models import ActiveModels
from service.dask_executor import DaskExecutor
from service.inbox import InboxWorker
from service.jobs import Jobs
from service.metrics import Metrics
from service.pages import Pages
from service.reconciler import Reconciler
from service.settings import ServiceSettings
from service.webhooks import Webhooks
from service.worker_directory import WorkerDirectory


@dataclass(slots=True)
class Services:
    """The parts of one worker process."""

    settings: ServiceSettings
    store: Store
    pages_store: Store
    """Gives up before the deadline of a page."""
    live: ActiveModels
    reconcile: Reconciler
    spread: DaskExecutor
    shared: WorkerDirectory
    webhooks: Webhooks
    pages: Pages
    metrics: Metrics
    jobs: Jobs
    inbox: InboxWorker
    started: float = field(default_factory=time.time)

    def status(self) -> dict[str, Any]:
        """What this worker serves and has counted, as plain values."""
        return {
            "looked_at": self.reconcile.looks.looked_at,
            "serving": {snapshot.project: snapshot.version for snapshot in self.live.all()},
            "counted": self.metrics.dump(),
        }

    def ready(self) -> bool:
        """Whether the start is over, a model is in service, and for every champion that failed at least the one before it.

        Aliases that no promoter signed, of projects that never served here, do not count.
        """
        serving = {snapshot.project for snapshot in self.live.all()} | set(self.live.evicted)
        up = self.reconcile.settled and not self.live.draining
        return up and bool(serving) and self.reconcile.failures.keys() <= serving


def services_of(request: Request) -> Services:
    state: Services = request.app.state.podium
    return state


StateDep = Annotated[Services, Depends(services_of)]

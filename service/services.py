"""The objects that the endpoints share, created once when the service starts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from podium.storage.object_store import Store
from service.active_models import ActiveModels
from service.dask_executor import DaskExecutor
from service.inbox_worker import InboxWorker
from service.jobs import Jobs
from service.metrics import Metrics
from service.pages import Pages
from service.prediction_log import PredictionLog, Shipping
from service.reconciler import Reconciler
from service.settings import ServiceSettings
from service.webhooks import Webhooks
from service.worker_directory import WorkerDirectory


@dataclass(slots=True, kw_only=True)
class Services:
    """The objects of one worker process."""

    settings: ServiceSettings
    store: Store
    pages_store: Store
    """A store client that times out before the deadline of a page."""
    live: ActiveModels
    reconciler: Reconciler
    dask: DaskExecutor
    directory: WorkerDirectory
    webhooks: Webhooks
    pages: Pages
    metrics: Metrics
    jobs: Jobs
    inbox: InboxWorker
    predictions: PredictionLog
    shipping: Shipping
    started: float = field(default_factory=time.time)

    def status(self) -> dict[str, Any]:
        """Return what this worker serves and its metrics, as JSON values."""
        return {
            "checked_at": self.reconciler.store_checks.checked_at,
            "serving": {served.project: served.version for served in self.live.all()},
            "metrics": self.metrics.dump(),
        }

    def ready(self) -> bool:
        """Return whether startup is complete, a model is serving, and every project with a failure still serves a version.

        While predictions are refused because they cannot be logged, the service is not ready. Unsigned aliases of projects that
        were never served here do not count.
        """
        serving = {served.project for served in self.live.all()} | set(self.live.evicted)
        started = self.reconciler.is_initialized and not self.live.draining and not self.predictions.refuses
        return started and bool(serving) and self.reconciler.failures.keys() <= serving


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]

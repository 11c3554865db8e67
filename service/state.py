"""What the endpoints share, made once when the service starts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from podium.store.s3 import Store
from service.jobs import Jobs
from service.live import Live
from service.metrics import Metrics
from service.pages import Pages
from service.reconcile import Reconcile
from service.results import Results
from service.settings import ServiceSettings
from service.spread import Spread
from service.webhooks import Webhooks


@dataclass(slots=True)
class State:
    """The parts of one worker process."""

    settings: ServiceSettings
    store: Store
    live: Live
    reconcile: Reconcile
    spread: Spread
    results: Results
    webhooks: Webhooks
    pages: Pages
    metrics: Metrics
    jobs: Jobs
    started: float = field(default_factory=time.time)

    def ready(self) -> bool:
        """Whether a model is in service, and for every champion that failed to load at least the one before it."""
        serving = {snapshot.project for snapshot in self.live.all()}
        return not self.live.draining and bool(serving) and set(self.reconcile.failures) <= serving


def state_of(request: Request) -> State:
    state: State = request.app.state.podium
    return state


StateDep = Annotated[State, Depends(state_of)]

"""What the endpoints share, made once when the service starts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from podium.store.s3 import Store
from service.dropbox import DropBox
from service.jobs import Jobs
from service.live import Live
from service.metrics import Metrics
from service.pages import Pages
from service.reconcile import Reconcile
from service.settings import ServiceSettings
from service.shared import Shared
from service.spread import Spread
from service.webhooks import Webhooks


@dataclass(slots=True)
class State:
    """The parts of one worker process."""

    settings: ServiceSettings
    store: Store
    pages_store: Store
    """Gives up before the deadline of a page."""
    live: Live
    reconcile: Reconcile
    spread: Spread
    shared: Shared
    webhooks: Webhooks
    pages: Pages
    metrics: Metrics
    jobs: Jobs
    dropbox: DropBox
    started: float = field(default_factory=time.time)

    def story(self) -> dict[str, Any]:
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
        serving = {snapshot.project for snapshot in self.live.all()} | set(self.live.asleep)
        up = self.reconcile.settled and not self.live.draining
        return up and bool(serving) and self.reconcile.failures.keys() <= serving


def state_of(request: Request) -> State:
    state: State = request.app.state.podium
    return state


StateDep = Annotated[State, Depends(state_of)]

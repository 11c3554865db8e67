"""What the endpoints share, made once when the service starts."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from podium.store.s3 import Store
from service.live import Live, Snapshot
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
    started: float = field(default_factory=time.time)
    predictions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def ready(self) -> bool:
        """Whether a model is in service, and for every champion that failed to load at least the one before it."""
        serving = {snapshot.project for snapshot in self.live.all()}
        return bool(serving) and set(self.reconcile.failures) <= serving

    def served(self, snapshot: Snapshot) -> None:
        """Count an answer by project and version."""
        self.predictions[snapshot.project, snapshot.version] += 1


def state_of(request: Request) -> State:
    state: State = request.app.state.podium
    return state


StateDep = Annotated[State, Depends(state_of)]

"""Endpoints for machines that watch: liveness, readiness, status, hints."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.negotiation import negotiate
from service.problems import ModelNotReady
from service.services import Services, StateDep

router = APIRouter(tags=["operations"])


@router.get("/metrics", summary="For Prometheus", response_class=Response)
async def metrics(state: StateDep) -> Response:
    """Of all workers of this host; asked for in no thread, as those may all wait for the store."""
    others = [(told["alive"], told["counted"]) for told in state.shared.peer_status()]
    return Response(state.metrics.with_others(others).text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health", include_in_schema=False)
@router.get("/healthz", include_in_schema=False)
@router.get("/livez", summary="The process runs")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/ready", include_in_schema=False)
@router.get("/readyz", summary="Every champion that the store names is in service")
async def readyz(state: StateDep) -> dict[str, Any]:
    """503 while no model is in service, or while one that should be could not be loaded and none before it serves.

    `stale_since` when the store has not been seen for three polls; what serves goes on serving.
    """
    serving = {snapshot.project: snapshot.version for snapshot in state.live.all()}
    if not state.ready():
        if state.live.draining:
            raise ModelNotReady("the service is about to stop")
        if not state.reconcile.settled:
            raise ModelNotReady("the service is starting: models are being loaded")
        missing = sorted(state.reconcile.failures.keys() - serving.keys() - state.live.evicted.keys())
        raise ModelNotReady(f"not in service: {', '.join(missing)}" if missing else "no model is in service yet")
    since = state.reconcile.looks.stale_since
    return {"status": "ready", "serving": serving, **({"stale_since": since} if since else {})}


@router.get("/status.json", include_in_schema=False)
@router.get("/status", summary="What serves, since when, and what went wrong")
async def status(request: Request, state: StateDep) -> Response:
    """A page for browsers, JSON for everybody else."""
    found = _status(state, state.shared.peer_status())
    suffix = ".json" if request.url.path.endswith(".json") else ""
    if negotiate(suffix, request.headers.get("accept", ""), "json") == "html":
        return Response(state.pages.status(found), media_type="text/html")
    return JSONResponse(found)


def _status(state: Services, others: list[dict[str, Any]]) -> dict[str, Any]:
    workers = [{"pid": os.getpid(), **state.status()}, *(told for told in others if told["alive"])]
    looks = [datetime.fromisoformat(worker["looked_at"]).timestamp() for worker in workers if worker["looked_at"]]
    return {
        "uptime_seconds": round(time.time() - state.started, 1),
        "serving": [_serving(state, snapshot.project) for snapshot in state.live.all()],
        "evicted": sorted(state.live.evicted),
        "failures": state.reconcile.failures,
        "store": {
            "looked_at": state.reconcile.looks.looked_at,
            "error": state.reconcile.looks.error,
            "stale_since": state.reconcile.looks.stale_since,
        },
        "rejected_aliases": state.reconcile.rejected,
        "background_failures": dict(state.metrics.background_failures),
        "swaps": list(state.reconcile.receipts),
        "workers": [{name: worker[name] for name in ("pid", "looked_at", "serving")} for worker in workers],
        "oldest_look_seconds": round(time.time() - min(looks), 3) if looks else None,
        "inbox": state.inbox.state,
        "dask": state.spread.state,
    }


def _serving(state: Services, project: str) -> dict[str, Any]:
    snapshot = state.live.get(project)
    return {
        "project": project,
        "version": snapshot.version,
        "sequence": snapshot.sequence,
        "champion": snapshot.champion,
        "models": list(snapshot.models),
        "fast_path": snapshot.fast[snapshot.champion] is not None,
        "predictions": state.metrics.served(project, snapshot.version),
    }


@router.post("/refresh", status_code=202, summary="A signed hint that the store has something new")
async def refresh(request: Request, state: StateDep) -> Response:
    """The hint's body is not believed: the service looks at the store. 200 for an id that came before."""
    body = await request.body()
    new = state.webhooks.accept(request.headers, body, time.time())
    if new:
        state.reconcile.hint()
        state.inbox.hint()
    return JSONResponse({"looking": new}, 202 if new else 200)

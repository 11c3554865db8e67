"""Operations endpoints: liveness, readiness, status, metrics and notifications."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

import podium
from service.errors import ModelNotReady
from service.negotiation import json_suffix, negotiate
from service.services import Services, ServicesDep

router = APIRouter(tags=["operations"])


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    """Metrics of all workers on this host."""
    # this runs on the event loop, because the thread pool may be blocked on S3
    peers = [(peer["alive"], peer["metrics"]) for peer in services.directory.peer_status()]
    return Response(services.metrics.merged_with(peers).text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health", include_in_schema=False)
@router.get("/healthz", include_in_schema=False)
@router.get("/livez", summary="Liveness check")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/version", summary="Podium's version", response_class=PlainTextResponse)
async def version() -> str:
    return podium.__version__


@router.get("/ping", include_in_schema=False)
@router.get("/ready", include_in_schema=False)
@router.get("/readyz", summary="Readiness check: all champions loaded")
async def readyz(services: ServicesDep) -> dict[str, Any]:
    """503 while no model is deployed, a champion failed to load and no previous version serves, or the log refuses predictions.

    `stale_since` is set if the object store has been unreachable for three polls; the loaded models keep serving.
    `prediction_log` is set if predictions cannot be written to it and wait on the disk.
    """
    serving = {served.project: served.version for served in services.live.all()}
    if not services.ready():
        raise ModelNotReady(_reason_not_ready(services, serving))
    stale_since = services.reconciler.store_checks.stale_since
    notes = {"stale_since": stale_since} if stale_since else {}
    if error := _prediction_log(services).get("error"):
        notes["prediction_log"] = error
    return {"status": "ready", "serving": serving, **notes}


def _reason_not_ready(services: Services, serving: dict[str, str]) -> str:
    if services.live.draining:
        return "the service is shutting down"
    if not services.reconciler.is_initialized:
        return "the service is starting: models are being loaded"
    if services.predictions.refuses:
        return f"predictions cannot be logged: {services.predictions.full}"
    missing = sorted(services.reconciler.failures.keys() - serving.keys() - services.live.evicted.keys())
    return f"not loaded: {', '.join(missing)} (see /status)" if missing else "no models deployed yet"


@router.get("/status.json", include_in_schema=False)
@router.get("/status", summary="Deployed models and errors")
async def status(request: Request, services: ServicesDep) -> Response:
    """JSON, or a page for browsers."""
    document = _status(services, services.directory.peer_status())
    if negotiate(json_suffix(request), request.headers.get("accept", ""), "json") == "html":
        return Response(services.pages.status(document), media_type="text/html")
    return JSONResponse(document)


def _status(services: Services, peers: list[dict[str, Any]]) -> dict[str, Any]:
    workers = [{"pid": os.getpid(), **services.status()}, *(peer for peer in peers if peer["alive"])]
    checks = [datetime.fromisoformat(worker["checked_at"]).timestamp() for worker in workers if worker["checked_at"]]
    reconciler = services.reconciler
    return {
        "uptime_seconds": round(time.time() - services.started, 1),
        "serving": [_serving(services, served.project) for served in services.live.all()],
        "evicted": sorted(services.live.evicted),
        "failures": reconciler.failures,
        "store": {
            "checked_at": reconciler.store_checks.checked_at,
            "error": reconciler.store_checks.error,
            "stale_since": reconciler.store_checks.stale_since,
        },
        "rejected_aliases": reconciler.rejected_aliases,
        "background_failures": dict(services.metrics.background_failures),
        "swaps": list(reconciler.swap_records),
        "workers": [{name: worker[name] for name in ("pid", "checked_at", "serving")} for worker in workers],
        "oldest_check_seconds": round(time.time() - min(checks), 3) if checks else None,
        "inbox": services.inbox.state,
        "dask": services.dask.state,
        "prediction_log": _prediction_log(services),
    }


def _prediction_log(services: Services) -> dict[str, Any]:
    """Return the state of the log; a log that was changed is an error even if this service writes none."""
    state, error = services.shipping.state, services.reconciler.log_error
    return {**state, "state": "failing", "error": error} if error else state


def _serving(services: Services, project: str) -> dict[str, Any]:
    served = services.live.get(project)
    return {
        "project": project,
        "version": served.version,
        "sequence": served.sequence,
        "champion": served.champion,
        "models": list(served.models),
        "fast_path": served.fast[served.champion] is not None,
        "predictions": services.metrics.successful(project, served.version),
    }


@router.post("/refresh", status_code=202, summary="Webhook: check the store now")
async def refresh(request: Request, services: ServicesDep) -> Response:
    """Needs a Standard Webhooks signature; the body is ignored. Responds with 200 to a repeated delivery."""
    body = await request.body()
    is_new = services.webhooks.accept(request.headers, body, time.time())
    if is_new:
        services.reconciler.notify()
        services.inbox.notify()
    return JSONResponse({"accepted": is_new}, 202 if is_new else 200)

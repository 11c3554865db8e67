"""The monitoring of a project: the reports of its last days."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from podium.storage.reports import read_report, reported_days
from service.charts import line_chart
from service.negotiation import json_suffix, negotiate
from service.services import Services, ServicesDep
from service.store_calls import from_store, page_deadline

router = APIRouter(tags=["projects"])
MAX_DAYS = 60


@router.get("/projects/{project}/monitoring.json", include_in_schema=False)
@router.get("/projects/{project}/monitoring", summary="Volume, drift, errors and alarms by day (JSON or HTML)")
async def monitoring(project: str, request: Request, services: ServicesDep) -> Response:
    """The last reports that the task `Monitor` wrote, the newest first, and what this service answered since it started."""
    served = services.live.get(project)
    reports = await _reports(services, served.project)
    metrics = services.metrics.merged_with([(peer["alive"], peer["metrics"]) for peer in services.directory.peer_status()])
    since_start = metrics.summary(served.project)
    if negotiate(json_suffix(request), request.headers.get("accept", ""), "json") != "html":
        return JSONResponse({"project": served.project, "since_start": since_start, "reports": reports})
    title = served.manifest.configuration.get("title") or served.project
    values = {
        "project": served.project,
        "title": title,
        "reports": reports,
        "since_start": since_start,
        **_charts(reports[::-1]),
    }
    return Response(services.pages.page("monitoring.html", **values), media_type="text/html")


async def _reports(services: Services, project: str) -> list[dict[str, Any]]:
    """Return the last reports, the newest first. Raises StoreError."""
    async with page_deadline():
        days = (await from_store(reported_days, services.pages_store, project))[-MAX_DAYS:]
        return await asyncio.gather(*(from_store(read_report, services.pages_store, project, day) for day in days[::-1]))


def _charts(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the charts of reports, the oldest first."""
    days = [report["day"] for report in reports]
    errors: dict[str, list[float | None]] = {
        name: [(report.get("error") or {}).get(name) for report in reports] for name in ("expected", "allowed", "estimated")
    }
    errors["from labels"] = [_labelled_error(report) for report in reports]
    return {
        "volume": line_chart(days, {"rows": [report["rows"] for report in reports]}),
        "errors": line_chart(days, errors),
        "joint": line_chart(days, {"AUC": [(report.get("drift") or {}).get("joint") for report in reports]}, low=0.5, high=1.0),
    }


def _labelled_error(report: dict[str, Any]) -> float | None:
    versions = report["labels"]["versions"]
    rows = sum(each["rows"] for each in versions)
    return sum(each["rows"] * each["error"] for each in versions) / rows if rows else None

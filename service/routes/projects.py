"""Project endpoints: pages, leaderboards, schemas, versions, model cards and reports."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from podium.inference.served_model import ServedModel
from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.audit_log import entry_key
from podium.registry.loading import fetcher
from podium.registry.versions import LEADERBOARD_FILE, REPORT_FILE, Manifest, list_versions, read_file, read_manifest
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError
from service.errors import NoReport
from service.json_schemas import record_schema
from service.model_cards import build_model_card
from service.negotiation import json_suffix, negotiate, wants_page
from service.pages import example_of, version_facts
from service.services import Services, ServicesDep
from service.store_calls import from_store, page_deadline

router = APIRouter(tags=["projects"])
MAX_VERSIONS = 50
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/", response_class=HTMLResponse, summary="Deployed projects")
async def index(services: ServicesDep) -> str:
    return services.pages.index(services.live.all(), sorted(services.live.evicted))


@router.get("/projects/{project}", response_class=HTMLResponse, summary="Project page: leaderboard, form and upload")
async def project_page(project: str, services: ServicesDep, example: bool = False) -> str:
    """`example` fills the form with a synthetic record from the middle of the training ranges."""
    served = services.live.get(project)
    return services.pages.project(served, values=example_of(served.signature) if example else None)


@router.get("/projects/{project}/predict", include_in_schema=False)
@router.get("/projects/{project}/batch", include_in_schema=False)
@router.get("/projects/{project}/batch.html", include_in_schema=False)
async def redirect_to_form(project: str, services: ServicesDep) -> Response:
    """Redirect a browser that reloads a result."""
    return RedirectResponse(f"/projects/{services.live.get(project).project}", 303)


@router.get("/projects/{project}/schema.json", include_in_schema=False)
@router.get("/projects/{project}/schema", summary="Input schema (JSON Schema or HTML)")
async def schema(project: str, request: Request, services: ServicesDep) -> Response:
    document = record_schema(services.live.get(project))
    if wants_page(request):
        return Response(services.pages.page("schema.html", project=project, schema=document), media_type="text/html")
    return JSONResponse(document)


@router.get("/projects/{project}/versions.json", include_in_schema=False)
@router.get("/projects/{project}/versions", summary="Versions (JSON or HTML)")
async def versions(project: str, request: Request, services: ServicesDep) -> Response:
    served = services.live.get(project)
    swaps = [record for record in services.reconciler.swap_records if record["project"] == project]
    format_ = negotiate(json_suffix(request), request.headers.get("accept", ""), "json")
    manifests, entries = await _versions_with_history(services, served)
    if format_ == "html":
        return Response(services.pages.versions(served, manifests, entries, swaps), media_type="text/html")
    facts = version_facts(served, manifests, entries)
    return JSONResponse({"project": project, "serving": served.version, "versions": facts, "swaps": swaps})


async def _versions_with_history(services: Services, served: ServedModel) -> tuple[list[Manifest], list[AuditEntry]]:
    """Return the last versions and audit-log entries, newest first. Raises StoreError."""
    trust, store, project = services.settings.trust(), services.pages_store, served.project

    def manifest(version: str) -> Manifest:
        return read_manifest(store, project, version, trust.trainers.past)[0]

    def entry(key: str) -> AuditEntry:
        return parse_entry(store.read(key).data, project, trust.promoters.past)

    def keys() -> list[str]:
        return [info.key for info in store.list_objects(f"history/{project}/")]

    async with page_deadline():
        names, entry_keys = await asyncio.gather(from_store(list_versions, store, project), from_store(keys))
        manifests = asyncio.gather(*(from_store(manifest, name) for name in names[::-1][:MAX_VERSIONS]))
        entries = asyncio.gather(*(from_store(entry, key) for key in entry_keys[::-1][:MAX_VERSIONS]))
        return await manifests, await entries


@router.get("/projects/{project}/card.json", include_in_schema=False)
@router.get("/projects/{project}/card", summary="Model card of the deployed version (JSON or HTML)")
async def model_card(project: str, request: Request, services: ServicesDep) -> Response:
    """Intended use, training data, performance and approval; without the object store, the approval is missing."""
    served = services.live.get(project)
    card = build_model_card(served, await _entry_of(services, served))
    if negotiate(json_suffix(request), request.headers.get("accept", ""), "json") == "html":
        return Response(services.pages.card(card), media_type="text/html")
    return JSONResponse(card, headers={"X-Model-Version": served.version})


async def _entry_of(services: Services, served: ServedModel) -> AuditEntry | None:
    """Return the audit-log entry that deployed a version, or None if the store is unreachable."""
    try:
        blob = await from_store(services.pages_store.read, entry_key(served.project, served.sequence))
        entry = parse_entry(blob.data, served.project, services.settings.trust().promoters)
    except StoreError:
        return None
    return entry if entry.champion == served.version else None


@router.get("/projects/{project}/leaderboard.csv", summary="Leaderboard of the deployed version (CSV)", response_class=Response)
async def leaderboard(project: str, services: ServicesDep) -> Response:
    served = services.live.get(project)
    return Response(
        await _file(services, served, LEADERBOARD_FILE), headers={"X-Model-Version": served.version}, media_type="text/csv"
    )


@router.get("/projects/{project}/report", summary="Data report of the deployed version", response_class=HTMLResponse)
async def report(project: str, services: ServicesDep) -> Response:
    served = services.live.get(project)
    if REPORT_FILE not in served.manifest.files:
        raise NoReport("imported models have no data report, as they come without training data")
    headers = {"X-Model-Version": served.version, "Content-Security-Policy": REPORT_POLICY}
    return Response(await _file(services, served, REPORT_FILE), headers=headers, media_type="text/html")


async def _file(services: Services, served: ServedModel, name: str) -> bytes:
    fetch = fetcher(services.pages_store, ModelCache(services.settings.cache))
    return await from_store(read_file, served.manifest, name, fetch)

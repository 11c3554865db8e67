"""What serves and why: pages, leaderboards, signatures, versions, reports."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from podium.inference.served_model import ServedModel
from podium.registry.audit_log import AuditEntry, entry_key, parse_entry
from podium.registry.loading import fetcher
from podium.registry.versions import LEADERBOARD_FILE, REPORT_FILE, Manifest, list_versions, read_file, read_manifest
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError
from service.json_schemas import record_schema
from service.model_cards import build_model_card
from service.negotiation import negotiate, wants_page
from service.pages import example_of, version_facts
from service.problems import NoReport
from service.services import Services, StateDep
from service.store_calls import from_store, in_time

router = APIRouter(tags=["projects"])
MAX_SHOWN = 50
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/", response_class=HTMLResponse, summary="The projects in service")
async def index(state: StateDep) -> str:
    return state.pages.index(state.live.all(), sorted(state.live.evicted))


@router.get("/projects/{project}", response_class=HTMLResponse, summary="A project: leaderboard, form, upload, versions")
async def project_page(project: str, state: StateDep, example: bool = False) -> str:
    """With `example`, the form is filled: a made-up record from the middle of the ranges, never a row of the data."""
    snapshot = state.live.get(project)
    return state.pages.project(snapshot, values=example_of(snapshot.signature) if example else None)


@router.get("/projects/{project}/predict", include_in_schema=False)
@router.get("/projects/{project}/batch", include_in_schema=False)
@router.get("/projects/{project}/batch.html", include_in_schema=False)
async def back_to_form(project: str, state: StateDep) -> Response:
    """Where a browser ends when somebody reloads a result."""
    return RedirectResponse(f"/projects/{state.live.get(project).project}", 303)


@router.get("/projects/{project}/schema.json", include_in_schema=False)
@router.get("/projects/{project}/schema", summary="The signature as JSON Schema; a page for browsers")
async def schema(project: str, request: Request, state: StateDep) -> Response:
    found = record_schema(state.live.get(project))
    if wants_page(request):
        return Response(state.pages.page("schema.html", project=project, schema=found), media_type="text/html")
    return JSONResponse(found)


@router.get("/projects/{project}/versions.json", include_in_schema=False)
@router.get("/projects/{project}/versions", summary="Every published version, what serves and why; a page for browsers")
async def versions(project: str, request: Request, state: StateDep) -> Response:
    snapshot = state.live.get(project)
    swaps = [receipt for receipt in state.reconcile.receipts if receipt["project"] == project]
    form = negotiate(".json" if request.url.path.endswith(".json") else "", request.headers.get("accept", ""), "json")
    found, acts = await _versions_with_history(state, snapshot)
    if form == "html":
        return Response(state.pages.versions(snapshot, found, acts, swaps), media_type="text/html")
    facts = version_facts(snapshot, found, acts)
    return JSONResponse({"project": project, "serving": snapshot.version, "versions": facts, "swaps": swaps})


async def _versions_with_history(state: Services, snapshot: ServedModel) -> tuple[list[Manifest], list[AuditEntry]]:
    """The last versions and acts, the newest first. Raises StoreError."""
    trust, store, project = state.settings.trust(), state.pages_store, snapshot.project

    def manifest(version: str) -> Manifest:
        return read_manifest(store, project, version, trust.trainers)[0]

    def act(key: str) -> AuditEntry:
        return parse_entry(store.read(key).data, project, trust.promoters)

    def keys() -> list[str]:
        return list(store.keys(f"history/{project}/"))

    async with in_time():
        names, acts = await asyncio.gather(from_store(list_versions, store, project), from_store(keys))
        manifests = asyncio.gather(*(from_store(manifest, name) for name in names[::-1][:MAX_SHOWN]))
        entries = asyncio.gather(*(from_store(act, key) for key in acts[::-1][:MAX_SHOWN]))
        return await manifests, await entries


@router.get("/projects/{project}/card.json", include_in_schema=False)
@router.get("/projects/{project}/card", summary="The model card of what serves; a page for browsers")
async def model_card(project: str, request: Request, state: StateDep) -> Response:
    """What it is for, what it was made of, how good it is, who let it serve. Without the store, the act is not told."""
    snapshot = state.live.get(project)
    card = build_model_card(snapshot, await _entry_of(state, snapshot))
    suffix = ".json" if request.url.path.endswith(".json") else ""
    if negotiate(suffix, request.headers.get("accept", ""), "json") == "html":
        return Response(state.pages.card(card), media_type="text/html")
    return JSONResponse(card, headers={"X-Model-Version": snapshot.version})


async def _entry_of(state: Services, snapshot: ServedModel) -> AuditEntry | None:
    """The act that put a version in service; none when the store does not show it in time."""
    try:
        blob = await from_store(state.pages_store.read, entry_key(snapshot.project, snapshot.sequence))
        act = parse_entry(blob.data, snapshot.project, state.settings.trust().promoters)
    except StoreError:
        return None
    return act if act.champion == snapshot.version else None


@router.get("/projects/{project}/leaderboard.csv", summary="The serving version's leaderboard", response_class=Response)
async def leaderboard(project: str, state: StateDep) -> Response:
    snapshot = state.live.get(project)
    return Response(
        await _file(state, snapshot, LEADERBOARD_FILE), headers={"X-Model-Version": snapshot.version}, media_type="text/csv"
    )


@router.get("/projects/{project}/report", summary="The serving version's exploratory report", response_class=HTMLResponse)
async def report(project: str, state: StateDep) -> Response:
    snapshot = state.live.get(project)
    if REPORT_FILE not in snapshot.manifest.files:
        raise NoReport("an imported model comes without the rows that it was fitted on, so there is nothing to report of them")
    headers = {"X-Model-Version": snapshot.version, "Content-Security-Policy": REPORT_POLICY}
    return Response(await _file(state, snapshot, REPORT_FILE), headers=headers, media_type="text/html")


async def _file(state: Services, snapshot: ServedModel, name: str) -> bytes:
    fetch = fetcher(state.pages_store, ModelCache(state.settings.cache))
    return await from_store(read_file, snapshot.manifest, name, fetch)

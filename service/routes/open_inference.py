"""Endpoints of the Open Inference Protocol, version 2."""

from __future__ import annotations

import functools
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from podium import __version__
from podium.inference.json_rows import rows_from_records
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.registry.versions import list_versions
from podium.schema.data_errors import BadData, Problem
from podium.tables.strict_json import decode_json
from service.admission import MODEL
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.errors import UnknownVersion, UnloadNotAllowed
from service.open_inference import HEADER_LENGTH, InferenceRequest, model_metadata, parse_request, render_response
from service.request_bodies import MAX_BYTES_ON_LOOP
from service.routes.promotion import authenticate_promoter
from service.scoring import predict_champion
from service.services import Services, ServicesDep
from service.store_calls import from_store

router = APIRouter(tags=["open inference protocol"])


@router.get("/v2", summary="Server metadata")
async def server() -> dict[str, Any]:
    return {"name": "podium", "version": __version__, "extensions": ["model_repository", "binary_tensor_data"]}


@router.get("/v2/health/live", summary="Server liveness")
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/v2/health/ready", summary="Server readiness")
async def ready(services: ServicesDep) -> Response:
    is_ready = services.ready()
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/v2/models", summary="Deployed models")
async def models(services: ServicesDep) -> dict[str, list[str]]:
    return {"models": [served.project for served in services.live.all()]}


@router.get("/v2/models/{model}", summary="Model metadata")
@router.get("/v2/models/{model}/versions/{version}", summary="Model metadata of a version")
async def metadata(model: str, services: ServicesDep, version: str = "") -> dict[str, Any]:
    """Names, datatypes and shapes of the input and output tensors."""
    served = _find_version(services, model, version)
    return model_metadata(model, served.version, served.signature)


@router.get("/v2/models/{model}/ready", summary="Model readiness")
@router.get("/v2/models/{model}/versions/{version}/ready", summary="Model readiness of a version")
async def model_ready(model: str, services: ServicesDep, version: str = "") -> dict[str, Any]:
    return {"name": _find_version(services, model, version).project, "ready": True}


@router.post("/v2/models/{model}/infer", summary="Predict from tensors")
@router.post("/v2/models/{model}/versions/{version}/infer", summary="Predict from tensors with a given version")
async def infer(model: str, request: Request, services: ServicesDep, version: str = "") -> Response:
    """Send one tensor per column, of shape [n] or [n, 1]; null is a missing value."""
    served = _find_version(services, model, version)
    request.scope[MODEL] = served.project, served.version
    data, parse = await request.body(), functools.partial(_parse, served, request.headers.get(HEADER_LENGTH))
    limit = services.settings.max_records
    on_loop = len(data) <= MAX_BYTES_ON_LOOP
    parsed, rows = parse(data, limit) if on_loop else await run_in_compute_thread(parse, data, limit)
    scores, headers = await predict_champion(services, served, rows, (caller(request.scope), data))
    prediction_id = headers["X-Prediction-Id"]
    facts: dict[str, Any] = {"model_name": model, "model_version": served.version}
    facts |= {"id": parsed.identity or prediction_id, "parameters": {"prediction_id": prediction_id}}
    render = functools.partial(render_response, facts, scores, served.signature, parsed.outputs)
    body, json_length = render() if rows.count <= services.settings.dask_threshold else await run_in_compute_thread(render)
    if json_length is None:
        return Response(body, headers=headers, media_type="application/json")
    return Response(body, headers=headers | {HEADER_LENGTH: str(json_length)}, media_type="application/octet-stream")


def _parse(served: ServedModel, header_length: str | None, data: bytes, max_rows: int) -> tuple[InferenceRequest, ParsedRows]:
    """Parse a request body. Raises BadData."""
    parsed = parse_request(data, header_length, served.signature, max_rows)
    return parsed, rows_from_records(parsed.records, served.signature, max_rows)


@router.post("/v2/repository/index", summary="Repository index")
async def index(request: Request, services: ServicesDep) -> Response:
    """Every version with its state and the reason for it; `{"ready": true}` returns only the deployed versions."""
    data = await request.body()
    body = decode_json(data) if data.strip() else {}
    if not isinstance(body, dict) or not isinstance(body.get("ready", False), bool):
        raise BadData([Problem("invalid-type", "must be an object; `ready`, if given, must be true or false")])
    only_ready = body.get("ready", False)
    projects = sorted({served.project for served in services.live.all()} | set(services.reconciler.failures))
    states: list[dict[str, str]] = []
    for project in projects:
        states += await from_store(_version_states, services, project)
    return JSONResponse([state for state in states if state["state"] == "READY" or not only_ready])


@router.post("/v2/repository/models/{model}/load", summary="Load the current champion")
async def load(model: str, request: Request, services: ServicesDep) -> Response:
    """Checks the object store now. Needs a promoter's token. Only the champion of a project can be loaded."""
    authenticate_promoter(request.headers.get("authorization", ""), services.settings)
    await services.reconciler.poll_once(model)
    services.live.get(model)
    return JSONResponse({})


@router.post("/v2/repository/models/{model}/unload", summary="Not supported: champions stay loaded")
async def unload(model: str, request: Request, services: ServicesDep) -> Response:
    authenticate_promoter(request.headers.get("authorization", ""), services.settings)
    services.live.get(model)
    raise UnloadNotAllowed("a champion cannot be unloaded; promote another version or roll back instead")


def _find_version(services: Services, model: str, version: str) -> ServedModel:
    """Return the model. Raises UnknownProject, UnknownVersion, ModelNotReady."""
    served = services.live.get(model)
    if version and version != served.version:
        raise UnknownVersion(f"version {version[:100]} is not loaded (serving: {served.version})")
    return served


def _version_states(services: Services, project: str) -> list[dict[str, str]]:
    """Return the state of each version; blocks on the store."""
    served = services.live.find(project)
    failure = services.reconciler.failures.get(project, "")
    return [
        {
            "name": project,
            "version": version,
            "state": "READY" if served and served.version == version else "UNAVAILABLE",
            "reason": "" if served and served.version == version else failure or "not the champion",
        }
        for version in list_versions(services.pages_store, project)
    ]

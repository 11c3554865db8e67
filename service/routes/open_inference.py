"""Endpoints for clients of other servers: the Open Inference Protocol v2, and MLflow's /invocations."""

from __future__ import annotations

import functools
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from podium import __version__
from podium.inference.json_rows import rows_from_records
from podium.inference.panel import forecasts
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.inference.table_rows import rows_from_table
from podium.models.model import predicted_label
from podium.registry.versions import list_versions
from podium.schema.data_errors import BadData, Problem
from podium.tables.strict_json import decode_json
from service.admission import MODEL
from service.compute_threads import run_in_compute_thread
from service.mlflow import parse_mlflow_records as mlflow_records
from service.open_inference import HEADER_LENGTH, InferenceRequest, model_metadata, parse_request, response
from service.problems import NotUnloaded, UnknownVersion, UnsupportedMedia
from service.request_bodies import SMALL
from service.responses import answer_headers, json_number, prediction_id
from service.routes.promotion import promoter
from service.scoring import run_models
from service.services import Services, StateDep
from service.store_calls import from_store

router = APIRouter(tags=["standard clients"])


@router.get("/v2", summary="The server")
async def server() -> dict[str, Any]:
    return {"name": "podium", "version": __version__, "extensions": ["model_repository", "binary_tensor_data"]}


@router.get("/v2/health/live", summary="The process runs")
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/v2/health/ready", summary="Every champion is in service; the status says so too")
async def ready(state: StateDep) -> Response:
    found = state.ready()
    return JSONResponse({"ready": found}, 200 if found else 503)


@router.get("/v2/models", summary="The models in service")
async def models(state: StateDep) -> dict[str, list[str]]:
    return {"models": [snapshot.project for snapshot in state.live.all()]}


@router.get("/v2/models/{model}", summary="A model's tensors")
@router.get("/v2/models/{model}/versions/{version}", summary="A version's tensors")
async def metadata(model: str, state: StateDep, version: str = "") -> dict[str, Any]:
    snapshot = _snapshot(state, model, version)
    return model_metadata(model, snapshot.version, snapshot.signature)


@router.get("/v2/models/{model}/ready", summary="Whether a model is in service")
@router.get("/v2/models/{model}/versions/{version}/ready", summary="Whether a version is in service")
async def model_ready(model: str, state: StateDep, version: str = "") -> dict[str, Any]:
    return {"name": _snapshot(state, model, version).project, "ready": True}


@router.post("/v2/models/{model}/infer", summary="Predict, tensors in and out")
@router.post("/v2/models/{model}/versions/{version}/infer", summary="Predict by a version, if it is in service")
async def infer(model: str, request: Request, state: StateDep, version: str = "") -> Response:
    """One tensor a column, of the shape [n] or [n, 1]; null is a missing value."""
    snapshot = _snapshot(state, model, version)
    request.scope[MODEL] = snapshot.project, snapshot.version
    data, parse = await request.body(), functools.partial(_asked, snapshot, request.headers.get(HEADER_LENGTH))
    most = state.settings.max_records
    asked, inputs = parse(data, most) if len(data) <= SMALL else await run_in_compute_thread(parse, data, most)
    scores, headers = await _scored(state, snapshot, inputs)
    facts: dict[str, Any] = {"model_name": model, "model_version": snapshot.version}
    facts |= {"id": asked.identity or headers["X-Prediction-Id"], "parameters": {"prediction_id": headers["X-Prediction-Id"]}}
    render = functools.partial(response, facts, scores, snapshot.signature, asked.outputs)
    body, length = render() if inputs.count <= state.settings.dask_threshold else await run_in_compute_thread(render)
    if length is None:
        return Response(body, headers=headers, media_type="application/json")
    return Response(body, headers=headers | {HEADER_LENGTH: str(length)}, media_type="application/octet-stream")


def _asked(snapshot: ServedModel, header_length: str | None, data: bytes, most: int) -> tuple[InferenceRequest, ParsedRows]:
    """Raises BadData."""
    asked = parse_request(data, header_length, snapshot.signature, most)
    return asked, rows_from_records(asked.records, snapshot.signature, most)


@router.post("/v2/repository/index", summary="Every version with its state and the reason")
async def index(request: Request, state: StateDep) -> Response:
    """`{"ready": true}` for those in service only."""
    data = await request.body()
    body = decode_json(data) if data.strip() else {}
    if not isinstance(body, dict) or not isinstance(body.get("ready", False), bool):
        raise BadData([Problem("invalid-type", "must be an object; `ready` is true or false")])
    only = body.get("ready", False)
    names = sorted({snapshot.project for snapshot in state.live.all()} | set(state.reconcile.failures))
    found: list[dict[str, str]] = []
    for name in names:
        found += await from_store(_states, state, name)
    return JSONResponse([each for each in found if each["state"] == "READY" or not only])


@router.post("/v2/repository/models/{model}/load", summary="Look at the store now (a promoter's token)")
async def load(model: str, request: Request, state: StateDep) -> Response:
    """What is loaded is the champion, and nothing else."""
    promoter(request.headers.get("authorization", ""), state.settings)
    await state.reconcile.look(model)
    state.live.get(model)
    return JSONResponse({})


@router.post("/v2/repository/models/{model}/unload", summary="Refused: a champion stays in service")
async def unload(model: str, request: Request, state: StateDep) -> Response:
    promoter(request.headers.get("authorization", ""), state.settings)
    state.live.get(model)
    raise NotUnloaded("a champion stays in service; promote or roll back instead")


@router.post("/invocations", summary="Predict as MLflow's scoring server does")
async def invocations(request: Request, state: StateDep, project: str = "") -> Response:
    """dataframe_split, dataframe_records, instances, inputs, or CSV; the default project, or `?project=`."""
    snapshot = state.live.get(project) if project else state.live.default()
    request.scope[MODEL] = snapshot.project, snapshot.version
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in ("application/json", "text/csv"):
        raise UnsupportedMedia("send application/json or text/csv")
    inputs = await run_in_compute_thread(_mlflow_inputs, await request.body(), media, snapshot, state.settings.max_records)
    scores, headers = await _scored(state, snapshot, inputs)
    few = inputs.count <= state.settings.dask_threshold
    body = _mlflow_answer(scores, snapshot) if few else await run_in_compute_thread(_mlflow_answer, scores, snapshot)
    return Response(body, headers=headers, media_type="application/json")


def _mlflow_answer(scores: Any, snapshot: ServedModel) -> bytes:
    target = snapshot.signature.target
    return json.dumps({"predictions": [json_number(predicted_label(list(map(float, row)), target)) for row in scores]}).encode()


def _mlflow_inputs(data: bytes, media: str, snapshot: ServedModel, most: int) -> ParsedRows:
    if media == "text/csv":
        return rows_from_table(data, snapshot.signature, most)
    return rows_from_records(mlflow_records(decode_json(data), snapshot.signature), snapshot.signature, most)


async def _scored(state: Services, snapshot: ServedModel, inputs: ParsedRows) -> tuple[Any, dict[str, str]]:
    found = await run_models(snapshot, [snapshot.champion], inputs, state.spread, state.settings.dask_threshold)
    state.metrics.rows[snapshot.project] += inputs.count
    scores: Any = found[snapshot.champion]
    if snapshot.signature.panel:
        scores = forecasts(snapshot.signature.panel, inputs, found)[snapshot.champion].value.reshape(-1, 1)
    return scores, answer_headers(snapshot, prediction_id())


def _snapshot(state: Services, model: str, version: str) -> ServedModel:
    """Raises UnknownProject, UnknownVersion."""
    snapshot = state.live.get(model)
    if version and version != snapshot.version:
        raise UnknownVersion(f"in service is {snapshot.version}; other versions are not loaded")
    return snapshot


def _states(state: Services, name: str) -> list[dict[str, str]]:
    """A model's versions; blocks on the store."""
    serving = state.live.find(name)
    failure = state.reconcile.failures.get(name, "")
    return [
        {
            "name": name,
            "version": version,
            "state": "READY" if serving and serving.version == version else "UNAVAILABLE",
            "reason": "" if serving and serving.version == version else failure or "not the champion",
        }
        for version in list_versions(state.pages_store, name)
    ]

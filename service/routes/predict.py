"""Predictions: records, lists, arrays, forms and files in; JSON, CSV or a page out."""

from __future__ import annotations

from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.concurrency import run_in_threadpool

from podium.data.problems import BadData
from service.answers import answer_headers, json_answer, prediction_id
from service.bodies import Body, parse, read_body
from service.inputs import Inputs
from service.live import Snapshot
from service.negotiation import negotiated
from service.predictions import Scores, score
from service.problems import bad_data
from service.state import State, StateDep
from service.tables import result_table, to_csv

router = APIRouter(tags=["predictions"])
SUFFIXES = ("", ".json", ".csv", ".html")
Models = Annotated[str, Query(description="champion, all, or a family's name; champion for JSON and CSV, all for pages")]


async def predict(request: Request, state: StateDep, project: str = "", models: Models = "", raw: bool = False) -> Response:
    """One record, a list of records, bare array(s) in training order, a CSV or Parquet table, or a form.

    JSON unless `Accept` or a suffix (`.json`, `.csv`, `.html`) asks otherwise. More than ten records are spread over Dask.
    """
    snapshot = state.live.get(project) if project else state.live.default()
    body = await read_body(request)
    suffix = "." + request.url.path.rsplit(".", 1)[-1] if request.url.path.endswith(SUFFIXES[1:]) else ""
    form = negotiated(suffix, request.headers.get("accept", ""), "html" if body.is_form else "json")
    families = snapshot.families(models or ("all" if form == "html" else "champion"))
    try:
        inputs = await parse(body, snapshot.signature, state.settings.most_records)
    except BadData as error:
        return _form_again(error, request, state, snapshot, body) if form == "html" else bad_data(error, request)
    scores = await score(snapshot, families, inputs, state.spread, state.settings.dask_threshold)
    state.served(snapshot)
    identity = prediction_id()
    headers = answer_headers(snapshot, identity)
    if form == "json":
        return Response(json_answer(snapshot, identity, scores, inputs.warnings), 200, headers, "application/json")
    table = await run_in_threadpool(result_table, inputs.table, scores, snapshot.signature.target)
    download = await run_in_threadpool(to_csv, table, raw=raw)
    if form == "csv":
        return Response(download, 200, headers | _as_file(snapshot), "text/csv")
    return _page(request, state, snapshot, body, inputs, scores, table, state.results.put(download, headers), headers)


def _page(
    request: Request,
    state: State,
    snapshot: Snapshot,
    body: Body,
    inputs: Inputs,
    scores: Scores,
    table: pa.Table,
    result: str,
    headers: dict[str, str],
) -> Response:
    shown: dict[str, Any] = {
        "scores": scores,
        "table": table,
        "download": f"/jobs/{result}/result.csv",
        "warnings": inputs.warnings,
    }
    html = state.pages.project(snapshot, values=body.fields, result=shown, single=not body.is_upload)
    return Response(html, 200, headers, "text/html")


def _form_again(error: BadData, request: Request, state: State, snapshot: Snapshot, body: Body) -> Response:
    html = state.pages.project(snapshot, values=body.fields, problems=error.problems)
    return Response(html, error.status, {"X-Model-Version": snapshot.version}, "text/html")


def _as_file(snapshot: Snapshot) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{snapshot.project}-predictions.csv"'}


for suffix in SUFFIXES:
    for path in (f"/projects/{{project}}/predict{suffix}", f"/projects/{{project}}/batch{suffix}", f"/predict{suffix}"):
        router.add_api_route(
            path,
            predict,
            methods=["POST"],
            response_class=Response,
            include_in_schema=not suffix,
            name=path,
            summary="Predict"
            + (" for a file" if "batch" in path else "")
            + (" with the default project" if "{" not in path else ""),
        )


@router.get("/jobs/{job}/result.csv", summary="A result as CSV", response_class=FileResponse)
async def result(job: str, state: StateDep) -> FileResponse:
    path, headers = state.results.get(job)
    return FileResponse(path, media_type="text/csv", filename="predictions.csv", headers=headers)

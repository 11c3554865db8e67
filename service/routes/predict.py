"""Predictions: records, lists, arrays, forms and files in; JSON, CSV or a page out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response

from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.inference.result_tables import result_table, table_to_csv, table_to_parquet
from podium.inference.served_model import ServedModel
from podium.schema.data_errors import BadData, Problem, TooLarge
from service.admission import MODEL, client_disconnected
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.negotiation import SUFFIXES, Form, negotiate
from service.problems import UnknownResult, bad_data
from service.request_bodies import Body, parse, query_body, read_body
from service.responses import answer_headers, json_answer, prediction_id
from service.scoring import Found, run_models
from service.services import Services, StateDep

router = APIRouter(tags=["predictions"])

MAX_ANSWER_ROWS = 100_000
"""Of an answer that is made in memory as one text."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may ask for in its query."""

    models: Annotated[str, Query(description="champion, all, or a family's name; champion for programs, all for pages")] = ""
    on_error: Annotated[Literal["all", "row"], Query(description="a wrong row refuses all, or only itself")] = "all"
    inputs: Annotated[bool, Query(description="give back what the model took, sorted by name (JSON)")] = False
    extra: Annotated[Literal["refuse", "keep"], Query(description="columns that the model does not know")] = "refuse"
    delimiter: Annotated[Literal[",", ";", "tab", "|"], Query(description="what separates the cells of a CSV")] = ","
    raw: Annotated[bool, Query(description="leave texts that a spreadsheet would run as they are")] = False

    @property
    def asked(self) -> ParseOptions:
        delimiter = "\t" if self.delimiter == "tab" else self.delimiter
        return ParseOptions(self.on_error == "row", self.extra == "keep", delimiter=delimiter)


OPTIONS = {field.name for field in fields(Options)}


async def predict(request: Request, state: StateDep, options: Annotated[Options, Depends()]) -> Response:
    """One record, a list of records, bare array(s) in training order, a CSV or Parquet table, or a form; with GET, the fields
    of one record in the query.

    JSON unless `Accept` or a suffix (`.json`, `.csv`, `.html`, `.parquet`) asks otherwise. More than ten records are spread
    over Dask.
    """
    project = request.path_params.get("project")
    snapshot = state.live.default() if project is None else state.live.get(project)
    request.scope[MODEL] = snapshot.project, snapshot.version
    suffix = next((each for each in SUFFIXES if request.url.path.endswith(each)), "")
    new_upload = functools.partial(state.jobs.new_upload, caller(request.scope))
    spool = new_upload if request.url.path.removesuffix(suffix).endswith("/batch") else None
    form_of = functools.partial(negotiate, suffix, request.headers.get("accept", ""))
    if form_of("json") == "html" and request.method == "GET" and not request.url.query:
        return RedirectResponse(f"/projects/{snapshot.project}", 303)  # a result page that is loaded again
    snapshot.families(options.models or "all")
    if request.method == "POST":
        body = await read_body(request, len(snapshot.signature.inputs), spool, state.settings.async_threshold_bytes)
    elif snapshot.signature.panel:
        raise BadData([Problem("panel-rows", "a forecast needs several rows: POST them as JSON, CSV or a form")])
    else:
        body = query_body(request, OPTIONS - set(snapshot.signature.names))
    form = form_of("html" if body.is_form and request.method == "POST" else "json")
    if form == "html" and body.is_upload and "extra" not in request.query_params:
        options = replace(options, extra="keep")
    families = snapshot.families(options.models or ("all" if form == "html" else "champion"))
    if body.path:
        return _as_job(state, snapshot, families, body, options, form)
    try:
        inputs = await parse(body, snapshot.signature, state.settings.max_records, options.asked)
    except BadData as error:
        return _render_form_errors(error, request, state, snapshot, body) if form == "html" else bad_data(error, request)
    if form in ("json", "html") and inputs.total > MAX_ANSWER_ROWS:
        said = (
            f"an answer as {form.upper()} has at most {MAX_ANSWER_ROWS} rows: ask for CSV or Parquet, or send a file to /batch"
        )
        return bad_data(TooLarge([Problem("too-many-rows", said)]), request)
    scores = await run_models(
        snapshot, families, inputs, state.spread, state.settings.dask_threshold, lambda: client_disconnected(request.scope)
    )
    state.metrics.rows[snapshot.project] += inputs.count
    done = Predicted(snapshot, body, inputs, scores, answer_headers(snapshot, prediction_id()), options, caller(request.scope))
    if form == "json" and inputs.total <= state.settings.dask_threshold:
        return _json(state, done)
    return await run_in_compute_thread(RENDERERS[form], state, done)


def _as_job(state: Services, snapshot: ServedModel, families: list[str], body: Body, options: Options, form: Form) -> Response:
    """202, and where to look; a browser is sent there."""
    assert body.path
    headers = answer_headers(snapshot, prediction_id())
    asked = replace(options.asked, gzipped=body.gzipped)
    facts = state.jobs.start(body.path, snapshot, families, asked, options.raw, headers)
    place = f"/jobs/{facts['job']}"
    if form == "html":
        return Response(None, 303, {**headers, "Location": place})
    return JSONResponse(facts, 202, {**headers, "Location": place, "Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class Predicted:
    """A request and what was predicted for it."""

    snapshot: ServedModel
    body: Body
    inputs: ParsedRows
    scores: Found
    headers: dict[str, str]
    options: Options
    owner: str

    def table(self) -> pa.Table:
        return result_table(self.snapshot, self.inputs, self.scores)


def _json(state: Services, done: Predicted) -> Response:
    payload = json_answer(done.snapshot, done.headers["X-Prediction-Id"], done.scores, done.inputs, done.options.inputs)
    return Response(payload, 200, done.headers, "application/json")


def _csv(state: Services, done: Predicted) -> Response:
    return Response(table_to_csv(done.table(), raw=done.options.raw), 200, _file_headers(done, "csv"), "text/csv")


def _parquet(state: Services, done: Predicted) -> Response:
    return Response(table_to_parquet(done.table()), 200, _file_headers(done, "parquet"), "application/vnd.apache.parquet")


def _file_headers(done: Predicted, kind: str) -> dict[str, str]:
    named = {"Content-Disposition": f'attachment; filename="{done.snapshot.project}-predictions.{kind}"'}
    return done.headers | named | {"X-Prediction-Warnings": str(len(done.inputs.warnings))}


def _page(state: Services, done: Predicted) -> Response:
    table = done.table()
    download = (
        f"/jobs/{state.shared.keep_result(table_to_csv(table, raw=done.options.raw), done.headers, done.owner)}/result.csv"
    )
    column = table.column_names[done.inputs.as_table().num_columns]
    facts = {"warnings": done.inputs.warnings, "champion_column": column}
    shown: dict[str, Any] = {"scores": done.scores, "table": table, "download": download, **facts}
    html = state.pages.project(
        done.snapshot,
        values=done.body.fields,
        result=shown,
        single=done.inputs.total == done.inputs.count == 1 and not done.body.is_upload,
    )
    return Response(html, 200, done.headers, "text/html")


RENDERERS: dict[Form, Callable[[Services, Predicted], Response]] = {
    "json": _json,
    "csv": _csv,
    "html": _page,
    "parquet": _parquet,
}


def _render_form_errors(error: BadData, request: Request, state: Services, snapshot: ServedModel, body: Body) -> Response:
    html = state.pages.project(snapshot, values=body.fields, problems=error.problems)
    return Response(html, error.status, {"X-Model-Version": snapshot.version}, "text/html")


for suffix in ("", *SUFFIXES):
    for path in (f"/projects/{{project}}/predict{suffix}", f"/projects/{{project}}/batch{suffix}", f"/predict{suffix}"):
        router.add_api_route(
            path,
            predict,
            methods=["POST"] if "batch" in path else ["POST", "GET"],
            response_class=Response,
            include_in_schema=not suffix,
            name=path,
            summary="Predict"
            + (" for a file" if "batch" in path else "")
            + (" with the default project" if "{" not in path else ""),
        )


@router.get("/jobs/{job}", summary="How far a job is; a page for browsers", response_class=Response)
async def job_state(job: str, request: Request, state: StateDep) -> Response:
    found = state.jobs.get(job, caller(request.scope))
    if negotiate("", request.headers.get("accept", ""), "json") == "html":
        return Response(state.pages.job(found.facts), media_type="text/html")
    return JSONResponse(found.facts, headers=found.headers)


@router.delete("/jobs/{job}", status_code=204, summary="Cancel a job, or remove a finished one with its result")
async def cancel_job(job: str, request: Request, state: StateDep) -> Response:
    state.jobs.cancel(job, caller(request.scope))
    return Response(status_code=204)


@router.get("/jobs/{job}/result.csv", summary="A result as CSV", response_class=FileResponse)
async def result(job: str, request: Request, state: StateDep) -> FileResponse:
    owner = caller(request.scope)
    try:
        path, headers = state.shared.result(job, owner)
    except UnknownResult:
        path, headers = state.jobs.result(job, owner)
    return FileResponse(path, media_type="text/csv", filename="predictions.csv", headers=headers)

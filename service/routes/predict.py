"""Prediction endpoints: records, arrays, forms and files in; JSON, CSV, Parquet or a page out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from podium.inference.explanations import MAX_EXPLAINED, Explanation
from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.inference.result_tables import number_columns, result_table, table_to_csv, table_to_parquet
from podium.inference.served_model import ServedModel
from podium.schema.data_errors import BadData, Problem, TooLarge
from service.admission import MODEL, client_disconnected
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.errors import NotExplained, UnknownResult
from service.jobs import JobRequest
from service.json_renderer import prediction_rows, renderer_for
from service.negotiation import SUFFIXES, Format, negotiate
from service.problems import invalid_input, problem_response
from service.request_bodies import RECORD, Body, Spool, parse_rows, query_body, read_body
from service.responses import new_prediction_id, prediction_headers
from service.scoring import FamilyScores, explain, log_prediction, run_models
from service.services import Services, ServicesDep, get_services

router = APIRouter(tags=["predictions"])

MAX_RESPONSE_ROWS = 100_000
"""Maximum rows of a JSON or HTML response, which is built in memory."""


@dataclass(frozen=True, slots=True)
class Options:
    """The query parameters of a prediction."""

    models: Annotated[
        str, Query(description="`champion`, `all`, or a model family; pages default to `all`, other formats to `champion`")
    ] = ""
    on_error: Annotated[Literal["all", "row"], Query(description="On an invalid row: fail the request, or only that row")] = (
        "all"
    )
    inputs: Annotated[bool, Query(description="Include the parsed inputs in the response (JSON only)")] = False
    explain: Annotated[
        int, Query(ge=0, le=MAX_EXPLAINED, description="Number of inputs whose contributions to explain (JSON only)")
    ] = 0
    extra: Annotated[
        Literal["refuse", "keep"], Query(description="Unknown columns: reject the request, or return them unchanged")
    ] = "refuse"
    delimiter: Annotated[Literal[",", ";", "tab", "|"] | None, Query(description="CSV delimiter, detected by default")] = None
    raw: Annotated[bool, Query(description="Don't escape cells that a spreadsheet could execute as formulas")] = False

    @property
    def parsing(self) -> ParseOptions:
        delimiter = "\t" if self.delimiter == "tab" else self.delimiter
        return ParseOptions(self.on_error == "row", self.extra == "keep", delimiter=delimiter)


OPTION_NAMES = {field.name for field in fields(Options)}


@dataclass(frozen=True, slots=True)
class PredictionCall:
    """A prediction request before its body is parsed."""

    request: Request
    services: Services
    served: ServedModel
    options: Options
    suffix: str

    @classmethod
    def of(cls, request: Request, services: Services, options: Options) -> PredictionCall:
        """Resolve the project and the format suffix of a request. Raises UnknownProject, ModelNotReady."""
        project = request.path_params.get("project")
        served = services.live.default() if project is None else services.live.get(project)
        request.scope[MODEL] = served.project, served.version
        suffix = next((suffix for suffix in SUFFIXES if request.url.path.endswith(suffix)), "")
        return cls(request, services, served, options, suffix)

    @property
    def owner(self) -> str:
        return caller(self.request.scope)

    def format(self, default: Format) -> Format:
        """Return the format of the response. Raises NotAcceptable."""
        return negotiate(self.suffix, self.request.headers.get("accept", ""), default)

    async def body(self) -> Body:
        """Read the body, or the query of a GET. Raises BadData, UnsupportedMedia, CrossSite, StorageFull, TooManyJobs."""
        signature = self.served.signature
        if self.request.method == "POST":
            return await read_body(self.request, len(signature.inputs), self._spool())
        if signature.panel:
            raise BadData([Problem("panel-rows", "a forecast needs several rows: POST them as JSON, CSV or a form")])
        return query_body(self.request, OPTION_NAMES - set(signature.names))

    def _spool(self) -> Spool | None:
        """Return where /batch writes large files, which become jobs; None for other paths."""
        if not self.request.url.path.removesuffix(self.suffix).endswith("/batch"):
            return None
        new_upload = functools.partial(self.services.jobs.new_upload, self.owner)
        return Spool(new_upload, self.services.settings.async_threshold_bytes)


class RecordRoute(APIRoute):
    """In the query of a GET, a name that is both a parameter and a column is the column."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_record(request: Request) -> Response:
            services = get_services(request)
            served = services.live.find(request.path_params.get("project", ""))
            columns = OPTION_NAMES & set(served.signature.names) if served and request.method == "GET" else None
            if columns:
                request.scope[RECORD] = pairs = request.query_params.multi_items()
                options = urlencode([(name, value) for name, value in pairs if name not in columns])
                request.scope["query_string"] = options.encode()
                request = Request(request.scope, request.receive)
            return await handle(request)

        return handle_record


async def predict(request: Request, services: ServicesDep, options: Annotated[Options, Depends()]) -> Response:
    """Send a record, a list of records, bare arrays in training order, a CSV or Parquet table, or a form.

    A GET takes the fields of one record as query parameters. The response is JSON unless `Accept` or a suffix (`.json`,
    `.csv`, `.html`, `.parquet`) selects another format.
    """
    call = PredictionCall.of(request, services, options)
    served = call.served
    if call.format("json") == "html" and request.method == "GET" and not (request.url.query or RECORD in request.scope):
        return RedirectResponse(f"/projects/{served.project}", 303)  # the browser reloaded a result page
    served.families(options.models or "all")  # fail before the body is read
    body = await call.body()
    format_ = call.format("html" if body.is_form and request.method == "POST" else "json")
    if format_ == "html" and body.is_upload and "extra" not in request.query_params:
        options = replace(options, extra="keep")
    if options.explain and (body.path or format_ != "json" or served.signature.panel):
        raise NotExplained("explanations are available in the JSON responses of /predict, except for panels")
    families = served.families(options.models or ("all" if format_ == "html" else "champion"))
    if body.path:
        return _start_job(call, families, replace(options.parsing, gzipped=body.gzipped), body, format_)
    try:
        rows = await parse_rows(body, served.signature, services.settings.max_records, options.parsing)
    except BadData as error:
        if format_ == "html":
            return _render_form_errors(error, services, served, body)
        return problem_response(invalid_input(error), request)
    _check_response_size(format_, rows.total)
    scores = await run_models(services, served, families, rows, lambda: client_disconnected(request.scope))
    explanations = await explain(served, rows, scores, options.explain)
    services.metrics.rows[served.project] += rows.count
    origin = call.owner, body.data or repr(sorted(body.fields.items())).encode()
    headers = prediction_headers(served, await log_prediction(services, served, scores, rows, origin))
    predicted = Predicted(served, body, rows, scores, explanations, headers, options, call.owner)
    if format_ == "json" and rows.total <= services.settings.dask_threshold:
        return _json(services, predicted)
    return await run_in_compute_thread(RENDERERS[format_], services, predicted)


def _check_response_size(format_: Format, rows: int) -> None:
    """Check the number of rows in a response. Raises TooLarge."""
    if format_ in ("json", "html") and rows > MAX_RESPONSE_ROWS:
        message = f"a response in {format_.upper()} may have at most {MAX_RESPONSE_ROWS} rows: use CSV, Parquet or /batch"
        raise TooLarge([Problem("too-many-rows", message)])


def _start_job(call: PredictionCall, families: list[str], options: ParseOptions, body: Body, format_: Format) -> Response:
    """Return 202 with the URL of the job, or redirect a browser to it."""
    assert body.path
    headers = prediction_headers(call.served, new_prediction_id())
    if call.services.predictions.is_on:
        del headers["X-Prediction-Id"]  # its rows have ids of their own, which the job lists
    request = JobRequest(call.served, call.owner, families, options, call.options.raw, headers)
    facts = call.services.jobs.start(body.path, request)
    location = f"/jobs/{facts['job']}"
    if format_ == "html":
        return Response(None, 303, {**headers, "Location": location})
    return JSONResponse(facts, 202, {**headers, "Location": location, "Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class Predicted:
    """The rows of a request with their scores, ready to render."""

    served: ServedModel
    body: Body
    rows: ParsedRows
    scores: FamilyScores
    explanations: Sequence[Explanation]
    headers: dict[str, str]
    options: Options
    owner: str

    def table(self) -> pa.Table:
        return result_table(self.served, self.rows, self.scores)


def _json(services: Services, predicted: Predicted) -> Response:
    served, scores, rows = predicted.served, predicted.scores, predicted.rows
    objects = prediction_rows(served, scores, rows, predicted.options.inputs, predicted.explanations)
    payload = renderer_for(served).response(next(iter(scores)), objects, predicted.headers["X-Prediction-Id"], rows.warnings)
    return Response(payload.encode(), 200, predicted.headers, "application/json")


def _csv(services: Services, predicted: Predicted) -> Response:
    numbers = number_columns(predicted.served.signature, predicted.rows)
    csv = table_to_csv(predicted.table(), raw=predicted.options.raw, numbers=numbers)
    return Response(csv, 200, _file_headers(predicted, "csv"), "text/csv")


def _parquet(services: Services, predicted: Predicted) -> Response:
    parquet = table_to_parquet(predicted.table())
    return Response(parquet, 200, _file_headers(predicted, "parquet"), "application/vnd.apache.parquet")


def _file_headers(predicted: Predicted, extension: str) -> dict[str, str]:
    disposition = f'attachment; filename="{predicted.served.project}-predictions.{extension}"'
    warnings = str(len(predicted.rows.warnings))
    return predicted.headers | {"Content-Disposition": disposition, "X-Prediction-Warnings": warnings}


def _page(services: Services, predicted: Predicted) -> Response:
    table, rows = predicted.table(), predicted.rows
    csv = table_to_csv(table, raw=predicted.options.raw)
    result_id = services.directory.store_result(csv, predicted.headers, predicted.owner)
    result: dict[str, Any] = {
        "scores": predicted.scores,
        "table": table,
        "download": f"/jobs/{result_id}/result.csv",
        "warnings": rows.warnings,
        "champion_column": table.column_names[rows.as_table().num_columns],
    }
    html = services.pages.project(
        predicted.served,
        values=predicted.body.fields,
        result=result,
        single=rows.total == rows.count == 1 and not predicted.body.is_upload,
    )
    return Response(html, 200, predicted.headers, "text/html")


RENDERERS: dict[Format, Callable[[Services, Predicted], Response]] = {
    "json": _json,
    "csv": _csv,
    "html": _page,
    "parquet": _parquet,
}


def _render_form_errors(error: BadData, services: Services, served: ServedModel, body: Body) -> Response:
    html = services.pages.project(served, values=body.fields, problems=error.problems)
    return Response(html, error.status, {"X-Model-Version": served.version}, "text/html")


SUMMARIES = {
    "/projects/{project}/predict": "Predict",
    "/projects/{project}/batch": "Predict a file",
    "/predict": "Predict with the default project",
}
for path, summary in SUMMARIES.items():
    for suffix in ("", *SUFFIXES):
        router.add_api_route(
            path + suffix,
            predict,
            methods=["POST"] if path.endswith("/batch") else ["POST", "GET"],
            response_class=Response,
            include_in_schema=not suffix,
            name=path + suffix,
            summary=summary,
            route_class_override=RecordRoute,
        )


@router.get("/jobs/{job}", summary="Job progress (JSON or HTML)", response_class=Response)
async def job_state(job: str, request: Request, services: ServicesDep) -> Response:
    record = services.jobs.get(job, caller(request.scope))
    if negotiate("", request.headers.get("accept", ""), "json") == "html":
        return Response(services.pages.job(record.facts), media_type="text/html")
    return JSONResponse(record.facts, headers=record.headers)


@router.delete("/jobs/{job}", status_code=204, summary="Cancel a job, or delete a finished one with its result")
async def cancel_job(job: str, request: Request, services: ServicesDep) -> Response:
    services.jobs.cancel(job, caller(request.scope))
    return Response(status_code=204)


@router.get("/jobs/{job}/result.csv", summary="Download a result as CSV", response_class=FileResponse)
async def result(job: str, request: Request, services: ServicesDep) -> FileResponse:
    owner = caller(request.scope)
    try:
        path, headers = services.directory.result(job, owner)
    except UnknownResult:
        path, headers = services.jobs.result(job, owner)
    return FileResponse(path, media_type="text/csv", filename="predictions.csv", headers=headers)

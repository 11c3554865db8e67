"""The description of the API as OpenAPI 3.1, with typed requests and answers of every project in service."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from podium.inference.served_model import ServedModel
from service import openapi_models
from service.active_models import ActiveModels
from service.admission import HEALTH
from service.authentication import PUBLIC_PATHS, SIGNED_PATHS
from service.json_schemas import CELL, prediction_schemas, query_parameters, record_schema, records_schema
from service.open_inference import HEADER_LENGTH
from service.problems import MEDIA_TYPE
from service.settings import ServiceSettings

JSON, CSV, HTML, PARQUET = "application/json", "text/csv", "text/html", "application/vnd.apache.parquet"
TEXT: dict[str, Any] = {"type": "string"}
BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
OBJECT: dict[str, Any] = {"type": "object"}
Answer = Mapping[str, type[BaseModel] | dict[str, Any]]
"""The schema of each media type of a successful answer."""

PREDICTIONS: Answer = {JSON: openapi_models.Predictions, CSV: TEXT, HTML: TEXT, PARQUET: BYTES}
ANSWERS: dict[str, Answer] = {
    "/livez": {JSON: openapi_models.Alive},
    "/readyz": {JSON: openapi_models.Ready},
    "/status": {JSON: openapi_models.Status, HTML: TEXT},
    "/metrics": {"text/plain": TEXT},
    "/refresh": {JSON: openapi_models.StoreCheck},
    "/jobs/{job}": {JSON: openapi_models.Job, HTML: TEXT},
    "/jobs/{job}/result.csv": {CSV: TEXT},
    "/projects/{project}/schema": {JSON: OBJECT, HTML: TEXT},
    "/projects/{project}/versions": {JSON: openapi_models.Versions, HTML: TEXT},
    "/projects/{project}/card": {JSON: OBJECT, HTML: TEXT},
    "/projects/{project}/history": {JSON: openapi_models.History, HTML: TEXT},
    "/projects/{project}/promote": {JSON: openapi_models.AuditEntryModel},
    "/projects/{project}/rollback": {JSON: openapi_models.AuditEntryModel},
    "/projects/{project}/leaderboard.csv": {CSV: TEXT},
    "/problems": {JSON: openapi_models.ProblemTypes, HTML: TEXT},
    "/problems/{code}": {JSON: openapi_models.ProblemType, HTML: TEXT},
    "/v2": {JSON: openapi_models.Server},
    "/v2/health/live": {JSON: openapi_models.Live},
    "/v2/health/ready": {JSON: openapi_models.ServerReady},
    "/v2/models": {JSON: openapi_models.ModelNames},
    "/v2/models/{model}": {JSON: openapi_models.ModelMetadata},
    "/v2/models/{model}/versions/{version}": {JSON: openapi_models.ModelMetadata},
    "/v2/models/{model}/ready": {JSON: openapi_models.ModelReady},
    "/v2/models/{model}/versions/{version}/ready": {JSON: openapi_models.ModelReady},
    "/v2/models/{model}/infer": {JSON: openapi_models.InferResponse},
    "/v2/models/{model}/versions/{version}/infer": {JSON: openapi_models.InferResponse},
    "/v2/repository/index": {JSON: {"type": "array", "items": {"$ref": "#/components/schemas/ModelState"}}},
    "/v2/repository/models/{model}/load": {JSON: OBJECT},
    "/v2/repository/models/{model}/unload": {JSON: OBJECT},
    "/invocations": {JSON: openapi_models.ScoringResponse},
}
BODIES: dict[str, type[BaseModel]] = {
    "/v2/models/{model}/infer": openapi_models.InferRequest,
    "/v2/models/{model}/versions/{version}/infer": openapi_models.InferRequest,
    "/v2/repository/index": openapi_models.IndexRequest,
    "/invocations": openapi_models.ScoringRequest,
}
OF_PROMOTERS = ("/promote", "/rollback", "/load", "/unload")
"""How the paths end that need a promoter's token."""
SECOND_STATUS: dict[str, tuple[str, str]] = {
    "/refresh": ("202", "A new hint: the service looks at the store"),
    "/v2/health/ready": ("503", "Not ready"),
}
PROJECT = {"name": "project", "in": "path", "required": True, "schema": TEXT}
HEADERS = {
    name: {"schema": TEXT, "description": text}
    for name, text in (("X-Model-Version", "the version that answered"), ("X-Prediction-Id", "the id of this answer"))
}
TABLES = "CSV (`text/csv`), Parquet (`application/vnd.apache.parquet`) and gzipped CSV (`application/gzip`) are taken as well."
RECORD = {**OBJECT, "additionalProperties": CELL, "description": "The fields of a record by name"}


def install_openapi(app: FastAPI, live: ActiveModels, settings: ServiceSettings) -> None:
    """Describe the routes once and the models in service at every call."""
    base: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not base:
            base.update(_base(app, settings))
        document = {**base, "paths": {**base["paths"]}, "components": {**base["components"]}}
        components = {**document["components"]["schemas"]}
        post = base["paths"]["/projects/{project}/predict"]["post"]
        for snapshot in live.all():
            components |= {f"record-{snapshot.project}": record_schema(snapshot), **prediction_schemas(snapshot)}
            document["paths"][f"/projects/{snapshot.project}/predict"] = _operations_of(snapshot, post)
        document["components"]["schemas"] = components
        return document

    app.openapi = described  # type: ignore[method-assign]


def _base(app: FastAPI, settings: ServiceSettings) -> dict[str, Any]:
    """The document without the models in service."""
    with warnings.catch_warnings():  # GET and POST of predictions share a name; GET is described for each project
        warnings.simplefilter("ignore", UserWarning)
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    _, found = models_json_schema(
        [(model, "validation") for model in openapi_models.MODELS], ref_template="#/components/schemas/{model}"
    )
    own = {name: schema for name, schema in components.get("schemas", {}).items() if "ValidationError" not in name}
    components["schemas"] = {**own, **found["$defs"], "Record": RECORD}
    problem = {"description": "A problem", "content": {MEDIA_TYPE: {"schema": _schema(openapi_models.Problem)}}}
    components["responses"] = {"Problem": problem}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe(path, operation)
            _protect(path, operation, settings)
    _describe_predictions(document["paths"])
    components |= {"securitySchemes": _schemes(settings)} if _schemes(settings) else {}
    return document | ({"security": [{"bearer": []}, {"key": []}]} if settings.api_keys else {})


def _describe(path: str, operation: dict[str, Any]) -> None:
    """Bodies and answers; every error is a problem."""
    success = next((status for status in operation["responses"] if status.startswith("2")), "200")
    known = operation["responses"][success]
    if success == "204":
        operation["responses"] = {"204": known, "default": {"$ref": "#/components/responses/Problem"}}
        return
    if path in ANSWERS:
        known = {"description": known.get("description", "Success"), **_answer(ANSWERS[path])}
    operation["responses"] = {"200": known, "default": {"$ref": "#/components/responses/Problem"}}
    if path in SECOND_STATUS:
        status, description = SECOND_STATUS[path]
        operation["responses"][status] = {"description": description, **_answer(ANSWERS[path])}
    if path in BODIES:
        required = path != "/v2/repository/index"
        operation["requestBody"] = {"required": required, "content": {JSON: {"schema": _schema(BODIES[path])}}}
    if path.endswith("/infer"):
        operation["responses"]["200"]["headers"] = HEADERS
        operation["description"] += f" Binary tensors may follow the JSON, whose length is then in {HEADER_LENGTH}."
    if path == "/invocations":
        operation["description"] += " CSV comes as `text/csv`."


def _describe_predictions(paths: dict[str, Any]) -> None:
    """The paths that take any project; those of a project in service are added at every call."""
    for path in ("/projects/{project}/predict", "/projects/{project}/batch", "/predict"):
        post = {**paths[path]["post"], "requestBody": _records_body({"$ref": "#/components/schemas/Record"})}
        post["parameters"] = [*([PROJECT] if "{" in path else []), *post.get("parameters", [])]
        post["description"] = f"{post.get('description', '')}\n\n{TABLES}"
        post["responses"]["200"] = {"description": "The predictions", "headers": HEADERS, **_answer(PREDICTIONS)}
        paths[path] = {"post": post}
    paths["/projects/{project}/batch.json"] = {"post": _upload(paths["/projects/{project}/batch"]["post"])}


def _upload(batch: dict[str, Any]) -> dict[str, Any]:
    """A table as a file, answered as JSON."""
    form = {"type": "object", "required": ["file"], "properties": {"file": {**BYTES, "description": "CSV, .csv.gz or Parquet"}}}
    upload = {**batch, "operationId": "upload", "summary": "Predict for an uploaded table"}
    upload["description"] = "The answer is JSON; a large table is answered with 202 and a job."
    upload["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    done = {"description": "The predictions", "headers": HEADERS, **_answer({JSON: openapi_models.Predictions})}
    job = {"description": "The job; `Location` says where it is", **_answer({JSON: openapi_models.Job})}
    return upload | {"responses": {**batch["responses"], "200": done, "202": job}}


def _operations_of(snapshot: ServedModel, post: dict[str, Any]) -> dict[str, Any]:
    """Predict many records of a project, and, but for a panel, one record in the query."""
    project, target = snapshot.project, snapshot.signature.target.name
    options = [each for each in post["parameters"] if each["in"] == "query"]
    answer = {**PREDICTIONS, JSON: {"$ref": f"#/components/schemas/predictions-{project}"}}
    responses = {**post["responses"], "200": {"description": "The predictions", "headers": HEADERS, **_answer(answer)}}
    own = {**post, "parameters": options, "responses": responses, "operationId": f"predict-{project}"}
    own |= {"summary": f"Predict {target}", "requestBody": _records_body({"$ref": f"#/components/schemas/record-{project}"})}
    if snapshot.signature.panel:
        return {"post": own}
    fields = query_parameters(snapshot)
    others = [each for each in options if each["name"] not in snapshot.signature.names]
    one = {**own, "operationId": f"ask-{project}", "summary": f"{target} of one record", "parameters": [*others, *fields]}
    return {"get": {key: value for key, value in one.items() if key != "requestBody"}, "post": own}


def _records_body(record: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": records_schema(record)}}}


def _answer(answer: Answer) -> dict[str, Any]:
    return {"content": {media: {"schema": _schema(schema)} for media, schema in answer.items()}}


def _schema(schema: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(schema) if isinstance(schema, dict) else {"$ref": f"#/components/schemas/{schema.__name__}"}


def operation_id(route: APIRoute) -> str:
    """A name that no other route has: that of its function, after `v2` and before `version` where the path has these."""
    path = route.path_format
    if path.endswith(("/predict", "/batch")):
        return path.rsplit("/", 1)[1] + ("" if "{" in path else "_default")
    words = ["v2"] if path.startswith("/v2/") else []
    words += [route.endpoint.__name__.strip("_"), *(["version"] if "{version}" in path else [])]
    return "_".join(words)


# --- keys ------------------------------------------------------------------------------------------------------------------


def _schemes(settings: ServiceSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.api_keys:
        found["bearer"] = {"type": "http", "scheme": "bearer", "description": "an API key"}
        found["key"] = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key"}
    if settings.promoters:
        found["promoter"] = {"type": "http", "scheme": "bearer", "description": "the token of a promoter"}
    return found


def _protect(path: str, operation: dict[str, Any], settings: ServiceSettings) -> None:
    """What differs from the rule that every request needs an API key if any are set."""
    if settings.promoters and path.endswith(OF_PROMOTERS):
        operation["security"] = [{"promoter": [], **({"key": []} if settings.api_keys else {})}]
    elif settings.api_keys and (path in HEALTH or path in SIGNED_PATHS or (settings.public_status and path in PUBLIC_PATHS)):
        operation["security"] = []

"""The OpenAPI 3.1 document, with typed requests and responses for every deployed project."""

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
from podium.registry.audit_entry import AuditEntry
from podium.registry.signing import SIGNATURES
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
Content = Mapping[str, type[BaseModel] | dict[str, Any]]
"""Schemas by media type."""

PREDICTIONS: Content = {JSON: openapi_models.Predictions, CSV: TEXT, HTML: TEXT, PARQUET: BYTES}
RESPONSES: dict[str, Content] = {
    "/livez": {JSON: openapi_models.Alive},
    "/readyz": {JSON: openapi_models.Ready},
    "/status": {JSON: openapi_models.Status, HTML: TEXT},
    "/metrics": {"text/plain": TEXT},
    "/refresh": {JSON: openapi_models.StoreCheck},
    "/predictions/{prediction_id}": {JSON: OBJECT, HTML: TEXT},
    "/jobs/{job}": {JSON: openapi_models.Job, HTML: TEXT},
    "/jobs/{job}/result.csv": {CSV: TEXT},
    "/projects/{project}/schema": {JSON: OBJECT, HTML: TEXT},
    "/projects/{project}/versions": {JSON: openapi_models.Versions, HTML: TEXT},
    "/projects/{project}/card": {JSON: OBJECT, HTML: TEXT},
    "/projects/{project}/monitoring": {JSON: OBJECT, HTML: TEXT},
    "/projects/{project}/history": {JSON: openapi_models.History, HTML: TEXT},
    "/projects/{project}/promote": {JSON: AuditEntry},
    "/projects/{project}/rollback": {JSON: AuditEntry},
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
REQUEST_BODIES: dict[str, type[BaseModel]] = {
    "/v2/models/{model}/infer": openapi_models.InferRequest,
    "/v2/models/{model}/versions/{version}/infer": openapi_models.InferRequest,
    "/v2/repository/index": openapi_models.IndexRequest,
    "/invocations": openapi_models.ScoringRequest,
}
OPTIONAL_BODIES = {"/v2/repository/index"}
PROMOTER_SUFFIXES = ("/promote", "/rollback", "/load", "/unload")
"""Suffixes of the paths that need a promoter's token."""
SECOND_STATUS: dict[str, tuple[str, str]] = {
    "/refresh": ("202", "New notification: the service checks the store"),
    "/v2/health/ready": ("503", "Not ready"),
}
PROJECT_PARAMETER = {"name": "project", "in": "path", "required": True, "schema": TEXT}
PREDICTION_HEADERS = {
    "X-Model-Version": {"schema": TEXT, "description": "the version that made the predictions"},
    "X-Prediction-Id": {"schema": TEXT, "description": "unique id of this response"},
}
TABLE_FORMATS = (
    "The body can also be CSV (`text/csv`), Parquet (`application/vnd.apache.parquet`) or gzipped CSV (`application/gzip`)."
)
RECORD = {**OBJECT, "additionalProperties": CELL, "description": "The fields of a record by name"}


def install_openapi(app: FastAPI, live: ActiveModels, settings: ServiceSettings) -> None:
    """Describe the routes once, and the deployed models whenever the document is requested."""
    base: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not base:
            base.update(_base_document(app, settings))
        document = {**base, "paths": {**base["paths"]}, "components": {**base["components"]}}
        schemas = {**document["components"]["schemas"]}
        post = base["paths"]["/projects/{project}/predict"]["post"]
        for served in live.all():
            schemas |= {f"record-{served.project}": record_schema(served), **prediction_schemas(served)}
            document["paths"][f"/projects/{served.project}/predict"] = _project_operations(served, post)
        document["components"]["schemas"] = schemas
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _base_document(app: FastAPI, settings: ServiceSettings) -> dict[str, Any]:
    """Return the document without the deployed models."""
    with warnings.catch_warnings():  # GET and POST of predictions share an id; GET is replaced by that of each project
        warnings.simplefilter("ignore", UserWarning)
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    components["schemas"] = _schemas(components.get("schemas", {}))
    problem = {"description": "Error", "content": {MEDIA_TYPE: {"schema": _schema(openapi_models.Problem)}}}
    components["responses"] = {"Problem": problem}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe_operation(path, operation)
            _describe_security(path, operation, settings)
    _describe_predictions(document["paths"])
    components |= {"securitySchemes": _security_schemes(settings)} if _security_schemes(settings) else {}
    return document | ({"security": [{"bearer": []}, {"key": []}]} if settings.api_keys else {})


def _schemas(generated: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas that FastAPI generated, without its validation errors, and those of the models."""
    _, described = models_json_schema(
        [(model, "validation") for model in openapi_models.MODELS], ref_template="#/components/schemas/{model}"
    )
    definitions = described["$defs"]
    del definitions[AuditEntry.__name__]["properties"][SIGNATURES]  # responses leave it out
    own = {name: schema for name, schema in generated.items() if "ValidationError" not in name}
    return {**own, **definitions, "Record": RECORD}


def _describe_operation(path: str, operation: dict[str, Any]) -> None:
    """Add the schemas of bodies and responses; every error is a problem document."""
    success = next((status for status in operation["responses"] if status.startswith("2")), "200")
    response = operation["responses"][success]
    if success == "204":
        operation["responses"] = {"204": response, "default": {"$ref": "#/components/responses/Problem"}}
        return
    if path in RESPONSES:
        response = {"description": response.get("description", "Success"), **_content(RESPONSES[path])}
    operation["responses"] = {"200": response, "default": {"$ref": "#/components/responses/Problem"}}
    if path in SECOND_STATUS:
        status, description = SECOND_STATUS[path]
        operation["responses"][status] = {"description": description, **_content(RESPONSES[path])}
    if path in REQUEST_BODIES:
        content = {JSON: {"schema": _schema(REQUEST_BODIES[path])}}
        operation["requestBody"] = {"required": path not in OPTIONAL_BODIES, "content": content}
    if path.endswith("/infer"):
        operation["responses"]["200"]["headers"] = PREDICTION_HEADERS
        operation["description"] += f" Binary tensors may follow the JSON; {HEADER_LENGTH} then gives the length of the JSON."
    if path == "/invocations":
        operation["description"] += " The body can also be CSV (`text/csv`)."


def _describe_predictions(paths: dict[str, Any]) -> None:
    """Describe the prediction paths that take any project."""
    for path in ("/projects/{project}/predict", "/projects/{project}/batch", "/predict"):
        post = {**paths[path]["post"], "requestBody": _records_body({"$ref": "#/components/schemas/Record"})}
        post["parameters"] = [*([PROJECT_PARAMETER] if "{" in path else []), *post.get("parameters", [])]
        post["description"] = f"{post.get('description', '')}\n\n{TABLE_FORMATS}"
        post["responses"]["200"] = _predictions_response(PREDICTIONS)
        paths[path] = {"post": post}
    paths["/projects/{project}/batch.json"] = {"post": _upload_operation(paths["/projects/{project}/batch"]["post"])}


def _upload_operation(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that uploads a file and responds with JSON."""
    file = {**BYTES, "description": "CSV, .csv.gz or Parquet"}
    form = {"type": "object", "required": ["file"], "properties": {"file": file}}
    job = {"description": "The job; `Location` is its path", **_content({JSON: openapi_models.Job})}
    predictions = _predictions_response({JSON: openapi_models.Predictions})
    return {
        **batch,
        "operationId": "upload",
        "summary": "Predict an uploaded table",
        "description": "Responds with JSON. A large table becomes a job (202).",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {**batch["responses"], "200": predictions, "202": job},
    }


def _project_operations(served: ServedModel, post: dict[str, Any]) -> dict[str, Any]:
    """Return POST for the records of a deployed project, and GET for one record unless the project is a panel."""
    project, target = served.project, served.signature.target.name
    options = [parameter for parameter in post["parameters"] if parameter["in"] == "query"]
    content = {**PREDICTIONS, JSON: {"$ref": f"#/components/schemas/predictions-{project}"}}
    predict = {
        **post,
        "operationId": f"predict-{project}",
        "summary": f"Predict {target}",
        "parameters": options,
        "requestBody": _records_body({"$ref": f"#/components/schemas/record-{project}"}),
        "responses": {**post["responses"], "200": _predictions_response(content)},
    }
    if served.signature.panel:
        return {"post": predict}
    other_options = [option for option in options if option["name"] not in served.signature.names]
    predict_one = {
        **{key: value for key, value in predict.items() if key != "requestBody"},
        "operationId": f"predict-one-{project}",
        "summary": f"Predict {target} for one record (query parameters)",
        "parameters": [*other_options, *query_parameters(served)],
    }
    return {"get": predict_one, "post": predict}


def _predictions_response(content: Content) -> dict[str, Any]:
    return {"description": "The predictions", "headers": PREDICTION_HEADERS, **_content(content)}


def _records_body(record: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": records_schema(record)}}}


def _content(content: Content) -> dict[str, Any]:
    return {"content": {media_type: {"schema": _schema(schema)} for media_type, schema in content.items()}}


def _schema(schema: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(schema) if isinstance(schema, dict) else {"$ref": f"#/components/schemas/{schema.__name__}"}


def operation_id(route: APIRoute) -> str:
    """Return a unique id: the name of the endpoint function, with `v2` and `version` where the path has them."""
    path = route.path_format
    if path.endswith(("/predict", "/batch")):
        return path.rsplit("/", 1)[1] + ("" if "{" in path else "_default")
    words = ["v2"] if path.startswith("/v2/") else []
    words += [route.endpoint.__name__.strip("_"), *(["version"] if "{version}" in path else [])]
    return "_".join(words)


def _security_schemes(settings: ServiceSettings) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    if settings.api_keys:
        schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": "API key"}
        schemes["key"] = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "API key"}
    if settings.promoters:
        schemes["promoter"] = {"type": "http", "scheme": "bearer", "description": "promoter's token"}
    return schemes


def _describe_security(path: str, operation: dict[str, Any], settings: ServiceSettings) -> None:
    """Describe exceptions to the rule that every request needs an API key if any are configured."""
    if settings.promoters and path.endswith(PROMOTER_SUFFIXES):
        operation["security"] = [{"promoter": [], **({"key": []} if settings.api_keys else {})}]
    elif settings.api_keys and (path in HEALTH or path in SIGNED_PATHS or (settings.public_status and path in PUBLIC_PATHS)):
        operation["security"] = []

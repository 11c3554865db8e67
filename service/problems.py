"""RFC 9457 problem documents for every error: they say what is wrong and where, but never contain the values."""

from __future__ import annotations

import json
import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from podium.inference.served_model import UnknownModel
from podium.sandbox.child_process import SandboxError
from podium.schema.data_errors import BadData
from podium.storage.object_store import StoreError
from service.asgi import Send
from service.errors import (
    ClientDisconnected,
    InvalidInput,
    InvalidParameter,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    RequestError,
    RunnerFailed,
    ServiceError,
    StoreUnavailable,
)

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
EXTRA_HINT = "remove these fields, or pass ?extra=keep to return them unchanged"
INPUT_TITLES = {400: "Malformed input", 413: "Input too large", 415: "Unsupported media type"}
MAX_IN_DETAIL = 5


def problem_document(error: ServiceError, instance: str | None = None) -> bytes:
    """Return the problem document as JSON; `error` repeats `detail` for clients of the Open Inference Protocol."""
    detail = str(error)
    document = {"type": f"/problems/{error.code}", "title": error.title, "status": error.status, "detail": detail}
    if instance is not None:
        document["instance"] = instance
    return json.dumps({**document, "code": error.code, **error.members, "error": detail}).encode()


def problem_headers(error: ServiceError) -> dict[str, str]:
    retry = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return {"Content-Type": MEDIA_TYPE, **retry, **error.headers}


def problem_response(error: ServiceError, request: Request) -> Response:
    """Return an error response from an endpoint."""
    return Response(problem_document(error, request.url.path), error.status, problem_headers(error))


async def send_problem(send: Send, error: ServiceError) -> None:
    """Send an error response from ASGI middleware."""
    document = problem_document(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem_headers(error).items()]
    headers.append((b"content-length", b"%d" % len(document)))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": document})


def invalid_input(error: BadData) -> InvalidInput:
    """Translate errors in the data of a request; the first error determines the code of the problem."""
    hint = {"hint": EXTRA_HINT} if any(problem.code == "unknown-field" for problem in error.problems) else {}
    translated = InvalidInput(str(error), errors=[problem.as_json() for problem in error.problems], **hint)
    translated.status, translated.code = error.status, error.code
    translated.title = INPUT_TITLES.get(error.status, InvalidInput.title)
    return translated


def framework_error(error: HTTPException, request: Request) -> ServiceError:
    """Translate an error that Starlette raises, such as for an unknown path."""
    if error.status_code == NotFound.status:
        return NotFound(f"No such page: {request.url.path}")
    if error.status_code == MethodNotAllowed.status:
        translated: ServiceError = MethodNotAllowed(f"{request.method} is not allowed for {request.url.path}")
    else:
        translated = RequestError(str(error.detail))
        translated.status = error.status_code
    translated.headers = dict(error.headers or {})
    return translated


def invalid_parameter(error: RequestValidationError) -> InvalidParameter:
    errors = [
        {"column": str(item["loc"][-1]), "code": InvalidParameter.code, "message": item["msg"]} for item in error.errors()
    ]
    return InvalidParameter("; ".join(f"{e['column']}: {e['message']}" for e in errors[:MAX_IN_DETAIL]), errors=errors)


def internal_error(error: Exception) -> ServiceError:
    """Log an unexpected exception with an id that is also sent to the client."""
    error_id = secrets.token_hex(4)
    log.error("internal server error", exc_info=error, extra={"error_id": error_id})
    return ServiceError(f"Internal server error; the error was logged (id {error_id})")


def install_problems(app: FastAPI) -> None:
    """Render every exception that an endpoint raises as a problem document."""

    @app.exception_handler(ServiceError)
    async def _(request: Request, error: ServiceError) -> Response:
        return problem_response(error, request)

    @app.exception_handler(BadData)
    async def _(request: Request, error: BadData) -> Response:
        return problem_response(invalid_input(error), request)

    @app.exception_handler(UnknownModel)
    async def _(request: Request, error: UnknownModel) -> Response:
        return problem_response(ModelNotFound(str(error)), request)

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        return problem_response(ClientDisconnected("the client closed the connection"), request)

    @app.exception_handler(StoreError)
    async def _(request: Request, error: StoreError) -> Response:
        detail = "S3 is unreachable. Predictions still work; this endpoint needs S3."
        return problem_response(StoreUnavailable(detail), request)

    @app.exception_handler(SandboxError)
    async def _(request: Request, error: SandboxError) -> Response:
        return problem_response(RunnerFailed(f"the process that runs this model {error}"), request)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        return problem_response(framework_error(error, request), request)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid_parameter(error), request)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        return problem_response(internal_error(error), request)

"""Every error as an RFC 9457 problem: what is wrong and where, never the values."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from podium.inference.served_model import UnknownModel
from podium.schema.data_errors import BadData
from podium.storage.object_store import StoreError

MEDIA_TYPE = "application/problem+json"


class ServiceError(Exception):
    """An error that is its own HTTP meaning."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong here"
    retry_after: ClassVar[int | None] = None


class UnknownProject(ServiceError):
    status, code, title = 404, "unknown-project", "No such project"


class UnknownVersion(ServiceError):
    status, code, title = 404, "unknown-version", "This version is not in service"


class NotUnloaded(ServiceError):
    status, code, title = 409, "not-unloaded", "A champion is not taken out of service"


class NoReport(ServiceError):
    status, code, title = 404, "no-report", "This version has no report"


class PromotionDisabled(ServiceError):
    status, code, title = 403, "promotion-off", "This service promotes nothing"


class PromotionForbidden(ServiceError):
    status, code, title = 401, "not-a-promoter", "Who asks may not promote"


class ConditionMissing(ServiceError):
    status, code, title = 428, "condition-missing", "Say which version you expect to replace"


class TooManyJobs(ServiceError):
    status, code, title, retry_after = 429, "too-many-jobs", "Too many jobs wait", 30


class NotDone(ServiceError):
    status, code, title, retry_after = 409, "not-done", "The job is not done", 1


class StorageFull(ServiceError):
    status, code, title, retry_after = 503, "storage-full", "There is no room for this file now", 60


class UnknownResult(ServiceError):
    status, code, title = 404, "unknown-result", "No such result"


class ModelNotReady(ServiceError):
    status, code, title, retry_after = 503, "model-not-ready", "No model is in service", 5


class NotAcceptable(ServiceError):
    status, code, title = 406, "not-acceptable", "No such form of answer"


class UnsupportedMedia(ServiceError):
    status, code, title = 415, "unsupported-media-type", "This media type is not read here"


class BodyTooLarge(ServiceError):
    status, code, title = 413, "too-large", "The body is over the limit"


class InvalidSignature(ServiceError):
    status, code, title = 401, "bad-signature", "The hint is not signed as it should be"


class ClientDisconnected(ServiceError):
    status, code, title = 499, "client-gone", "Nobody waits for this answer"


class Overloaded(ServiceError):
    status, code, title, retry_after = 503, "overloaded", "Too many requests", 1


class QueueFull(ServiceError):
    status, code, title, retry_after = 429, "overloaded", "Too many requests", 1


class DeadlineExceeded(ServiceError):
    status, code, title, retry_after = 504, "deadline-exceeded", "The request took too long", 1


class AuthenticationRequired(ServiceError):
    status, code, title = 401, "key-missing", "A key is needed"


class UnknownHost(ServiceError):
    status, code, title = 421, "unknown-host", "This service does not answer for this host"


class UnsafeServer(ServiceError):
    status, code, title, retry_after = 503, "unsafe-server", "The service was started without its limits", 60


class CrossSite(ServiceError):
    status, code, title = 403, "csrf", "This form was sent from another site"


EXTRA_HINT = "leave such fields out, or ask with ?extra=keep to have them embedded_training_rows through to the result"
TITLES = {
    400: "Malformed input",
    413: "Too large",
    415: "This media type is not read here",
    422: "Input that the model cannot use",
}


def problem(status: int, code: str, title: str, detail: str, request: Request, **more: Any) -> Response:
    body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "instance": request.url.path}
    headers = more.pop("headers", {})
    body |= {"code": code, **more, "error": detail}
    return Response(json.dumps(body), status, headers, media_type=MEDIA_TYPE)


def bad_data(error: BadData, request: Request) -> Response:
    errors = [each.as_json() for each in error.problems]
    more = {"hint": EXTRA_HINT} if any(each.code == "unknown-field" for each in error.problems) else {}
    return problem(error.status, error.code, TITLES[error.status], str(error), request, errors=errors, **more)


def service_error(error: ServiceError, request: Request) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return problem(error.status, error.code, error.title, str(error), request, headers=headers)


def install_problems(app: FastAPI) -> None:
    """Render every exception that an endpoint lets through."""

    @app.exception_handler(BadData)
    async def _(request: Request, error: BadData) -> Response:
        return bad_data(error, request)

    @app.exception_handler(ServiceError)
    async def _(request: Request, error: ServiceError) -> Response:
        return service_error(error, request)

    @app.exception_handler(UnknownModel)
    async def _(request: Request, error: UnknownModel) -> Response:
        return problem(404, "unknown-model", "No such model", str(error), request)

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        return service_error(ClientDisconnected("the connection was closed"), request)

    @app.exception_handler(StoreError)
    async def _(request: Request, error: StoreError) -> Response:
        detail = "the store does not answer; predictions go on, this needs it"
        return problem(503, "store-unavailable", "The store does not answer", detail, request, headers={"Retry-After": "5"})

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http-error")
        return problem(
            error.status_code, code, str(error.detail), str(error.detail), request, headers=dict(error.headers or {})
        )

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"column": str(each["loc"][-1]), "code": "invalid-parameter", "message": each["msg"]} for each in error.errors()
        ]
        detail = "; ".join(f"{each['column']}: {each['message']}" for each in errors[:5])
        return problem(422, "invalid-parameter", "A parameter is wrong", detail, request, errors=errors)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        return problem(500, "internal-error", ServiceError.title, "this is a fault of the service; it was logged", request)

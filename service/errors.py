"""Errors that reach a client; each class defines an HTTP status, a problem code and a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ServiceError(Exception):
    """An error that maps to an HTTP status; `members` are added to the problem document."""

    status: int = 500
    code: str = "internal-error"
    title: str = "Internal server error"
    retry_after: int | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str = "", **members: Any) -> None:
        super().__init__(detail)
        self.members = members


# --- HTTP ------------------------------------------------------------------------------------------------------------------


class HeadError(ServiceError):
    """The head of a request violates HTTP or a limit."""


class MalformedRequest(HeadError):
    status, code, title = 400, "malformed-http", "Malformed HTTP request"


class UrlTooLong(HeadError):
    status, code, title = 414, "url-too-long", "URL too long"


class HeadTooLarge(HeadError):
    status, code, title = 431, "head-too-large", "Request header fields too large"


class TooManyHeaders(HeadError):
    status, code, title = 431, "too-many-headers", "Too many request header fields"


class UnsupportedHttpVersion(HeadError):
    status, code, title = 505, "http-version", "HTTP version not supported"


class UnsupportedTransferEncoding(HeadError):
    status, code, title = 501, "transfer-encoding", "Transfer encoding not supported"


class RequestTimeout(ServiceError):
    status, code, title = 408, "too-slow", "Request timeout"


class NotFound(ServiceError):
    status, code, title = 404, "not-found", "Not found"


class MethodNotAllowed(ServiceError):
    status, code, title = 405, "method-not-allowed", "Method not allowed"


class RequestError(ServiceError):
    """Any other error that the framework raises; `status` is set for each instance."""

    status, code, title = 400, "http-error", "Request rejected"


class NotAcceptable(ServiceError):
    status, code, title = 406, "not-acceptable", "Not acceptable"


class UnsupportedMedia(ServiceError):
    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class BodyTooLarge(ServiceError):
    status, code, title = 413, "too-large", "Request body too large"


class InvalidParameter(ServiceError):
    status, code, title = 422, "invalid-parameter", "Invalid parameter"


class InvalidInput(ServiceError):
    """Data that a model cannot use; `status`, `code` and `title` are set for each instance."""

    status, code, title = 422, "invalid-type", "Invalid input"


# --- access and load -------------------------------------------------------------------------------------------------------


class UnsafeServer(ServiceError):
    status, code, title, retry_after = 503, "unsafe-server", "Server started without HTTP limits", 60


class UnknownHost(ServiceError):
    status, code, title = 421, "unknown-host", "Unknown host"


class AuthenticationRequired(ServiceError):
    status, code, title = 401, "key-missing", "Authentication required"
    headers = {"WWW-Authenticate": 'Basic realm="podium"'}


class CrossSite(ServiceError):
    status, code, title = 403, "csrf", "Cross-site request rejected"


class InvalidSignature(ServiceError):
    status, code, title = 401, "bad-signature", "Invalid webhook signature"


class Overloaded(ServiceError):
    status, code, title, retry_after = 503, "overloaded", "Server busy", 1


class QueueFull(ServiceError):
    status, code, title, retry_after = 429, "overloaded", "Too many requests", 1


class DeadlineExceeded(ServiceError):
    status, code, title, retry_after = 504, "deadline-exceeded", "Request timed out", 1


class ClientDisconnected(ServiceError):
    status, code, title = 499, "client-disconnected", "Client disconnected"


# --- models ----------------------------------------------------------------------------------------------------------------


class UnknownProject(ServiceError):
    status, code, title = 404, "unknown-project", "Project not found"


class ModelNotFound(ServiceError):
    status, code, title = 404, "unknown-model", "Model not found"


class NotExplained(ServiceError):
    status, code, title = 422, "not-explainable", "Prediction cannot be explained"


class UnknownVersion(ServiceError):
    status, code, title = 404, "unknown-version", "Version not found"


class ModelNotReady(ServiceError):
    status, code, title, retry_after = 503, "model-not-ready", "Model not ready", 5


class RunnerFailed(ServiceError):
    status, code, title, retry_after = 503, "runner-failed", "Model process failed", 1


class UnloadNotAllowed(ServiceError):
    status, code, title = 409, "unload-not-allowed", "Champions cannot be unloaded"


class NoReport(ServiceError):
    status, code, title = 404, "no-report", "No data report"


class StoreUnavailable(ServiceError):
    status, code, title, retry_after = 503, "store-unavailable", "Object store unavailable", 5


# --- promotion -------------------------------------------------------------------------------------------------------------


class PromotionDisabled(ServiceError):
    status, code, title = 403, "promotion-disabled", "Promotion over HTTP is disabled"


class PromotionForbidden(ServiceError):
    status, code, title = 401, "not-a-promoter", "Not authorized to promote"


class ConditionMissing(ServiceError):
    status, code, title = 428, "condition-missing", "Expected champion missing"


class ChampionChanged(ServiceError):
    status, code, title = 412, "alias-moved", "The champion has changed"


class NoEarlierChampion(ServiceError):
    status, code, title = 409, "no-previous-champion", "No previous champion"


class GatesFailed(ServiceError):
    status, code, title = 409, "gate-failed", "Promotion gates failed"


class VersionRetired(ServiceError):
    status, code, title = 409, "retired", "Version retired"


class VersionUnsigned(ServiceError):
    status, code, title = 409, "unsigned", "Version not signed by a trusted key"


class VersionDamaged(ServiceError):
    status, code, title = 409, "damaged", "Version damaged"


# --- jobs and results ------------------------------------------------------------------------------------------------------


class TooManyJobs(ServiceError):
    status, code, title, retry_after = 429, "too-many-jobs", "Too many jobs", 30


class JobNotDone(ServiceError):
    status, code, title, retry_after = 409, "not-done", "Job not done", 1


class StorageFull(ServiceError):
    status, code, title, retry_after = 503, "storage-full", "Not enough storage", 60


class PredictionLogFull(ServiceError):
    status, code, title, retry_after = 503, "prediction-log-full", "Prediction log full", 10


class UnknownPrediction(ServiceError):
    status, code, title = 404, "unknown-prediction", "Prediction not found"


class UnknownResult(ServiceError):
    status, code, title = 404, "unknown-result", "Job not found"

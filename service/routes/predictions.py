"""Logged predictions: what was answered, and its verification."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from podium.models.model import Model
from podium.prediction_log.labels import labels_of
from podium.prediction_log.transparency_log import TransparencyLog
from podium.prediction_log.verification import PredictionNotFound, Verification, Verifier
from podium.registry.versions import Manifest
from podium.schema.data_errors import BadData, Problem
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.errors import PromotionDisabled, PromotionForbidden, UnknownPrediction
from service.negotiation import wants_page
from service.routes.promotion import authenticate_promoter
from service.services import Services, ServicesDep

router = APIRouter(tags=["predictions"])
Result = TypeVar("Result")
LABEL_FILES: dict[str, Any] = {
    "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
}


@router.get("/predictions/{prediction_id}.json", include_in_schema=False)
@router.get("/predictions/{prediction_id}", summary="A logged prediction, computed again (JSON or HTML)")
async def prediction(prediction_id: str, request: Request, services: ServicesDep) -> Response:
    """For the API key that asked for the prediction, or with a promoter's token; for all if there are no API keys."""
    _check_log(services)
    result: Verification = await _found(functools.partial(_verifier(services).verify, prediction_id))
    if services.settings.api_keys and result.predictions[0]["caller"] != caller(request.scope):
        _check_promoter(request, services)
    if wants_page(request):
        return Response(services.pages.page("prediction.html", result=result), media_type="text/html")
    return JSONResponse(result.as_json())


class LabelBody(BaseModel):
    """The true value of a prediction; `row` is the number of the row in its request."""

    model_config = ConfigDict(extra="forbid")

    label: bool | int | float | str
    row: int = Field(1, ge=1)


class LabelsReceived(BaseModel):
    """How many labels were stored, and how many rows had none."""

    project: str
    labels: int
    unlabelled: int = 0


@router.post("/predictions/{prediction_id}/label", status_code=202, summary="Send the true value of a prediction")
async def label(prediction_id: str, body: LabelBody, request: Request, services: ServicesDep) -> LabelsReceived:
    """Any caller may send labels. They are used by the monitoring of the day on which they arrive."""
    _check_log(services)
    _, _, table = await _found(functools.partial(_verifier(services).find, prediction_id))
    if body.row not in table["row"].to_pylist():
        raise UnknownPrediction(f"the prediction has no row {body.row}")
    project = table["project"][0].as_py()
    target = services.live.get(project).signature.target
    labels = labels_of([prediction_id], [body.row], [body.label], target, caller(request.scope))
    if labels.unlabelled:
        raise BadData([Problem("missing-field", "is empty", 1, "label")])
    services.predictions.record_labels(project, caller(request.scope), await request.body(), labels.table)
    return LabelsReceived(project=project, labels=1)


@router.post(
    "/projects/{project}/labels",
    status_code=202,
    summary="Send a file of true values",
    openapi_extra={"requestBody": {"required": True, "content": LABEL_FILES}},
)
async def labels(project: str, request: Request, services: ServicesDep) -> LabelsReceived:
    """A JSON list of objects with `prediction_id`, `label` (or the target's name) and optionally `row`.

    The body can also be CSV (`text/csv`) with these columns.

    Nothing is stored if a row is not valid. Rows without a label are counted.
    """
    _check_log(services)
    served, data = services.live.get(project), await request.body()
    record = functools.partial(services.predictions.record_label_file, served, caller(request.scope), data)
    if (found := await run_in_compute_thread(record)) is None:
        raise BadData([Problem("missing-field", "is required", column=name) for name in ("prediction_id", "label")])
    return LabelsReceived(project=served.project, **found)


def _check_promoter(request: Request, services: Services) -> None:
    """Raises PromotionForbidden."""
    try:
        authenticate_promoter(request.headers.get("authorization", ""), services.settings)
    except PromotionDisabled:
        raise PromotionForbidden("this prediction is shown to the API key that asked for it, and to promoters") from None


def _check_log(services: Services) -> None:
    """Raises UnknownPrediction if predictions are not logged."""
    if not services.predictions.is_on:
        raise UnknownPrediction("predictions are not logged: set PODIUM_LOG_KEY")


async def _found(find: Callable[[], Result]) -> Result:
    """Run a search for a prediction. Raises UnknownPrediction."""
    try:
        return await run_in_compute_thread(find)
    except PredictionNotFound as error:
        raise UnknownPrediction(str(error)) from None


def _verifier(services: Services) -> Verifier:
    settings, trust = services.settings, services.settings.trust()
    log = TransparencyLog(services.pages_store, settings.log_verifiers(), settings.log_name)
    loader = services.reconciler.loader

    def load(project: str, version: str, sha256: str) -> tuple[Manifest, Mapping[str, Model]]:
        """Return the models in memory if they are of this version, else load and validate them. Raises StoreError."""
        served = services.live.find(project)
        if served and served.manifest_sha256 == sha256:
            return served.manifest, served.models
        loaded = loader.validator.load(project, version, sha256, loader.fetch, trust.trainers.past)
        return loaded.manifest, loaded.models

    return Verifier(services.pages_store, trust, log, load)

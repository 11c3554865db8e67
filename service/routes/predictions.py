"""Logged predictions: what was answered, and its verification."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from podium.models.model import Model
from podium.monitoring.transparency_log import TransparencyLog
from podium.monitoring.verification import PredictionNotFound, Verification, Verifier
from podium.registry.versions import Manifest
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.errors import UnknownPrediction
from service.negotiation import wants_page
from service.routes.promotion import authenticate_promoter
from service.services import Services, ServicesDep

router = APIRouter(tags=["predictions"])


@router.get("/predictions/{prediction_id}.json", include_in_schema=False)
@router.get("/predictions/{prediction_id}", summary="A logged prediction, computed again (JSON or HTML)")
async def prediction(prediction_id: str, request: Request, services: ServicesDep) -> Response:
    """For the API key that asked for the prediction, or with a promoter's token; needs the prediction log."""
    if not services.predictions.is_on:
        raise UnknownPrediction("predictions are not logged: set PODIUM_LOG_KEY")
    verify = functools.partial(_verifier(services).verify, prediction_id)
    try:
        result: Verification = await run_in_compute_thread(verify)
    except PredictionNotFound as error:
        raise UnknownPrediction(str(error)) from None
    if result.predictions[0]["caller"] != caller(request.scope):
        authenticate_promoter(request.headers.get("authorization", ""), services.settings)
    if wants_page(request):
        return Response(services.pages.page("prediction.html", result=result), media_type="text/html")
    return JSONResponse(result.as_json())


def _verifier(services: Services) -> Verifier:
    trust, log_keys = services.settings.trust(), services.settings.log_verifiers()
    loader = services.reconciler.loader

    def load(project: str, version: str, sha256: str) -> tuple[Manifest, Mapping[str, Model]]:
        """Return the models in memory if they are of this version, else load and validate them. Raises StoreError."""
        served = services.live.find(project)
        if served and served.manifest_sha256 == sha256:
            return served.manifest, served.models
        loaded = loader.validator.load(project, version, sha256, loader.fetch, trust.trainers)
        return loaded.manifest, loaded.models

    return Verifier(services.pages_store, trust, TransparencyLog(services.pages_store, log_keys), load)

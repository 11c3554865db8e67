"""The endpoint of MLflow's scoring server."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from podium.inference.json_rows import rows_from_records
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.inference.table_rows import rows_from_table
from podium.tables.strict_json import decode_json
from service.admission import MODEL
from service.compute_threads import run_in_compute_thread
from service.errors import UnsupportedMedia
from service.json_renderer import renderer_for
from service.mlflow import parse_mlflow_records
from service.scoring import predict_champion
from service.services import ServicesDep

router = APIRouter(tags=["mlflow"])


@router.post("/invocations", summary="Predict like MLflow's scoring server")
async def invocations(request: Request, services: ServicesDep, project: str = "") -> Response:
    """Send dataframe_split, dataframe_records, instances, inputs or CSV; `?project=` selects a non-default project."""
    served = services.live.get(project) if project else services.live.default()
    request.scope[MODEL] = served.project, served.version
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in ("application/json", "text/csv"):
        raise UnsupportedMedia("use application/json or text/csv")
    rows = await run_in_compute_thread(_parse, await request.body(), media, served, services.settings.max_records)
    scores, headers = await predict_champion(services, served, rows)
    few = rows.count <= services.settings.dask_threshold
    body = _render(scores, served) if few else await run_in_compute_thread(_render, scores, served)
    return Response(body, headers=headers, media_type="application/json")


def _parse(data: bytes, media: str, served: ServedModel, max_rows: int) -> ParsedRows:
    """Parse a request body. Raises BadData."""
    if media == "text/csv":
        return rows_from_table(data, served.signature, max_rows)
    return rows_from_records(parse_mlflow_records(decode_json(data)), served.signature, max_rows)


def _render(scores: Any, served: ServedModel) -> bytes:
    labels = renderer_for(served).labels(np.asarray(scores, dtype=float).tolist())
    return f'{{"predictions": [{", ".join(labels)}]}}'.encode()

"""The endpoint of MLflow's scoring server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from podium.inference.json_rows import rows_from_records
from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.inference.served_model import ServedModel
from podium.inference.table_rows import rows_from_table
from podium.tables.strict_json import decode_json
from service.admission import MODEL
from service.authentication import caller
from service.compute_threads import run_in_compute_thread
from service.errors import UnsupportedMedia
from service.json_renderer import renderer_for
from service.mlflow import parse_mlflow_records
from service.scoring import predict_champion
from service.services import ServicesDep

IGNORED_COLUMNS = "X-Ignored-Columns"
"""Header with the columns of a request that the model does not have."""
MAX_LISTED = 20
KEEP_EXTRA = ParseOptions(keep_extra=True)
router = APIRouter(tags=["mlflow"])


@router.post("/invocations", summary="Predict like MLflow's scoring server")
async def invocations(request: Request, services: ServicesDep, project: str = "") -> Response:
    """Send dataframe_split, dataframe_records, instances, inputs or CSV; `?project=` selects a non-default project.

    Columns that the model does not have are ignored and named in the header `X-Ignored-Columns`.
    """
    served = services.live.get(project) if project else services.live.default()
    request.scope[MODEL] = served.project, served.version
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in ("application/json", "text/csv"):
        raise UnsupportedMedia("use application/json or text/csv")
    body = await request.body()
    rows, extra = await run_in_compute_thread(_parse, body, media, served, services.settings.max_records)
    scores, headers = await predict_champion(services, served, rows, (caller(request.scope), body))
    if extra:
        headers = {**headers, IGNORED_COLUMNS: ", ".join(quote(name, safe=" ") for name in extra[:MAX_LISTED])}
    few = rows.count <= services.settings.dask_threshold
    content = _render(scores, served) if few else await run_in_compute_thread(_render, scores, served)
    return Response(content, headers=headers, media_type="application/json")


def _parse(data: bytes, media: str, served: ServedModel, max_rows: int) -> tuple[ParsedRows, list[str]]:
    """Return the rows, and the columns that the model does not have, which MLflow ignores. Raises BadData."""
    signature = served.signature
    if media == "text/csv":
        rows = rows_from_table(data, signature, max_rows, KEEP_EXTRA)
        names = set(rows.as_table().column_names)
    else:
        records = parse_mlflow_records(decode_json(data, nan=True))
        rows = rows_from_records(_without_nan(records), signature, max_rows, KEEP_EXTRA)
        names = set[str]().union(*(record.keys() for record in records if isinstance(record, dict)))
    return rows, sorted(names - {*signature.names, *signature.ignored})


def _without_nan(records: Any) -> Any:
    """Return the records with null for NaN, as MLflow reads it."""
    if isinstance(records, list):
        return [_without_nan(record) for record in records]
    if isinstance(records, dict):
        return {name: _without_nan(cell) for name, cell in records.items()}
    return None if isinstance(records, float) and records != records else records


def _render(scores: Any, served: ServedModel) -> bytes:
    labels = renderer_for(served).labels(np.asarray(scores, dtype=float).tolist())
    return f'{{"predictions": [{", ".join(labels)}]}}'.encode()

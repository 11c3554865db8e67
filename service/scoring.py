"""Score rows: a few on the event loop or in a thread, many on the Dask cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from podium.inference.explanations import MAX_EXPLAINED_ROWS, Explanation, explainer_for
from podium.inference.panel import forecasts
from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.models.scorers import NotExplainable
from podium.schema.arrays import FloatMatrix
from service.compute_threads import run_in_compute_thread
from service.errors import ClientDisconnected, NotExplained
from service.responses import prediction_headers
from service.services import Services

MAX_ROWS_BY_ROW = 100
"""More rows are encoded faster by column."""
FamilyScores = dict[str, FloatMatrix | Sequence[Sequence[float]]]


async def run_models(
    services: Services,
    served: ServedModel,
    families: Sequence[str],
    rows: ParsedRows,
    is_disconnected: Callable[[], bool] = bool,
) -> FamilyScores:
    """Return an (n, scores) array of the valid rows for each family; the result does not depend on where it is computed.

    Raises ClientDisconnected.
    """
    if not rows.count:
        return {family: [] for family in families}
    scores: FamilyScores = {}
    if rows.count > services.settings.dask_threshold:
        for family in families:
            _check_connected(is_disconnected)
            scores[family] = await run_in_compute_thread(_scores_on_dask, services, served, family, rows)
        return scores
    cells = rows.as_rows()
    for family in families:
        _check_connected(is_disconnected)
        scorer = served.fast[family]
        if scorer is not None:
            scores[family] = [scorer(row) for row in cells]  # microseconds per row
        else:
            scores[family] = await run_in_compute_thread(served.models[family].scores, rows.as_frame())
    return scores


def _scores_on_dask(services: Services, served: ServedModel, family: str, rows: ParsedRows) -> FloatMatrix:
    """Encode the rows here and score them on the cluster."""
    encoder = served.models[family].encoder
    by_row = rows.count <= MAX_ROWS_BY_ROW and served.fast[family] is not None
    features = encoder.transform_rows(rows.as_rows()) if by_row else encoder.transform(rows.as_frame())
    return services.dask.scores_of(served, family, features)


async def explain(served: ServedModel, rows: ParsedRows, scores: FamilyScores, count: int) -> list[Explanation]:
    """Return the `count` strongest contributions to the first model's score of each valid row. Raises NotExplained."""
    if not count or not rows.count:
        return []
    if rows.count > MAX_EXPLAINED_ROWS:
        raise NotExplained(f"at most {MAX_EXPLAINED_ROWS} rows of a request can be explained")
    family = next(iter(scores))
    try:
        return await run_in_compute_thread(_explain, served, family, rows, scores[family], count)
    except NotExplainable as error:
        raise NotExplained(f"{family} cannot be explained: {error}") from None


def _explain(
    served: ServedModel, family: str, rows: ParsedRows, scores: FloatMatrix | Sequence[Sequence[float]], count: int
) -> list[Explanation]:
    features = served.models[family].encoder.transform(rows.as_frame())
    return explainer_for(served, family).of(features, np.asarray(scores).tolist(), count)


async def predict_champion(
    services: Services, served: ServedModel, rows: ParsedRows, origin: tuple[str, bytes]
) -> tuple[Any, dict[str, str]]:
    """Return the champion's scores, or for a panel its [n, 1] forecasts, and the response headers.

    `origin` is the caller and the body of the request, for the prediction log.
    """
    by_family = await run_models(services, served, [served.champion], rows)
    services.metrics.rows[served.project] += rows.count
    scores: Any = by_family[served.champion]
    if served.signature.panel:
        scores = forecasts(served.signature.panel, rows, by_family)[served.champion].value.reshape(-1, 1)
    return scores, prediction_headers(served, await log_prediction(services, served, by_family, rows, origin))


async def log_prediction(
    services: Services, served: ServedModel, scores: FamilyScores, rows: ParsedRows, origin: tuple[str, bytes]
) -> str:
    """Log the answer to a request and return its prediction id. Raises PredictionLogFull."""
    record = functools.partial(services.predictions.record_rows, served, *origin, scores, rows)
    return record() if rows.count <= MAX_ROWS_BY_ROW else await run_in_compute_thread(record)


def _check_connected(is_disconnected: Callable[[], bool]) -> None:
    """Check that the client is still connected. Raises ClientDisconnected."""
    if is_disconnected():
        raise ClientDisconnected("the client closed the connection")

"""Where scores come from: one record in this thread, a few in another, many on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from podium.inference.parsed_rows import ParsedRows
from podium.inference.served_model import ServedModel
from podium.schema.arrays import FloatMatrix
from service.compute_threads import run_in_compute_thread
from service.dask_executor import DaskExecutor
from service.problems import ClientDisconnected

Found = dict[str, FloatMatrix | Sequence[Sequence[float]]]


async def run_models(
    snapshot: ServedModel,
    families: Sequence[str],
    inputs: ParsedRows,
    spread: DaskExecutor,
    threshold: int,
    gone: Callable[[], bool] = bool,
) -> Found:
    """For each family (n, scores) of the good rows, the same numbers whichever way they are computed.

    Raises ClientGone when nobody waits for them any more.
    """
    scores: Found = {}
    if not inputs.count:
        return {family: [] for family in families}
    if inputs.count > threshold:
        frame = await run_in_compute_thread(inputs.as_frame)
        for family in families:
            _check(gone)
            scores[family] = await run_in_compute_thread(spread.scores, snapshot, family, frame)
        return scores
    rows = inputs.as_rows()
    for family in families:
        _check(gone)
        fast = snapshot.fast[family]
        if fast is not None:
            scores[family] = [fast(row) for row in rows]  # microseconds a row
        else:
            scores[family] = await run_in_compute_thread(snapshot.models[family].scores, inputs.as_frame())
    return scores


def _check(gone: Callable[[], bool]) -> None:
    """Raises ClientGone."""
    if gone():
        raise ClientDisconnected("the connection was closed")

"""Where scores come from: one record in this thread, a few in another, many on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from podium.model.encode import Matrix
from podium.predict.inputs import Inputs
from podium.predict.snapshot import Snapshot
from service.problems import ClientGone
from service.spread import Spread
from service.threads import computed

Found = dict[str, Matrix | Sequence[Sequence[float]]]


async def score(
    snapshot: Snapshot,
    families: Sequence[str],
    inputs: Inputs,
    spread: Spread,
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
        frame = await computed(inputs.as_frame)
        for family in families:
            _check(gone)
            scores[family] = await computed(spread.scores, snapshot, family, frame)
        return scores
    rows = inputs.as_rows()
    for family in families:
        _check(gone)
        fast = snapshot.fast[family]
        if fast is not None:
            scores[family] = [fast(row) for row in rows]  # microseconds a row
        else:
            scores[family] = await computed(snapshot.models[family].scores, inputs.as_frame())
    return scores


def _check(gone: Callable[[], bool]) -> None:
    """Raises ClientGone."""
    if gone():
        raise ClientGone("the connection was closed")

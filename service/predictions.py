"""Where scores come from: one record in this thread, a few in another, many on the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from podium.model.encode import Matrix
from service.inputs import Inputs
from service.live import Snapshot
from service.spread import Spread
from service.threads import computed

Found = dict[str, Matrix | Sequence[Sequence[float]]]


async def score(snapshot: Snapshot, families: Sequence[str], inputs: Inputs, spread: Spread, threshold: int) -> Found:
    """For each family (n, scores) of the good rows, the same numbers whichever way they are computed."""
    if inputs.count > threshold:
        frame = await computed(inputs.as_frame)
        return {family: await computed(spread.scores, snapshot, family, frame) for family in families}
    rows = inputs.as_rows()
    scores: Found = {}
    for family in families:
        fast = snapshot.fast[family]
        if fast is not None:
            scores[family] = [fast(row) for row in rows]  # microseconds a row
        else:
            scores[family] = await computed(snapshot.models[family].scores, inputs.as_frame())
    return scores

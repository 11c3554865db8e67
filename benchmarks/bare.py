"""The least that a service can do: decode one record, score it in C, and return JSON; no checks, limits, metrics or log."""

from __future__ import annotations

import os
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from podium.engine.forest import load_trees

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def create_app() -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """Return an ASGI application for the trees in the folder NAIVE_FOLDER, which get the numbers of a record unchanged."""
    folder = Path(os.environ["NAIVE_FOLDER"])
    text, names = pickle.loads((folder / "bare.pkl").read_bytes())
    score = load_trees(text, False).row_scorer()
    fields = [(f"f{index}", float if kind == "number" else str) for index, (_, kind) in enumerate(names)]
    record = msgspec.defstruct("Record", fields, rename={f"f{index}": name for index, (name, _) in enumerate(names)})
    decode, numbers = msgspec.json.Decoder(record).decode, sum(kind == "number" for _, kind in names)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        message = await receive()
        score.vector[:] = msgspec.structs.astuple(decode(message["body"]))[:numbers]
        (probability,) = score()
        body = b'{"prediction":"%s","probability":%r}' % (b"yes" if probability > 0.5 else b"no", probability)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app

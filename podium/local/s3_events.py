"""A bridge from SeaweedFS notifications to S3 events for a Lambda runtime, over the AWS Lambda Runtime API.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ROOT = "/2018-06-01/runtime"
MAX_ATTEMPTS = 3
TIMEOUT_SECONDS = 30


def s3_event(notification: dict[str, Any]) -> dict[str, Any] | None:
    """Return the S3 ObjectCreated event for a SeaweedFS notification; None for folders, upload parts and deletions."""
    entry = notification.get("message", {}).get("new_entry") or {}
    _, _, bucket, key = (notification.get("key", "").split("/", 3) + ["", "", "", ""])[:4]
    if not key or entry.get("is_directory") or key.startswith(".uploads/") or notification.get("event_type") == "delete":
        return None
    attributes = entry.get("attributes", {})
    record = {
        "eventVersion": "2.3",
        "eventSource": "aws:s3",
        "awsRegion": "local",
        "eventTime": datetime.now(UTC).isoformat(),
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": attributes.get("file_size", 0),
                "sequencer": f"{time.time_ns():016X}",
            },
        },
    }
    return {"Records": [record]}


class Events:
    """A queue of events for one runtime; failed events are retried, as Lambda does."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue()
        self._running: dict[str, tuple[bytes, int]] = {}
        self._counter = itertools.count(1)
        self.outcomes: deque[dict[str, object]] = deque(maxlen=100)

    async def notified(self, request: Request) -> Response:
        event = s3_event(await request.json())
        if event:
            self._add(json.dumps(event).encode(), 1)
        return Response(status_code=200)

    async def next(self, request: Request) -> Response:
        request_id, event, attempt = await self._queue.get()
        self._running[request_id] = event, attempt
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + TIMEOUT_SECONDS) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:local:0:function:podium-refresh",
        }
        return Response(event, headers=headers, media_type="application/json")

    async def response(self, request: Request) -> Response:
        self._running.pop(request.path_params["request_id"], None)
        self.outcomes.append({"ok": True, "answer": json.loads(await request.body() or b"null")})
        return Response(status_code=202)

    async def error(self, request: Request) -> Response:
        event, attempt = self._running.pop(request.path_params["request_id"], (b"", MAX_ATTEMPTS))
        self.outcomes.append({"ok": False, "answer": json.loads(await request.body() or b"null")})
        if attempt < MAX_ATTEMPTS:
            asyncio.get_running_loop().call_later(2**attempt / 2, self._add, event, attempt + 1)
        return Response(status_code=202)

    async def init_error(self, request: Request) -> Response:
        self.outcomes.append({"ok": False, "answer": json.loads(await request.body() or b"null")})
        return Response(status_code=202)

    async def status(self, request: Request) -> Response:
        return JSONResponse({"waiting": self._queue.qsize(), "outcomes": list(self.outcomes)})

    def _add(self, event: bytes, attempt: int) -> None:
        self._queue.put_nowait((f"local-{next(self._counter)}-{attempt}", event, attempt))


def create_app() -> Starlette:
    events = Events()
    return Starlette(
        routes=[
            Route("/notifications", events.notified, methods=["POST"]),
            Route(f"{ROOT}/invocation/next", events.next),
            Route(f"{ROOT}/invocation/{{request_id}}/response", events.response, methods=["POST"]),
            Route(f"{ROOT}/invocation/{{request_id}}/error", events.error, methods=["POST"]),
            Route(f"{ROOT}/init/error", events.init_error, methods=["POST"]),
            Route("/status", events.status),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_keep_alive=3600)

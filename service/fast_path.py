"""Predict a single JSON record, from request bytes to response bytes, without routing, a DataFrame or a thread.

The fast path handles only complete records (or bare arrays) whose cells have the right type, a known category and a value
within the training range. Every other request falls back to the routes, which give the same predictions and also handle
warnings and errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import msgspec

from podium.inference.served_model import ServedModel
from podium.models.model import RowScorer
from podium.schema.columns import EPOCH, Column, Value
from podium.tables.cell_rules import missing_sentinels
from service.active_models import ActiveModels
from service.admission import MODEL, replay
from service.asgi import SECURITY_HEADERS, ASGIApp, Receive, Scope, Send
from service.metrics import Metrics
from service.responses import new_prediction_id

Convert = Callable[[Any], Value]
PREPARED_KEY = "fast_path"


class FastPathMiddleware:
    """ASGI middleware that serves one-record JSON predictions of the champion and passes on all other requests."""

    def __init__(self, app: ASGIApp, live: ActiveModels, metrics: Metrics) -> None:
        self._app, self._live, self._rows = app, live, metrics.rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        project = _project_of(scope)
        served = self._live.find(project) if project is not None else None
        fast_path = fast_path_for(served) if served else None
        if served is None or fast_path is None:
            return await self._app(scope, receive, send)
        message = await receive()
        body = message.get("body", b"")
        complete = message["type"] == "http.request" and not message.get("more_body")
        result = fast_path.predict(body) if complete else None
        if result is None:
            return await self._app(scope, replay(message, receive), send)
        identity, payload = result
        scope[MODEL] = served.project, served.version
        self._rows[served.project] += 1
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(payload)),
            (b"x-model-version", fast_path.version),
            (b"x-prediction-id", identity),
            *SECURITY_HEADERS,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": payload})


def fast_path_for(served: ServedModel) -> FastPath | None:
    """Return the fast path of a version; the first call builds it."""
    if PREPARED_KEY not in served.prepared:
        served.prepared[PREPARED_KEY] = build_fast_path(served)
    fast_path: FastPath | None = served.prepared[PREPARED_KEY]
    return fast_path


def _project_of(scope: Scope) -> str | None:
    """Return the project of a plain prediction request ("" for the default), or None for every other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    path: str = scope["path"]
    if path == "/predict":
        project = ""
    elif path.startswith("/projects/") and path.endswith("/predict") and path.count("/") == 3 and len(path) > 18:
        project = path[10:-8]
    else:
        return None
    is_json = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            if is_json:
                return None  # repeated header
            is_json = value == b"application/json"
        elif (name == b"accept" and value not in (b"*/*", b"application/json")) or name == b"content-encoding":
            return None
    return project if is_json else None


@dataclass(frozen=True, slots=True)
class FastPath:
    """The decoders, the scorer and the response template of one version."""

    version: bytes
    objects: msgspec.json.Decoder[Any]
    arrays: msgspec.json.Decoder[Any]
    conversions: tuple[tuple[int, Convert], ...]
    text_columns: tuple[int, ...]
    width: int
    scorer: RowScorer
    head: str
    classes: tuple[tuple[str, str], ...]
    half_width: float | None

    def predict(self, body: bytes) -> tuple[bytes, bytes] | None:
        """Return the prediction id and the response body, or None to fall back to the routes."""
        try:
            if body.lstrip()[:1] == b"[":
                values = msgspec.structs.astuple(self.arrays.decode(body))
            else:
                values = msgspec.structs.astuple(self.objects.decode(body))
                quotes = 2 * (self.width + sum(values[index] is not None for index in self.text_columns))
                if body.count(b'"') != quotes:  # a field is repeated, or a string contains an escaped quote
                    return None
            if self.conversions:
                cells = list(values)
                for index, convert in self.conversions:
                    cells[index] = convert(cells[index])
                values = tuple(cells)
        except (msgspec.MsgspecError, ValueError):
            return None
        return self._render(self.scorer(values))

    def _render(self, scores: Sequence[float]) -> tuple[bytes, bytes] | None:
        if not all(map(math.isfinite, scores)):
            return None
        identity = new_prediction_id()
        if self.classes:
            best = max(range(len(scores)), key=scores.__getitem__)
            probabilities = ",".join([f"{name}:{score!r}" for (_, name), score in zip(self.classes, scores, strict=True)])
            prediction = f'{self.classes[best][0]},"probabilities":{{{probabilities}}}'
        else:
            prediction = repr(scores[0])
            if self.half_width is not None:
                low, high = scores[0] - self.half_width, scores[0] + self.half_width
                prediction += f',"interval":[{low!r},{high!r}]'
        text = f'{self.head}{identity}","predictions":[{{"prediction":{prediction}}}],"warnings":[]}}'
        return identity.encode(), text.encode()


def build_fast_path(served: ServedModel) -> FastPath | None:
    """Build the fast path of a champion, or return None if its scorer was not verified or a column is not supported."""
    if served.signature.panel:
        return None
    scorer = served.fast.get(served.champion)
    columns = served.signature.inputs
    types = [_json_type(column) for column in columns]
    if scorer is None or any(json_type is None for json_type in types):
        return None
    if any(json.dumps(column.name, ensure_ascii=False) != f'"{column.name}"' for column in columns):
        return None  # the name needs escaping in JSON
    fields = [(f"f{index}", json_type) for index, json_type in enumerate(types)]
    names = {f"f{index}": column.name for index, column in enumerate(columns)}
    as_object = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True)
    as_array = msgspec.defstruct("Array", fields, array_like=True, forbid_unknown_fields=True)
    conversions = [(index, convert) for index, column in enumerate(columns) if (convert := _conversion(column))]
    head = {"project": served.project, "version": served.version, "model": served.champion}
    return FastPath(
        version=served.version.encode(),
        objects=msgspec.json.Decoder(as_object),
        arrays=msgspec.json.Decoder(as_array),
        conversions=tuple(conversions),
        text_columns=tuple(index for index, column in enumerate(columns) if column.kind in ("category", "date")),
        width=len(columns),
        scorer=scorer,
        head=json.dumps(head, separators=(",", ":"))[:-1] + ',"prediction_id":"',
        classes=tuple((json.dumps(label), json.dumps(str(label))) for label in served.signature.target.classes),
        half_width=served.half_width(served.champion),
    )


def _json_type(column: Column) -> Any:
    """Return the msgspec type of the JSON values of a column, or None if the fast path does not support the column."""
    json_type: Any
    if column.kind == "category":
        categories = [category for category in column.categories if category not in column.na_values]
        json_type = Literal[tuple(categories)] if categories else None
    elif column.kind == "date":
        json_type = date if column.date_format == "%Y-%m-%d" and not column.na_values else None
    elif column.kind == "boolean":
        json_type = bool if (column.low, column.high) == (0.0, 1.0) else None
    elif column.low is None or column.high is None:
        json_type = None
    elif column.kind == "integer":
        json_type = Annotated[int, msgspec.Meta(ge=int(column.low), le=int(column.high))]
    else:
        json_type = Annotated[float, msgspec.Meta(ge=column.low, le=column.high)]
    return json_type | None if json_type is not None and column.nullable else json_type


def _conversion(column: Column) -> Convert | None:
    """Return a function that converts decoded to typed cells, if needed; it raises ValueError to fall back to the routes."""
    if column.kind == "date":
        low, high = column.low or 0.0, column.high or 0.0

        def to_days(day: date | None) -> Value:
            if day is None:
                return None
            days = float(day.toordinal() - EPOCH)
            if not low <= days <= high:
                raise ValueError("outside the training range")
            return days

        return to_days
    sentinels = missing_sentinels(column)
    if column.kind not in ("number", "integer") or not sentinels:
        return None

    def without_sentinels(number: float | None) -> Value:
        if number not in sentinels:
            return number
        if not column.nullable:
            raise ValueError("a required value is missing")
        return None

    return without_sentinels

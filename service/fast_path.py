"""The way of one record from bytes to bytes, without routing, DataFrame or thread.

It takes only what is beyond doubt: a complete record (or bare array) of cells that are right in type, known as category and
inside the training range. Whatever else comes is declined and goes the common way, which gives the same answer, with the
warnings and the problems that this lane does not know.
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
from service.asgi import SECURITY, ASGIApp, Receive, Scope, Send
from service.metrics import Metrics
from service.responses import prediction_id

Cell = Callable[[Any], Value]
FAST_PATH = "lane"


class FastPathMiddleware:
    """ASGI middleware that answers one-record JSON requests to the champion itself and passes all else on."""

    def __init__(self, app: ASGIApp, live: ActiveModels, metrics: Metrics) -> None:
        self._app, self._live, self._rows = app, live, metrics.rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        project = _project_of(scope)
        snapshot = self._live.find(project) if project is not None else None
        lane = fast_path_for(snapshot) if snapshot else None
        if snapshot is None or lane is None:
            return await self._app(scope, receive, send)
        message = await receive()
        body = message.get("body", b"")
        whole = message["type"] == "http.request" and not message.get("more_body")
        found = lane.answer(body) if whole else None
        if found is None:
            return await self._app(scope, replay(message, receive), send)
        identity, payload = found
        scope[MODEL] = snapshot.project, snapshot.version
        self._rows[snapshot.project] += 1
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(payload)),
            (b"x-model-version", lane.version),
            (b"x-prediction-id", identity),
            *SECURITY,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": payload})


def fast_path_for(snapshot: ServedModel) -> FastPath | None:
    """Its lane, made when it is first asked for: before the swap, off the event loop."""
    if FAST_PATH not in snapshot.prepared:
        snapshot.prepared[FAST_PATH] = build_fast_path(snapshot)
    lane: FastPath | None = snapshot.prepared[FAST_PATH]
    return lane


def _project_of(scope: Scope) -> str | None:
    """The project of a plain prediction request ("" for the default), or None for every other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    path: str = scope["path"]
    if path == "/predict":
        project = ""
    elif path.startswith("/projects/") and path.endswith("/predict") and path.count("/") == 3 and len(path) > 18:
        project = path[10:-8]
    else:
        return None
    plain = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            if plain:
                return None  # twice
            plain = value == b"application/json"
        elif (name == b"accept" and value not in (b"*/*", b"application/json")) or name == b"content-encoding":
            return None
    return project if plain else None


@dataclass(frozen=True, slots=True)
class FastPath:
    """The decoders, the scores and the answer's form of one snapshot."""

    version: bytes
    objects: msgspec.json.Decoder[Any]
    arrays: msgspec.json.Decoder[Any]
    conversions: tuple[tuple[int, Cell], ...]
    texts: tuple[int, ...]
    width: int
    scores: RowScorer
    head: str
    classes: tuple[tuple[str, str], ...]
    half_width: float | None

    def answer(self, body: bytes) -> tuple[bytes, bytes] | None:
        """The prediction id and the answer, or None to decline."""
        try:
            if body.lstrip()[:1] == b"[":
                values = msgspec.structs.astuple(self.arrays.decode(body))
            else:
                values = msgspec.structs.astuple(self.objects.decode(body))
                quotes = 2 * (self.width + sum(values[place] is not None for place in self.texts))
                if body.count(b'"') != quotes:  # a field came twice, or a text holds an escaped quote
                    return None
            if self.conversions:
                cells = list(values)
                for place, convert in self.conversions:
                    cells[place] = convert(cells[place])
                values = tuple(cells)
        except (msgspec.MsgspecError, ValueError):
            return None
        return self._rendered(self.scores(values))

    def _rendered(self, scores: Sequence[float]) -> tuple[bytes, bytes] | None:
        if not all(map(math.isfinite, scores)):
            return None
        identity = prediction_id()
        if self.classes:
            best = max(range(len(scores)), key=scores.__getitem__)
            chances = ",".join([f"{name}:{score!r}" for (_, name), score in zip(self.classes, scores, strict=True)])
            prediction = f'{self.classes[best][0]},"probabilities":{{{chances}}}'
        else:
            prediction = repr(scores[0])
            if self.half_width is not None:
                low, high = scores[0] - self.half_width, scores[0] + self.half_width
                prediction += f',"interval":[{low!r},{high!r}]'
        text = f'{self.head}{identity}","predictions":[{{"prediction":{prediction}}}],"warnings":[]}}'
        return identity.encode(), text.encode()


def build_fast_path(snapshot: ServedModel) -> FastPath | None:
    """The lane of a snapshot's champion, if its fast path was proved and its columns allow one."""
    if snapshot.signature.panel:
        return None
    scores = snapshot.fast.get(snapshot.champion)
    columns = snapshot.signature.inputs
    types = [_json_type(column) for column in columns]
    if scores is None or any(kind is None for kind in types):
        return None
    if any(json.dumps(column.name, ensure_ascii=False) != f'"{column.name}"' for column in columns):
        return None  # names that JSON must escape
    fields = [(f"f{place}", kind) for place, kind in enumerate(types)]
    names = {f"f{place}": column.name for place, column in enumerate(columns)}
    as_object = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True)
    as_array = msgspec.defstruct("Array", fields, array_like=True, forbid_unknown_fields=True)
    conversions = [(place, convert) for place, column in enumerate(columns) if (convert := _conversion(column))]
    head = {"project": snapshot.project, "version": snapshot.version, "model": snapshot.champion}
    return FastPath(
        version=snapshot.version.encode(),
        objects=msgspec.json.Decoder(as_object),
        arrays=msgspec.json.Decoder(as_array),
        conversions=tuple(conversions),
        texts=tuple(place for place, column in enumerate(columns) if column.kind in ("category", "date")),
        width=len(columns),
        scores=scores,
        head=json.dumps(head, separators=(",", ":"))[:-1] + ',"prediction_id":"',
        classes=tuple((json.dumps(label), json.dumps(str(label))) for label in snapshot.signature.target.classes),
        half_width=snapshot.half_width(snapshot.champion),
    )


def _json_type(column: Column) -> Any:
    """The JSON values that this lane takes for a column, as msgspec understands types; None: it takes none."""
    kind: Any
    if column.kind == "category":
        known = [level for level in column.categories if level not in column.na_values]
        kind = Literal[tuple(known)] if known else None
    elif column.kind == "date":
        kind = date if column.date_format == "%Y-%m-%d" and not column.na_values else None
    elif column.kind == "boolean":
        kind = bool if (column.low, column.high) == (0.0, 1.0) else None
    elif column.low is None or column.high is None:
        kind = None
    elif column.kind == "integer":
        kind = Annotated[int, msgspec.Meta(ge=int(column.low), le=int(column.high))]
    else:
        kind = Annotated[float, msgspec.Meta(ge=column.low, le=column.high)]
    return kind | None if kind is not None and column.nullable else kind


def _conversion(column: Column) -> Cell | None:
    """What a decoded value still needs to be a typed cell; raises ValueError where this lane would be in doubt."""
    if column.kind == "date":
        low, high = column.low or 0.0, column.high or 0.0

        def days(day: date | None) -> Value:
            if day is None:
                return None
            number = float(day.toordinal() - EPOCH)
            if not low <= number <= high:
                raise ValueError("outside the training range")
            return number

        return days
    marks = missing_sentinels(column)
    if column.kind not in ("number", "integer") or not marks:
        return None

    def unmarked(number: float | None) -> Value:
        if number not in marks:
            return number
        if not column.nullable:
            raise ValueError("marked as missing where a value is needed")
        return None

    return unmarked

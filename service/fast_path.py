"""Turn the bytes of a few JSON records into those of the response, without ASGI, routing, DataFrames or threads.

All valid cells are handled here, with their warnings. A request with an error, or in a rare form, continues to the routes,
which give the same predictions and report what is wrong.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec

from podium.inference.explanations import MAX_EXPLAINED, explainer_for, is_explained_fast
from podium.inference.record_decoder import DecodedRows, NeedsReport, RecordDecoder, decode_small_json, decoder_of
from podium.inference.served_model import ServedModel
from podium.models.model import RowScorer
from podium.schema.columns import Value
from podium.schema.data_errors import BadData
from service.active_models import ActiveModels
from service.admission import AdmissionMiddleware
from service.asgi import SECURITY_HEADERS
from service.authentication import Authenticator, caller
from service.errors import PredictionLogFull, ServiceError
from service.http_limits import HEAD, DirectResponse
from service.json_renderer import JsonRenderer, renderer_for
from service.metrics import Metrics
from service.mlflow import parse_mlflow_records
from service.open_inference import HEADER_LENGTH, MAX_ID, as_boolean
from service.prediction_log import PredictionLog
from service.request_head import MAX_CACHED, Head
from service.tensors import DTYPES, NUMBERS

log = logging.getLogger(__name__)

PREPARED_KEY = "fast_path"
JSON_TYPES = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
ACCEPTED = ("*/*", "application/json", "application/json, */*", "application/json, text/plain, */*")
OPTIONS = {"models", "on_error", "inputs", "explain", "extra", "delimiter", "raw"}
STRICT_HEAD = re.compile(rb"[A-Z]+ /[!\"$-~]* HTTP/1\.1\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*\r\n")
ONE_CELL = ([1, 1], [1])
DATATYPES = {*DTYPES, "BYTES"}
Record = Callable[[ServedModel, str, bytes, Mapping[str, object], Sequence[Sequence[Value]]], str]
"""Logs the caller, the request, the scores and the typed rows, and returns the prediction id."""
UNSUPPORTED_HEADERS = ("content-encoding", "origin", HEADER_LENGTH.lower())
"""Headers that the routes or other middleware handle."""


@dataclass(frozen=True, slots=True)
class FastCall:
    """A request that the fast path may handle: `project` is empty for the default one."""

    kind: str
    project: str
    query: str
    method: str
    path: str
    keep_alive: bool
    caller: str = ""


class FastResponder:
    """Responds to predictions of up to `max_rows` JSON records, as soon as their bytes have arrived.

    Every other request is passed on to the ASGI application, also if there is no free slot, or the host or API key is wrong.
    """

    def __init__(
        self, live: ActiveModels, metrics: Metrics, admission: AdmissionMiddleware, predictions: PredictionLog, max_rows: int
    ) -> None:
        self._live, self._rows, self._admission, self._max_rows = live, metrics.rows, admission, max_rows
        self._record = predictions.record
        self._call_of = functools.lru_cache(1024)(functools.partial(_admitted_call, admission.authenticator))

    def __call__(self, head: Head, body: bytes, server: str) -> DirectResponse | None:
        """Return the response, or None to pass the request on."""
        call = self._call_of(head, server) if len(head.data) <= MAX_CACHED else None
        served = self._live.find(call.project) if call else None
        fast_path = fast_path_for(served) if served else None
        if call is None or served is None or fast_path is None or not self._admission.has_free_slot:
            return None
        started = time.perf_counter()
        result = fast_path.respond(call, body, self._max_rows, self._record)
        if result is None:
            return None
        self._rows[served.project] += result.rows
        model, seconds = (served.project, served.version), time.perf_counter() - started
        self._admission.record(call.method, call.path, 200, seconds, model, result.prediction_id)
        lengths = b"content-length: %d\r\nx-prediction-id: %b\r\n" % (len(result.body), result.prediction_id.encode())
        return DirectResponse(fast_path.head + lengths, result.body, call.keep_alive)


def _admitted_call(authenticator: Authenticator, head: Head, server: str) -> FastCall | None:
    """Return the call of a prediction request whose host and API key are right, or None for every other request."""
    if not STRICT_HEAD.fullmatch(head.data):
        return None  # the parser decides
    first, *lines = head.data.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = [(name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    connection = ",".join(value for name, value in headers if name == "connection").lower().replace(" ", "")
    call = _call(method, path, query, "close" not in connection.split(","))
    if call is None or not _has_json_headers(headers, method):
        return None
    scope = {"path": path, "server": (server, None), HEAD: head}
    scope["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    try:
        authenticator.check(scope)
    except ServiceError:
        return None
    return replace(call, caller=caller(scope))


def fast_path_for(served: ServedModel) -> FastPath | None:
    """Return the fast path of a version; the first call builds it."""
    if PREPARED_KEY not in served.prepared:
        served.prepared[PREPARED_KEY] = build_fast_path(served)
    fast_path: FastPath | None = served.prepared[PREPARED_KEY]
    return fast_path


def _call(method: str, path: str, query: str, keep_alive: bool) -> FastCall | None:
    """Return the call of a prediction request, or None for every other request."""
    project: str | None
    parts = path.split("/")
    if path == "/predict":
        kind, project = "predict", ""
    elif path == "/invocations":
        kind, project = "invocations", _project_in(query)
    elif len(parts) == 4 and parts[1] == "projects" and parts[3] == "predict":
        kind, project = "predict", parts[2]
    elif len(parts) == 5 and parts[1] == "v2" and parts[2] == "models" and parts[4] == "infer":
        kind, project = "infer", parts[3]
    else:
        return None
    if project is None or (not project and len(parts) > 2):
        return None
    if method == "GET" and kind == "predict" and query:
        kind = "query"
    elif method != "POST" or (kind == "infer" and query):
        return None
    return FastCall(kind, project, query, method, path, keep_alive)


def _project_in(query: str) -> str | None:
    """Return the project that the query of /invocations names, empty without a query, or None for any other query."""
    name = query.removeprefix("project=")
    return None if query and (name == query or not re.fullmatch(r"[A-Za-z0-9_.-]+", name)) else name


def _has_json_headers(headers: Sequence[tuple[str, str]], method: str) -> bool:
    """Return whether the headers ask for JSON, and a body is plain JSON."""
    types = 0
    for name, value in headers:
        if name == "content-type":
            types += 1 if value in JSON_TYPES else 2
        elif (name == "accept" and value not in ACCEPTED) or name in UNSUPPORTED_HEADERS:
            return False
    return types == 1 or method == "GET"


@dataclass(frozen=True, slots=True)
class FastResult:
    """A response, and the number of rows in it."""

    body: bytes
    prediction_id: str
    rows: int


@dataclass(slots=True)
class FastOptions:
    """The models that predict, whether to return the inputs, and how many contributions to return."""

    families: Sequence[str]
    inputs: bool = False
    explain: int = 0


@dataclass(frozen=True, slots=True)
class FastPath:
    """The decoder, the scorers and the renderer of one version."""

    head: bytes
    """The status line and the headers that all responses share."""
    served: ServedModel
    decoder: RecordDecoder
    scorers: Mapping[str, RowScorer]
    renderer: JsonRenderer
    booleans: frozenset[str]

    def respond(self, call: FastCall, body: bytes, max_rows: int, record: Record) -> FastResult | None:
        """Return the response, or None to pass the request on to the routes."""
        try:
            return RESPONDERS[call.kind](self, call, body, max_rows, record)
        except (NeedsReport, BadData, PredictionLogFull):
            return None
        except Exception:
            log.exception("the fast path failed; the routes handle the request")
            return None

    def _scores(self, families: Sequence[str], decoded: DecodedRows) -> dict[str, list[Sequence[float]]]:
        try:
            scorers = [(family, self.scorers[family]) for family in families]
        except KeyError:
            raise NeedsReport from None
        return {family: [scorer(row) for row in decoded.rows] for family, scorer in scorers}

    def predict(self, call: FastCall, body: bytes, max_rows: int, record: Record) -> FastResult:
        options = self._options(parse_qsl(call.query, keep_blank_values=True) if call.query else [])
        return self._predictions(call.caller, body, self.decoder.rows_of_json(body, max_rows), options, record)

    def query(self, call: FastCall, body: bytes, max_rows: int, record: Record) -> FastResult:
        if "%" in call.query or "+" in call.query:
            pairs = parse_qsl(call.query, keep_blank_values=True)
        else:
            pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in call.query.split("&"))]
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise NeedsReport
        if not OPTIONS.isdisjoint(self.served.signature.names):
            raise NeedsReport
        options = self._options([(name, fields.pop(name)) for name in ("models", "inputs", "explain") if name in fields])
        return self._predictions(call.caller, call.query.encode(), self.decoder.row_of_text(fields), options, record)

    def _options(self, pairs: Sequence[tuple[str, str]]) -> FastOptions:
        options = FastOptions([self.served.champion])
        for name, value in pairs:
            if name == "models" and (value in ("all", "champion") or value in self.scorers):
                options.families = self.served.families(value)
            elif name == "inputs" and value in ("true", "false"):
                options.inputs = value == "true"
            elif name == "explain" and re.fullmatch("[0-9]{1,4}", value) and 0 < int(value) <= MAX_EXPLAINED:
                options.explain = int(value)
            else:
                raise NeedsReport
        if len(dict(pairs)) < len(pairs):
            raise NeedsReport
        return options

    def _predictions(
        self, caller: str, request: bytes, decoded: DecodedRows, options: FastOptions, record: Record
    ) -> FastResult:
        scores = self._scores(options.families, decoded)
        first, explanations = options.families[0], []
        if options.explain:
            if not is_explained_fast(self.served, first, len(decoded.rows)):
                raise NeedsReport
            explanations = explainer_for(self.served, first).of_rows(decoded.rows, scores[first], options.explain)
        rows = self.renderer.rows(scores, decoded.rows if options.inputs else None, explanations)
        prediction_id = record(self.served, caller, request, scores, decoded.rows)
        text = self.renderer.response(first, rows, prediction_id, decoded.warnings)
        return FastResult(text.encode(), prediction_id, len(rows))

    def infer(self, call: FastCall, body: bytes, max_rows: int, record: Record) -> FastResult:
        identity, fields = _tensor_record(body, self.booleans)
        decoded = self.decoder.rows_of([fields], max_rows)
        scores = self._scores([self.served.champion], decoded)
        prediction_id = record(self.served, call.caller, body, scores, decoded.rows)
        text = self.renderer.tensors(call.project, scores[self.served.champion], identity, prediction_id)
        return FastResult(text.encode(), prediction_id, 1)

    def invocations(self, call: FastCall, body: bytes, max_rows: int, record: Record) -> FastResult:
        decoded = self.decoder.rows_of_split(body, max_rows)
        if decoded is None:
            decoded = self.decoder.rows_of(parse_mlflow_records(decode_small_json(body)), max_rows)
        scores = self._scores([self.served.champion], decoded)
        labels = self.renderer.labels(scores[self.served.champion])
        text = f'{{"predictions": [{", ".join(labels)}]}}'
        return FastResult(text.encode(), record(self.served, call.caller, body, scores, decoded.rows), len(labels))


RESPONDERS: dict[str, Callable[[FastPath, FastCall, bytes, int, Record], FastResult]] = {
    "predict": FastPath.predict,
    "query": FastPath.query,
    "infer": FastPath.infer,
    "invocations": FastPath.invocations,
}


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    content_type: Literal["str"]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: _Parameters | None = None


class _InferenceRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The common form of a request: no requested outputs, and no binary data."""

    inputs: list[_Tensor]
    id: str | None = None


_decode_request = msgspec.json.Decoder(_InferenceRequest).decode


def _tensor_record(body: bytes, booleans: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Return the request id and the record of a request with one tensor per column and one row. Raises NeedsReport."""
    try:
        request = _decode_request(body)
    except (msgspec.MsgspecError, ValueError):
        raise NeedsReport from None
    record: dict[str, Any] = {}
    strings = 1 if request.id is None else 3
    for tensor in request.inputs:
        data, datatype = tensor.data, tensor.datatype
        cell = data[0] if len(data) == 1 else None
        if cell.__class__ is list and len(cell) == 1:
            (cell,) = cell
        if len(data) != 1 or cell.__class__ in (list, dict) or tensor.shape not in ONE_CELL or datatype not in DATATYPES:
            raise NeedsReport
        strings += 6 + (cell.__class__ is str) + (3 if tensor.parameters else 0)
        record[tensor.name] = as_boolean(cell) if tensor.name in booleans and datatype in NUMBERS else cell
    identity = request.id or ""
    if not record or body.count(b'"') != 2 * strings or len(record) < len(request.inputs) or len(identity) > MAX_ID:
        raise NeedsReport  # a field or a tensor is repeated, or a text contains an escaped quote
    return identity, record


def build_fast_path(served: ServedModel) -> FastPath | None:
    """Build the fast path of a version, or return None for panels or if the champion's scorer was not verified."""
    scorers = {family: scorer for family, scorer in served.fast.items() if scorer is not None}
    if served.signature.panel or served.champion not in scorers:
        return None
    booleans = frozenset(column.name for column in served.signature.inputs if column.kind == "boolean")
    headers = [(b"content-type", b"application/json"), (b"x-model-version", served.version.encode()), *SECURITY_HEADERS]
    head = b"".join([b"HTTP/1.1 200 OK\r\n", *(b"%b: %b\r\n" % pair for pair in headers)])
    return FastPath(head, served, decoder_of(served.signature), scorers, renderer_for(served), booleans)

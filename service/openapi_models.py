"""What the service answers, as models that only describe: the description of the API is made from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from podium.registry.audit_entry import GateResult


class ProblemDetail(BaseModel):
    """One wrong cell, row, column or parameter. It never holds the value."""

    code: str
    message: str
    row: int | None = Field(None, description="counted from 1, without the header")
    column: str | None = None
    expected: str | None = None


class Problem(BaseModel):
    """An error in the form of RFC 9457; `type` is the address of its documentation."""

    type: str = Field(examples=["/problems/invalid-type"])
    title: str
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(examples=["invalid-type"])
    error: str = Field(description="the same as `detail`, for clients of the Open Inference Protocol")
    instance: str | None = None
    hint: str | None = None
    errors: list[ProblemDetail] | None = None


class Prediction(BaseModel):
    """The prediction of one record, in the form that all projects share; the schemas of a project say more."""

    prediction: str | float | None = None
    probabilities: dict[str, float] | None = Field(None, description="by class")
    interval: list[float] | None = Field(None, description="the ends of the 90 % prediction interval of a regression")
    models: dict[str, Any] | None = Field(None, description="with several models, the prediction of each by name")
    inputs: dict[str, Any] | None = Field(None, description="with ?inputs=true, what the model used")
    errors: list[ProblemDetail] | None = Field(None, description="with ?on_error=row, why this row has no prediction")


class Predictions(BaseModel):
    """The predictions of one version for the records of one request, in their order."""

    project: str
    version: str
    model: str
    prediction_id: str
    predictions: list[Prediction]
    warnings: list[ProblemDetail]


class Job(BaseModel):
    """A large table that is predicted in the background."""

    job: str
    project: str
    version: str
    state: Literal["waiting", "running", "done", "failed"]
    rows: int
    wrong_rows: int
    warnings: int
    bytes: int
    seconds: float
    result: str | None = Field(None, description="where the result is, once the job is done")
    reason: str | None = None
    errors: list[ProblemDetail] | None = None


class Alive(BaseModel):
    status: str = Field(examples=["alive"])


class Ready(BaseModel):
    """`serving` has the version of each project."""

    status: str = Field(examples=["ready"])
    serving: dict[str, str]
    stale_since: str | None = None


class Serving(BaseModel):
    project: str
    version: str
    sequence: int
    champion: str
    models: list[str]
    fast_path: bool
    predictions: int


class Status(BaseModel):
    """What serves, since when, and what went wrong."""

    uptime_seconds: float
    serving: list[Serving]
    evicted: list[str]
    failures: dict[str, str]
    store: dict[str, Any]
    swaps: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    oldest_check_seconds: float | None
    inbox: dict[str, Any]
    dask: dict[str, Any]


class StoreCheck(BaseModel):
    """Whether the hint was new."""

    accepted: bool


class Version(BaseModel):
    """A published version; `score` is on the test rows, with its 95 % interval from `low` to `high`."""

    version: str
    state: str = Field(description="`in service`, `refused`, `retired`, or empty")
    model: str
    score: float | None
    low: float | None
    high: float | None
    created: str
    author: str


class Versions(BaseModel):
    """The last published versions, the newest first, and the swaps of this process."""

    project: str
    serving: str
    versions: list[Version]
    swaps: list[dict[str, Any]]


class AuditEntryModel(BaseModel):
    """One entry of the history: what was decided about which version, by whom, why and on what evidence."""

    format: int
    project: str
    sequence: int
    action: Literal["promote", "rollback", "refuse", "retire"]
    version: str
    champion: str | None
    manifest_sha256: str | None
    previous: str | None
    by: str
    reason: str
    at: str
    forced: bool
    evidence: list[GateResult]
    request: str
    previous_entry: str | None


class History(BaseModel):
    """Every act, the newest last."""

    project: str
    entries: list[AuditEntryModel]


class ProblemType(BaseModel):
    """What a code of a problem means and what to do."""

    type: str
    code: str
    title: str
    advice: str


class ProblemTypes(BaseModel):
    problems: list[ProblemType]


class Server(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ModelNames(BaseModel):
    models: list[str]


class ModelReady(BaseModel):
    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """A tensor of a model; -1 is the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


Cell = str | float | bool | None


class InputTensor(BaseModel):
    """A tensor of a request: one column, of the shape [n] or [n, 1], or whole rows, of the shape [n, columns]."""

    name: str = Field(examples=["income"])
    shape: list[int] = Field(examples=[[1, 1]])
    datatype: str = Field(examples=["FP64"], description="BOOL, (U)INT8 to (U)INT64, FP16 to FP64, or BYTES")
    data: list[Cell | list[Cell]] | None = Field(None, examples=[[41000.5]], description="absent for a binary tensor")
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size` for a binary tensor")


class OutputName(BaseModel):
    """A tensor that the answer shall have."""

    name: str = Field(examples=["prediction"])
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: true for bytes")


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol; bytes may follow the JSON (binary tensor data extension)."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_output`: true for bytes")
    outputs: list[OutputName] | None = None


class OutputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[str | float | None] | None = None
    parameters: dict[str, Any] | None = None


class InferResponse(BaseModel):
    id: str
    model_name: str = Field(description="the project")
    model_version: str
    parameters: dict[str, Any]
    outputs: list[OutputTensor]


class IndexRequest(BaseModel):
    ready: bool = Field(False, description="only the versions in service")


class ModelState(BaseModel):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class DataframeSplit(BaseModel):
    columns: list[str]
    data: list[list[Cell]]
    index: list[int | str] | None = None


class ScoringRequest(BaseModel):
    """A request of MLflow's scoring protocol: exactly one of the four."""

    dataframe_split: DataframeSplit | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | None = Field(None, description="records, or arrays in training order")
    inputs: dict[str, Any] | list[Any] | None = Field(None, description="columns by name, or records")


class ScoringResponse(BaseModel):
    predictions: list[str | float | None]


MODELS: tuple[type[BaseModel], ...] = (
    Problem, Predictions, Job, Alive, Ready, Status, StoreCheck, Versions, AuditEntryModel, History, Server,
    Live, ServerReady, ModelNames, ModelReady, ModelMetadata, InferRequest, InferResponse, IndexRequest, ModelState,
    ScoringRequest, ScoringResponse, ProblemTypes,
)  # fmt: skip

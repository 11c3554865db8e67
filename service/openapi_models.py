"""Request and response models that only describe the API; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from podium.registry.audit_entry import AuditEntry
from podium.registry.retrain_record import RetrainRecord


class ProblemDetail(BaseModel):
    """An error in one cell, row, column or parameter, without the submitted value."""

    code: str
    message: str
    row: int | None = Field(None, description="row number, starting at 1 and not counting the header")
    column: str | None = None
    expected: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457); `type` is the path of its documentation."""

    type: str = Field(examples=["/problems/invalid-type"])
    title: str
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(examples=["invalid-type"])
    error: str = Field(description="the same as `detail`, for clients of the Open Inference Protocol")
    instance: str | None = None
    hint: str | None = None
    errors: list[ProblemDetail] | None = None


class Explanation(BaseModel):
    """The strongest contributions to a prediction; with `base` and `others`, they add up to the score of `class`."""

    scale: str = Field(description="scale of the contributions: value, probability, logit, log or another link function")
    class_: str | int | None = Field(None, alias="class", description="the predicted class, or the second of two classes")
    base: float | None = Field(description="the score before any contribution")
    contributions: dict[str, float | None] = Field(description="by input, the strongest first")
    others: float | None = Field(description="the sum of all other contributions")


class Prediction(BaseModel):
    """The prediction for one record, in the form common to all projects; each deployed project has a more specific schema."""

    prediction: str | float | None = None
    probabilities: dict[str, float] | None = Field(None, description="by class")
    interval: list[float] | None = Field(None, description="90% prediction interval of a regression model")
    models: dict[str, Any] | None = Field(None, description="predictions by model name, if several models were requested")
    inputs: dict[str, Any] | None = Field(None, description="with ?inputs=true, the parsed inputs")
    explanation: Explanation | None = Field(None, description="with ?explain=K, the contributions of the K strongest inputs")
    errors: list[ProblemDetail] | None = Field(None, description="with ?on_error=row, why this row has no prediction")


class Predictions(BaseModel):
    """The predictions for the records of a request, in order, all by the same version."""

    project: str
    version: str
    model: str
    prediction_id: str
    predictions: list[Prediction]
    warnings: list[ProblemDetail]


class LoggedRows(BaseModel):
    """The rows of a table that have a prediction id, by number from 1."""

    prediction_id: str
    first_row: int
    last_row: int


class Job(BaseModel):
    """A large table predicted in the background."""

    job: str
    project: str
    version: str
    state: Literal["waiting", "running", "done", "failed"]
    rows: int
    wrong_rows: int
    warnings: int
    bytes: int
    seconds: float
    result: str | None = Field(None, description="path of the result, if the job is done")
    logged: list[LoggedRows] | None = Field(None, description="prediction ids, if predictions are logged")
    reason: str | None = None
    errors: list[ProblemDetail] | None = None


class Alive(BaseModel):
    status: str = Field(examples=["alive"])


class Ready(BaseModel):
    """`serving` maps projects to deployed versions."""

    status: str = Field(examples=["ready"])
    serving: dict[str, str]
    stale_since: str | None = None
    prediction_log: str | None = Field(None, description="why predictions wait on the disk, or what is wrong with the log")


class Serving(BaseModel):
    project: str
    version: str
    sequence: int
    champion: str
    models: list[str]
    fast_path: bool
    predictions: int


class Status(BaseModel):
    """Deployed models, workers, swaps and errors."""

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
    prediction_log: dict[str, Any]


class StoreCheck(BaseModel):
    """`accepted` is false for a notification that was already received."""

    accepted: bool


class Version(BaseModel):
    """A published version; `score` is the test score, `low` and `high` are the bounds of its 95% confidence interval."""

    version: str
    state: str = Field(description="`serving`, `rejected`, `retired`, or empty")
    model: str
    score: float | None
    low: float | None
    high: float | None
    created: str
    author: str


class Versions(BaseModel):
    """The latest versions, newest first, and the model swaps of this process."""

    project: str
    serving: str
    versions: list[Version]
    swaps: list[dict[str, Any]]


class History(BaseModel):
    """Promotions, rollbacks, rejections and retirements, and the latest retrainings, newest last.

    `unreadable` says which records of retrainings are not trusted, and why.
    """

    project: str
    entries: list[AuditEntry]
    retrains: list[RetrainRecord]
    unreadable: list[str]


class ProblemType(BaseModel):
    """The meaning of an error code."""

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
    """A tensor of a model; -1 in the shape stands for the number of rows."""

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
    """An input tensor: one column of shape [n] or [n, 1], or whole rows of shape [n, columns]."""

    name: str = Field(examples=["income"])
    shape: list[int] = Field(examples=[[1, 1]])
    datatype: str = Field(examples=["FP64"], description="BOOL, (U)INT8 to (U)INT64, FP16 to FP64, or BYTES")
    data: list[Cell | list[Cell]] | None = Field(None, examples=[[41000.5]], description="absent for a binary tensor")
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size` for a binary tensor")


class OutputName(BaseModel):
    """A requested output tensor."""

    name: str = Field(examples=["prediction"])
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: true for binary data")


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol; binary tensor data may follow the JSON."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_output`: true for binary data")
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
    ready: bool = Field(False, description="list only deployed versions")


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
    """A request of MLflow's scoring protocol, with exactly one of the four fields."""

    dataframe_split: DataframeSplit | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | None = Field(None, description="records, or arrays of values in training order")
    inputs: dict[str, Any] | list[Any] | None = Field(None, description="columns by name, or records")


class ScoringResponse(BaseModel):
    predictions: list[str | float | None]


MODELS: tuple[type[BaseModel], ...] = (
    Problem, Predictions, Job, Alive, Ready, Status, StoreCheck, Versions, AuditEntry, History, Server,
    Live, ServerReady, ModelNames, ModelReady, ModelMetadata, InferRequest, InferResponse, IndexRequest, ModelState,
    ScoringRequest, ScoringResponse, ProblemTypes,
)  # fmt: skip

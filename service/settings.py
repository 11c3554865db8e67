"""What the service can be told, by PODIUM_… variables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from podium.settings import ROOT, StoreSettings
from service.cors import check_origin


def _is_token(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"a key needs {SHORTEST} ASCII characters without blanks at least")
    return secret


SHORTEST = 16
Token = Annotated[SecretStr, AfterValidator(_is_token)]


class ServiceSettings(StoreSettings):
    """Settings enter here and go down as arguments."""

    default_project: str = Field("", description="project behind /predict; the only one when empty")
    refresh_secrets: tuple[SecretStr, ...] = Field(
        (), description="keys that sign hints, as JSON; several while one is replaced"
    )
    api_keys: dict[str, Token] = Field(
        {}, description="who may ask: a JSON object of names and keys; none: anybody, on loopback only"
    )
    public_status: bool = Field(False, description="with keys set, answer /status and /metrics without one")
    allowed_hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description='host names that requests may name, as JSON: "*.example.com" allows subdomains, "*" any host',
    )
    allow_anonymous: bool = Field(False, description="without keys, also answer from elsewhere than loopback")
    max_concurrency: int = Field(64, gt=0, description="requests that are worked on at a time, in a process")
    max_queue: int = Field(64, ge=0, description="requests that may wait for a place; more are turned away (429)")
    queue_timeout: float = Field(2.0, gt=0, description="how long a request may wait for a place (503)")
    request_timeout: float = Field(120.0, gt=0, description="a request that takes longer is ended (504)")
    access_log: bool = Field(True, description="a line of JSON for each request, without values")
    drain_seconds: float = Field(0.0, ge=0, description="from SIGTERM on not ready, and after so long no new connections")
    cors_origins: tuple[Annotated[str, AfterValidator(check_origin)], ...] = Field(
        (), description="origins whose pages may call this service, as JSON, such as https://app.example.com; * for all"
    )
    promoters: dict[str, Token] = Field(
        {}, description="who may promote over HTTP: a JSON object of names and bearer tokens; none: nobody"
    )
    poll_seconds: float = Field(5.0, gt=0, description="how often the aliases are looked at without a hint")
    inbox_poll_seconds: float = Field(15.0, gt=0, description="how often the drop-box is looked at without a hint")
    validation_timeout: float = Field(30.0, gt=0, description="a version that takes longer to load and prove is refused")
    cache: Path = Field(Path(tempfile.gettempdir()) / "podium-cache", description="folder for verified model files")
    shared: Path | None = Field(None, description="folder of uploads and results, of all workers; a temporary one by default")
    model_memory: int = Field(
        2_000_000_000, gt=0, description="memory for models, by the size of their files; who is not asked sleeps"
    )
    allow_library_mismatch: bool = Field(
        False, description="serve versions that were made with other releases of the libraries"
    )
    dask_threshold: int = Field(10, ge=0, description="more records than this go to Dask")
    dask_workers: int = Field(2, ge=0, description="processes of the local cluster; 0 keeps everything in this process")
    dask_address: str = Field("", description="an existing scheduler instead of a local cluster")
    dask_timeout: float = Field(120.0, gt=0, description="after this long the batch is answered in this process")
    async_threshold_bytes: int = Field(5_000_000, gt=0, description="larger files of /batch are answered as a job (202)")
    max_jobs: int = Field(16, gt=0, description="jobs that may wait; more are turned away (429)")
    max_jobs_per_caller: int = Field(8, gt=0, description="unfinished jobs of one caller")
    job_timeout: float = Field(900.0, gt=0, description="a job that takes longer is ended")
    max_result_bytes: int = Field(2_000_000_000, gt=0, description="a job whose result becomes larger is ended")
    max_bytes: int = Field(300_000_000, gt=0, description="largest request body")
    max_json_bytes: int = Field(32_000_000, gt=0, description="largest body of JSON or of a form without a file")
    max_upload_bytes: int = Field(2_000_000_000, gt=0, description="disk space for all bodies that are received at a time")
    max_records: int = Field(1_000_000, gt=0, description="most rows of one request")
    static: Path = Field(ROOT / "service" / "static", description="folder of the page assets")

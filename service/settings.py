"""Settings of the service, from PODIUM_… environment variables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from podium.settings import ROOT, StoreSettings
from service.cors import check_origin

MIN_KEY_LENGTH = 16


def _check_key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value()
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"a key must have at least {MIN_KEY_LENGTH} printable ASCII characters and no spaces")
    return secret


Key = Annotated[SecretStr, AfterValidator(_check_key)]
Origin = Annotated[str, AfterValidator(check_origin)]


class ServiceSettings(StoreSettings):
    """Settings of the service; they are read once and passed down as arguments."""

    # --- models ---
    default_project: str = Field("", description="project behind `/predict`; if empty, the only deployed project")
    poll_seconds: float = Field(5.0, gt=0, description="seconds between checks of the object store for new champions")
    validation_timeout: float = Field(30.0, gt=0, description="maximum seconds to load and validate a version")
    model_memory: int = Field(
        2_000_000_000,
        gt=0,
        description="maximum bytes of loaded models, by file size; the least recently used models are unloaded "
        "and reloaded on the next request",
    )
    allow_library_mismatch: bool = Field(
        False, description="serve versions that were trained with other releases of the installed libraries"
    )
    cache: Path = Field(Path(tempfile.gettempdir()) / "podium-cache", description="folder for verified model files")

    # --- authentication ---
    api_keys: dict[str, Key] = Field(
        {}, description="API keys by name, as a JSON object; without keys, only loopback addresses are served"
    )
    allow_anonymous: bool = Field(False, description="serve all addresses, not only loopback, without API keys")
    public_status: bool = Field(False, description="serve `/status` and `/metrics` without an API key")
    allowed_hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description='accepted Host headers, as a JSON list; "*.example.com" accepts subdomains, "*" any host',
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="origins whose pages may call the service, as a JSON list; * for all"
    )
    promoters: dict[str, Key] = Field(
        {}, description="bearer tokens by promoter, as a JSON object; without tokens, promotion over HTTP is disabled"
    )
    refresh_secrets: tuple[SecretStr, ...] = Field(
        (), description="keys for signed notifications to `/refresh`, as a JSON list; list both keys during rotation"
    )

    # --- requests ---
    max_concurrency: int = Field(64, gt=0, description="maximum requests in progress per worker process")
    max_queue: int = Field(64, ge=0, description="maximum queued requests; beyond that, clients get 429")
    queue_timeout: float = Field(2.0, gt=0, description="maximum seconds in the queue; after that, clients get 503")
    request_timeout: float = Field(120.0, gt=0, description="maximum seconds per request; after that, clients get 504")
    drain_seconds: float = Field(
        0.0, ge=0, description="seconds after SIGTERM during which readiness checks fail but new connections are still accepted"
    )
    max_bytes: int = Field(300_000_000, gt=0, description="maximum bytes of a request body")
    max_json_bytes: int = Field(32_000_000, gt=0, description="maximum bytes of a JSON body or of a form without a file")
    max_upload_bytes: int = Field(2_000_000_000, gt=0, description="maximum bytes on disk of all bodies being received")
    max_records: int = Field(1_000_000, gt=0, description="maximum rows per request")

    # --- Dask ---
    dask_threshold: int = Field(10, ge=0, description="requests with more rows than this run on the Dask cluster")
    dask_workers: int = Field(2, ge=0, description="processes of the local Dask cluster; 0 disables Dask")
    dask_address: str = Field("", description="address of an existing Dask scheduler; replaces the local cluster")
    dask_timeout: float = Field(120.0, gt=0, description="maximum seconds on Dask; after that, the worker process predicts")

    # --- jobs and inbox ---
    async_threshold_bytes: int = Field(5_000_000, gt=0, description="larger files sent to `/batch` become jobs (202)")
    max_jobs: int = Field(16, gt=0, description="maximum unfinished jobs; beyond that, clients get 429")
    max_jobs_per_caller: int = Field(8, gt=0, description="maximum unfinished jobs per API key")
    job_timeout: float = Field(900.0, gt=0, description="maximum seconds per job")
    max_result_bytes: int = Field(2_000_000_000, gt=0, description="maximum bytes of a job's result")
    inbox_poll_seconds: float = Field(
        15.0, ge=0, description="seconds between scans of the inbox; 0 for a replica that processes no files"
    )
    shared: Path | None = Field(
        None, description="folder for uploads and results, shared by all workers; a temporary folder by default"
    )

    # --- prediction log ---
    journal: Path = Field(
        Path(tempfile.gettempdir()) / "podium-journal", description="folder for predictions until they are in the object store"
    )
    journal_bytes: int = Field(1_000_000_000, gt=0, description="maximum bytes of predictions that wait in that folder")
    journal_seconds: float = Field(5.0, gt=0, description="seconds until predictions are written to the object store")
    journal_when_full: Literal["refuse", "answer"] = Field(
        "refuse", description="answer requests with 503, or without logging them, while that folder is full"
    )

    # --- output ---
    access_log: bool = Field(True, description="write one JSON line per request, without input values")
    static: Path = Field(ROOT / "service" / "static", description="folder with the page assets")

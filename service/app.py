"""The FastAPI application: routes, middleware and the objects that they share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from podium import __version__
from podium.inference.inbox import ProcessingOptions, bucket_opener, inbox_files
from podium.prediction_log.journal import Journal
from podium.prediction_log.transparency_log import TransparencyLog
from podium.prediction_log.witness import Witness
from podium.registry.loading import fetcher
from podium.registry.validation import Validator
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, StoreError, digest, s3_client
from podium.storage.reports import latest_report
from service.access_log import AccessLog
from service.active_models import ActiveModels
from service.admission import AdmissionMiddleware
from service.asgi import ASGIApp, HeadAsGet, LoadEvictedModel, Receive, Scope, SecurityHeaders, Send
from service.background import supervised
from service.body_intake import BodyIntake
from service.cors import cors_options
from service.dask_executor import DaskExecutor
from service.deadline import Deadline
from service.error_pages import ErrorPages
from service.fast_path import FastResponder
from service.http_limits import Responder
from service.inbox_worker import InboxWorker, InboxWorkerOptions
from service.jobs import JobLimits, Jobs
from service.metrics import Metrics
from service.openapi import install_openapi, operation_id
from service.pages import Pages
from service.prediction_log import TICK_SECONDS, PredictionLog, Shipping
from service.problems import install_problems
from service.query_parameters import check_query
from service.reconciler import Reconciler
from service.routes import mlflow, monitoring, open_inference, operations, predict, predictions, problems, projects, promotion
from service.services import Services
from service.settings import ServiceSettings
from service.store_calls import from_store
from service.swaps import Swaps
from service.version_loader import VersionLoader
from service.webhooks import Webhooks
from service.worker_directory import WorkerDirectory

REPORT_SECONDS = 300.0
"""How often monitoring reports are read."""
STATUS_SECONDS = 1.0
"""How often a worker publishes its status."""
STORE_TIMEOUT = 5.0
"""Timeout for the reconciler's store calls; promotions use a longer one."""
PAGE_STORE_TIMEOUT = 2.5


class Application(FastAPI):
    """FastAPI behind middleware that needs no routing."""

    respond: Responder
    """Called by the HTTP protocol before `__call__`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.entry: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a lifespan event to the outermost middleware."""
        scope["app"] = self
        await self.entry(scope, receive, send)


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """Create the application: in a function, so that imports have no side effects and tests can choose the settings."""
    settings = settings or ServiceSettings()
    live = ActiveModels(settings.default_project)
    metrics = Metrics(live)
    app = Application(
        title="Podium",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        dependencies=[Depends(check_query)],
    )
    app.state.settings, app.state.live, app.state.metrics = settings, live, metrics
    for router in (
        operations.router,
        predict.router,
        predictions.router,
        projects.router,
        monitoring.router,
        promotion.router,
        open_inference.router,
        mlflow.router,
        problems.router,
    ):
        app.include_router(router)
    _mount_assets(app, settings)
    install_problems(app)
    install_openapi(app, live, settings)
    app.add_middleware(LoadEvictedModel, live=live)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(ErrorPages)
    app.add_middleware(Deadline, seconds=settings.request_timeout)
    bodies = BodyIntake(settings.max_bytes, settings.max_json_bytes, settings.max_upload_bytes, settings.shared)
    app.state.access_log = AccessLog(metrics.log_lines) if settings.access_log else None
    admission = AdmissionMiddleware(app.entry, settings, metrics, bodies, app.state.access_log)
    app.entry = HeadAsGet(admission)
    app.state.predictions = PredictionLog(_journal(settings), metrics, refuses_when_full=settings.journal_when_full == "refuse")
    app.respond = FastResponder(live, metrics, admission, app.state.predictions, settings.dask_threshold)
    if settings.cors_origins:  # outermost: preflight requests have no API key, and browsers must be able to read errors
        app.entry = CORSMiddleware(app.entry, **cors_options(settings.cors_origins))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the services, poll the store once, and start the background tasks; close in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        services = _create_services(app, stack)
        app.state.services = services
        await services.reconciler.start()
        start_validator = services.reconciler.loader.validator.start
        asyncio.get_running_loop().run_in_executor(None, start_validator)  # before the next version needs it
        tasks = {"reconciler": services.reconciler.run, "inbox": services.inbox.run, "dask": services.dask.run}
        tasks["monitoring"] = functools.partial(_watch_reports, services)
        if services.predictions.is_on:
            tasks["prediction-log"] = functools.partial(_ship_predictions, services)
        if services.settings.shared:
            tasks["worker-status"] = functools.partial(_publish_status, services)
        for name, work in tasks.items():
            stack.push_async_callback(_cancel, asyncio.create_task(supervised(name, work, services.metrics)))
        yield


def _create_services(app: FastAPI, stack: contextlib.AsyncExitStack) -> Services:
    """Create the services; requires trusted keys, because no version can be verified without them. Raises BadKey."""
    settings: ServiceSettings = app.state.settings
    live: ActiveModels = app.state.live
    metrics: Metrics = app.state.metrics
    trust, store = settings.trust(), settings.store()
    if app.state.access_log:
        stack.push_async_callback(run_in_threadpool, app.state.access_log.close)
    dask, directory = DaskExecutor(settings), WorkerDirectory(settings.shared)
    stack.push_async_callback(run_in_threadpool, dask.close)
    stack.callback(directory.close)
    jobs = Jobs(dask, directory, _job_limits(settings), metrics.jobs, app.state.predictions)
    stack.push_async_callback(run_in_threadpool, jobs.close)
    validator = Validator(settings.validation_timeout, cache_folder=directory.validations)
    stack.callback(validator.close)
    cache, polled_store = ModelCache(settings.cache), settings.store(STORE_TIMEOUT)
    loader = VersionLoader(fetcher(polled_store, cache), trust, validator, settings.allow_library_mismatch)
    swaps = Swaps(live, metrics, settings.model_memory)
    reconciler = Reconciler(polled_store, cache, loader, swaps, settings.poll_seconds, _witness(settings, polled_store))
    stack.callback(reconciler.close)
    predictions: PredictionLog = app.state.predictions
    processing = ProcessingOptions(
        dask.scores,
        settings.max_bytes,
        lambda: datetime.now(UTC),
        store,
        predictions.record_file_rows,
        predictions.record_label_file if predictions.is_on else None,
    )
    inbox_options = InboxWorkerOptions(processing, directory.folder / "inbox.lock", settings.inbox_poll_seconds)
    shipping = Shipping(app.state.predictions, _journal_folder(settings), settings.journal_seconds)
    stack.push_async_callback(run_in_threadpool, shipping.close)
    metrics.log_waiting_bytes = shipping.waiting_bytes
    open_bucket = bucket_opener(store, settings.source_buckets, lambda bucket: Store(s3_client(), bucket))
    return Services(
        settings=settings,
        store=store,
        pages_store=settings.store(PAGE_STORE_TIMEOUT),
        live=live,
        reconciler=reconciler,
        dask=dask,
        directory=directory,
        webhooks=Webhooks([secret.get_secret_value() for secret in settings.refresh_secrets]),
        pages=Pages(settings.templates),
        metrics=metrics,
        jobs=jobs,
        predictions=app.state.predictions,
        shipping=shipping,
        inbox=InboxWorker(lambda m: inbox_files(store, m, open_bucket), live, reconciler.reload, metrics, inbox_options),
    )


def _journal(settings: ServiceSettings) -> Journal | None:
    """Return the journal of this process, or None if there is no key with which to sign the log. Raises BadKey."""
    if not settings.log_key.get_secret_value():
        return None
    settings.log_signer()
    return Journal(_journal_folder(settings), settings.journal_bytes)


def _witness(settings: ServiceSettings, store: Store) -> Witness | None:
    """Return what checks the prediction log at the start, if there is a key to check it with. Raises BadKey."""
    if not settings.log_keys and not settings.log_key.get_secret_value():
        return None
    remembered = settings.cache / f"log-{digest(store.location.encode())[:16]}"
    return Witness(TransparencyLog(store, settings.log_verifiers(), settings.log_name), remembered)


def _journal_folder(settings: ServiceSettings) -> Path:
    """Return the folder of the journals for this bucket."""
    return settings.journal / digest(settings.store().location.encode())[:16] / "segments"


async def _watch_reports(services: Services) -> None:
    """Read the last monitoring report of each project for the metrics."""
    reports: dict[str, dict[str, Any]] = {}
    services.metrics.reports = lambda: reports
    while True:
        for served in services.live.all():
            with contextlib.suppress(StoreError):
                if report := await from_store(latest_report, services.pages_store, served.project):
                    reports[served.project] = report
        await asyncio.sleep(REPORT_SECONDS)


async def _ship_predictions(services: Services) -> None:
    """Keep the journal flushed and shipped."""
    while True:
        await run_in_threadpool(services.shipping.tick)
        await asyncio.sleep(TICK_SECONDS)


def _job_limits(settings: ServiceSettings) -> JobLimits:
    return JobLimits(settings.max_jobs, settings.max_jobs_per_caller, settings.job_timeout, settings.max_result_bytes)


async def _publish_status(services: Services) -> None:
    """Publish this worker's status for the others, and take over the jobs of workers that have ended."""
    while True:
        with contextlib.suppress(RuntimeError):  # a counter changed while it was being copied; try again in a second
            await run_in_threadpool(services.directory.publish_status, services.status())
            await run_in_threadpool(services.jobs.take_over, services.live.find)
        await asyncio.sleep(STATUS_SECONDS)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _mount_assets(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve the static files of the pages, and Swagger UI from an installed package."""
    app.mount("/static", StaticFiles(directory=settings.static), name="static")
    swagger = importlib.resources.files("fastapi_offline") / "static"
    app.mount("/swagger", StaticFiles(directory=str(swagger)), name="swagger")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> RedirectResponse:
        return RedirectResponse("/static/icon.svg", 301)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> str:
        pages: Pages = app.state.services.pages
        return pages.docs()

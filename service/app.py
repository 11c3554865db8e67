"""The application: its parts in order of creation, its endpoints as one list."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from podium import __version__
from podium.inference.inbox import bucket_opener
from podium.registry.validation import Validator
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, s3_client
from service.access_log import AccessLog
from service.active_models import ActiveModels
from service.admission import AdmissionMiddleware
from service.asgi import Awake, HeadAsGet, SecurityHeaders
from service.background import supervised
from service.body_intake import BodyIntake
from service.cors import cors_options
from service.dask_executor import DaskExecutor
from service.deadline import Deadline
from service.error_pages import ErrorPages
from service.fast_path import FastPathMiddleware
from service.inbox import InboxWorker
from service.jobs import JobLimits, Jobs
from service.metrics import Metrics
from service.openapi import install_openapi, operation_id
from service.pages import Pages
from service.problems import install_problems
from service.query_parameters import check_query
from service.reconciler import Reconciler, ReconcilerOptions
from service.routes import open_inference, operations, predict, problems, projects, promotion
from service.services import Services
from service.settings import ServiceSettings
from service.webhooks import Webhooks
from service.worker_directory import WorkerDirectory

TELL_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How long the loop that looks at the store waits for an answer; promotions are more patient."""
PAGE_SECONDS = 2.5
"""The same for pages."""


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """The service, for `service.server.serve`; a function, so that nothing happens at import and tests choose the settings."""
    settings = settings or ServiceSettings()
    live = ActiveModels(settings.default_project)
    metrics = Metrics(live)
    app = FastAPI(
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
        projects.router,
        promotion.router,
        open_inference.router,
        problems.router,
    ):
        app.include_router(router)
    _mount_assets(app, settings)
    install_problems(app)
    install_openapi(app, live, settings)
    app.add_middleware(Awake, live=live)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(ErrorPages)
    app.add_middleware(Deadline, seconds=settings.request_timeout)
    app.add_middleware(FastPathMiddleware, live=live, metrics=metrics)
    bodies = BodyIntake(settings.max_bytes, settings.max_json_bytes, settings.max_upload_bytes, settings.shared)
    app.state.access_log = AccessLog(metrics.log_lines) if settings.access_log else None
    app.add_middleware(AdmissionMiddleware, settings=settings, metrics=metrics, bodies=bodies, log=app.state.access_log)
    app.add_middleware(HeadAsGet)
    if settings.cors_origins:  # outermost: browsers send preflights without a key, and must be able to read refusals
        app.add_middleware(CORSMiddleware, **cors_options(settings.cors_origins))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the cluster, look at the store once, then keep looking; close in reverse."""
    settings: ServiceSettings = app.state.settings
    trust = settings.trust()  # without keys nothing could be believed, so nothing starts
    async with contextlib.AsyncExitStack() as stack:
        if app.state.access_log:
            stack.push_async_callback(run_in_threadpool, app.state.access_log.close)
        spread, shared = DaskExecutor(settings), WorkerDirectory(settings.shared)
        stack.push_async_callback(run_in_threadpool, spread.close)
        stack.callback(shared.close)
        jobs = Jobs(spread, shared, _job_limits(settings), app.state.metrics.jobs)
        stack.push_async_callback(run_in_threadpool, jobs.close)
        store, validator = settings.store(), Validator(settings.validation_timeout, cache_folder=shared.proofs)
        stack.callback(validator.close)
        metrics: Metrics = app.state.metrics
        limits = ReconcilerOptions(settings.poll_seconds, settings.model_memory, settings.allow_library_mismatch)
        looking = settings.store(LOOK_SECONDS)
        reconcile = Reconciler(looking, ModelCache(settings.cache), app.state.live, trust, validator, metrics, limits)
        stack.callback(reconcile.close)
        webhooks = Webhooks([secret.get_secret_value() for secret in settings.refresh_secrets])
        open_ = bucket_opener(store, settings.source_buckets, lambda bucket: Store(s3_client(), bucket))
        lock, seconds = shared.folder / "drop-box.lock", settings.inbox_poll_seconds
        inbox = InboxWorker(store, open_, app.state.live, reconcile.wake, spread, metrics, lock, seconds, settings.max_bytes)
        pages = Pages(settings.templates)
        app.state.podium = Services(
            settings,
            store,
            settings.store(PAGE_SECONDS),
            app.state.live,
            reconcile,
            spread,
            shared,
            webhooks,
            pages,
            metrics,
            jobs,
            inbox,
        )
        await reconcile.start()
        asyncio.get_running_loop().run_in_executor(None, validator.start)  # ahead of the next proof
        works = {"reconcile": reconcile.run, "drop-box": inbox.run, "dask": spread.run}
        if settings.shared:
            works["tell"] = functools.partial(_tell, app.state.podium)
        for name, work in works.items():
            stack.push_async_callback(_ended, asyncio.create_task(supervised(name, work, metrics)))
        yield


def _job_limits(settings: ServiceSettings) -> JobLimits:
    return JobLimits(settings.max_jobs, settings.max_jobs_per_caller, settings.job_timeout, settings.max_result_bytes)


async def _tell(state: Services) -> None:
    """Tell the other workers of the host what this one serves and has counted, and continue the jobs of ended ones."""
    while True:
        with contextlib.suppress(RuntimeError):  # a count that was added meanwhile: the next second tells it
            await run_in_threadpool(state.shared.publish_status, state.status())
            await run_in_threadpool(state.jobs.take_over, state.live.find)
        await asyncio.sleep(TELL_SECONDS)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _mount_assets(app: FastAPI, settings: ServiceSettings) -> None:
    """Styles and Swagger UI from this host, the latter out of a package."""
    app.mount("/static", StaticFiles(directory=settings.static), name="static")
    swagger = importlib.resources.files("fastapi_offline") / "static"
    app.mount("/swagger", StaticFiles(directory=str(swagger)), name="swagger")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> RedirectResponse:
        return RedirectResponse("/static/icon.svg", 301)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> str:
        pages: Pages = app.state.podium.pages
        return pages.docs()

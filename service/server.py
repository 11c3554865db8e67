"""Run the server: HTTP protocol, logging, worker processes and graceful shutdown."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import socket
from types import FrameType

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.app import create_app
from service.authentication import is_loopback
from service.dask_executor import local_cluster
from service.http_limits import GuardedProtocol, raise_file_limit
from service.logs import log_config
from service.settings import ServiceSettings
from service.worker_directory import TemporaryFolder

SWITCH_SECONDS = 0.0005
"""How long a thread may hold the GIL while the event loop waits for it; a tenth of Python's default."""


class AuthNotConfigured(Exception):
    """The address is public, but neither API keys nor anonymous access are configured."""


class GracefulServer(uvicorn.Server):
    """On SIGTERM, fails readiness checks; after `drain_seconds`, refuses new connections and finishes the open requests."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds, self._draining = drain_seconds, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining or not self._drain_seconds:
            return super().handle_exit(sig, frame)
        self._draining = True
        self.config.app.state.live.draining = True  # type: ignore[union-attr]
        timer = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


FORK_CONTEXT = multiprocessing.get_context("forkserver")
"""Workers are forked from a process with all imports done, so that a worker is replaced in about a second."""


class Worker(Process):
    """A process that accepts connections from the shared socket and creates its own application."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        self.process = FORK_CONTEXT.Process(target=_run_worker, args=(config, sockets))  # type: ignore[assignment]

    def terminate(self) -> None:
        self.process.terminate()


def _run_worker(config: uvicorn.Config, sockets: list[socket]) -> None:
    config.configure_logging()
    _server(config, ServiceSettings()).run(sockets)


class Supervisor(Multiprocess):
    """Keeps the workers alive: a worker that exits is replaced."""

    def init_processes(self) -> None:
        for _ in range(self.processes_num):
            self._start()

    def keep_subprocess_alive(self) -> None:
        for worker in [process for process in self.processes if not process.process.is_alive()]:
            if self.should_exit.is_set():
                return None
            worker.join()
            self.processes.remove(worker)
            if worker.exitcode == STARTUP_FAILURE:
                return self.should_exit.set()
            self._start()

    def _start(self) -> None:
        process = Worker(self.config, self.sockets)
        process.start()
        self.processes.append(process)


def serve(settings: ServiceSettings, host: str, port: int, workers: int = 1) -> None:
    """Run until a signal arrives. Raises AuthNotConfigured, BadKey."""
    if not settings.api_keys and not settings.allow_anonymous and not is_loopback(host):
        raise AuthNotConfigured(
            f"refusing to listen on {host} without API keys: set PODIUM_API_KEYS, "
            "or PODIUM_ALLOW_ANONYMOUS=true if a proxy authenticates clients"
        )
    if not is_loopback(host) and "allowed_hosts" not in settings.model_fields_set:
        raise AuthNotConfigured(
            f"refusing to listen on {host} without PODIUM_ALLOWED_HOSTS: set it to the names that clients use, for example "
            "'[\"models.example.com\"]', or to '[\"*\"]' if a proxy checks them"
        )
    settings.trust()
    config = uvicorn.Config(
        "service.app:create_app",
        host=host,
        port=port,
        workers=workers,
        http=GuardedProtocol,
        ws="none",
        log_config=log_config(),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=20,
    )
    if workers == 1:
        _server(config, settings).run()
    else:
        FORK_CONTEXT.set_forkserver_preload(["service.app"])
        with _shared_resources(settings):
            Supervisor(config, [config.bind_socket()]).run()


def _server(config: uvicorn.Config, settings: ServiceSettings) -> GracefulServer:
    sys.setswitchinterval(SWITCH_SECONDS)
    raise_file_limit()
    config.app = create_app(settings)
    return GracefulServer(config, settings.drain_seconds)


@contextmanager
def _shared_resources(settings: ServiceSettings) -> Iterator[None]:
    """Provide one Dask cluster and one folder for all workers, which find them through environment variables."""
    with ExitStack() as stack:
        if not settings.shared:
            folder = stack.enter_context(contextlib.closing(TemporaryFolder()))
            os.environ["PODIUM_SHARED"] = str(folder.path)
        if settings.dask_workers and not settings.dask_address:
            cluster = stack.enter_context(local_cluster(settings.dask_workers))
            os.environ["PODIUM_DASK_ADDRESS"] = cluster.scheduler_address
        yield

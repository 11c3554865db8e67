"""The service as a process: its protocol, its logs, and an end that costs no request."""

from __future__ import annotations

import ipaddress
import sys
import threading
from types import FrameType

import uvicorn

from service.app import create_app
from service.logs import log_config
from service.protocol import GuardedProtocol
from service.settings import ServiceSettings

SWITCH_SECONDS = 0.0005
"""How long a computing thread keeps the interpreter's lock while the event loop wants it; a tenth of Python's default."""


class NotOpen(Exception):
    """The service would answer anybody, and nobody said that it may."""


class Draining(uvicorn.Server):
    """On the first SIGTERM: not ready any more, then, after the balancer's interval, no new connections, then the end."""

    def __init__(self, config: uvicorn.Config, seconds: float) -> None:
        super().__init__(config)
        self._seconds, self._draining = seconds, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining or not self._seconds:
            return super().handle_exit(sig, frame)
        self._draining = True
        self.config.app.state.live.draining = True  # type: ignore[union-attr]
        timer = threading.Timer(self._seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def serve(settings: ServiceSettings, host: str, port: int) -> None:
    """Run until a signal. Raises NotOpen, BadKey."""
    if not settings.api_keys and not settings.open and not _is_loopback(host):
        raise NotOpen(
            f"{host} can be reached from elsewhere: set PODIUM_API_KEYS, or PODIUM_OPEN=true if a proxy asks who comes"
        )
    settings.trust()
    sys.setswitchinterval(SWITCH_SECONDS)
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        http=GuardedProtocol,
        ws="none",
        log_config=log_config(),
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=20,
    )
    Draining(config, settings.drain_seconds).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

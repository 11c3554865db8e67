"""Command line of the service: `python -m service`."""

from __future__ import annotations

import argparse

from podium.registry.signing import BadKey
from service.server import AuthNotConfigured, serve
from service.settings import ServiceSettings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m service")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    try:
        serve(ServiceSettings(), options.host, options.port, options.workers)
    except (BadKey, AuthNotConfigured) as error:
        raise SystemExit(str(error)) from None

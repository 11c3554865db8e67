"""A worker for the tests of the fork server: it runs the operation that a request names."""

from __future__ import annotations

import functools
import os
import time

from podium.sandbox.child_process import Work
from podium.sandbox.fork_server import Worker


def warm_up() -> None:
    os.environ["WARMED_UP"] = "yes"


def prepare(request: str) -> Work:
    if request == "reject early":
        raise LookupError("rejected before the sandbox")
    if request == "fail early":
        raise OSError("a secret path")
    return functools.partial(run, request)


def run(request: str) -> str:
    if request == "reject":
        raise LookupError("rejected in the sandbox")
    if request == "sleep":
        time.sleep(60)
    if request == "open":
        return str(os.open("/dev/null", os.O_RDONLY))
    return f"{request}, warmed up: {os.environ['WARMED_UP']}, secret: {os.environ.get('PODIUM_SIGNING_KEY')}"


WORKER = Worker(warm_up, prepare, expected=(LookupError,))

"""A loader for the tests of runners: the requests name what to do."""

from __future__ import annotations

import os
import time

from podium.sandbox.runner import Answer, Loader


def import_libraries() -> None:
    os.environ["LOADED"] = "yes"


def load(content: bytes) -> Answer:
    if content == b"reject":
        raise LookupError("a secret")

    def answer(request: bytes) -> bytes:
        if request == b"open":
            os.open("/dev/null", os.O_RDONLY)
        if request == b"exit":
            os._exit(3)
        if request == b"sleep":
            time.sleep(60)
        if request == b"large":
            return bytes(1 << 20)
        return b"|".join([content, request, os.environ["LOADED"].encode(), str(os.environ.get("SECRET")).encode()])

    return answer


LOADER = Loader(import_libraries, load)

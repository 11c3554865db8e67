"""Cross-origin requests from the pages of chosen origins (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from service.open_inference import HEADER_LENGTH

ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")
METHODS = ("GET", "POST", "DELETE")
REQUEST_HEADERS = ("Accept", "Authorization", "Content-Type", "If-Match", "If-None-Match", HEADER_LENGTH, "X-API-Key")
ANSWER_HEADERS = (
    "ETag",
    "Location",
    "Retry-After",
    HEADER_LENGTH,
    "X-Model-Version",
    "X-Prediction-Id",
    "X-Prediction-Warnings",
)


def check_origin(origin: str) -> str:
    """Raises ValueError."""
    if not ORIGIN.fullmatch(origin):
        raise ValueError("an origin has the form https://host or https://host:port, without a path")
    return origin


def cors_options(origins: Sequence[str]) -> dict[str, Any]:
    """The arguments of Starlette's middleware. Cookies are not allowed: keys come in a header."""
    return {
        "allow_origins": list(origins),
        "allow_methods": METHODS,
        "allow_headers": REQUEST_HEADERS,
        "expose_headers": ANSWER_HEADERS,
    }

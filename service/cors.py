"""Cross-origin requests from configured origins (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from service.open_inference import HEADER_LENGTH

ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")
METHODS = ("GET", "POST", "DELETE")
REQUEST_HEADERS = ("Accept", "Authorization", "Content-Type", "If-Match", "If-None-Match", HEADER_LENGTH, "X-API-Key")
RESPONSE_HEADERS = (
    "ETag",
    "Location",
    "Retry-After",
    HEADER_LENGTH,
    "X-Model-Version",
    "X-Prediction-Id",
    "X-Prediction-Warnings",
)


def check_origin(origin: str) -> str:
    """Return the origin if it is valid. Raises ValueError."""
    if not ORIGIN.fullmatch(origin):
        raise ValueError("an origin has the form https://host or https://host:port, without a path")
    return origin


def cors_options(origins: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of Starlette's CORSMiddleware; cookies are not allowed, as API keys are sent in a header."""
    return {
        "allow_origins": list(origins),
        "allow_methods": METHODS,
        "allow_headers": REQUEST_HEADERS,
        "expose_headers": RESPONSE_HEADERS,
    }

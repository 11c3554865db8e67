"""Which form an answer takes: by suffix, else by Accept, else by what came in."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from service.problems import NotAcceptable

Form = Literal["json", "csv", "html", "parquet"]
MEDIA: dict[str, Form] = {
    "application/json": "json",
    "text/csv": "csv",
    "text/html": "html",
    "application/vnd.apache.parquet": "parquet",
    "application/*": "json",
    "text/*": "csv",
}


SUFFIXES: dict[str, Form] = {".json": "json", ".csv": "csv", ".html": "html", ".parquet": "parquet"}


def negotiate(suffix: str, accept: str, default: Form) -> Form:
    """Raises NotAcceptable."""
    if suffix:
        return SUFFIXES[suffix]
    if not accept.strip():
        return default
    for media in _by_quality(accept):
        if media == "*/*":
            return default
        if media in MEDIA:
            return MEDIA[media]
    raise NotAcceptable("answers are application/json, text/csv, text/html or application/vnd.apache.parquet")


def wants_page(request: Request) -> bool:
    """Whether the answer to a browser is a page: it accepts HTML, and the path does not end in `.json`."""
    try:
        return not request.url.path.endswith(".json") and negotiate("", request.headers.get("accept", ""), "json") == "html"
    except NotAcceptable:
        return False


def _by_quality(accept: str) -> list[str]:
    ranges = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        ranges.append((-_number(quality), media))
    return [media for quality, media in sorted(ranges, key=lambda pair: pair[0]) if quality < 0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0

"""Content negotiation: the path suffix decides, else the Accept header, else a default."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from service.errors import NotAcceptable

Format = Literal["json", "csv", "html", "parquet"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv",
    "html": "text/html",
    "parquet": "application/vnd.apache.parquet",
}
SUFFIXES: dict[str, Format] = {f".{name}": name for name in MEDIA_TYPES}
RANGES: dict[str, Format] = {media: name for name, media in MEDIA_TYPES.items()} | {"application/*": "json", "text/*": "csv"}
"""The format for each media range of an Accept header."""


def negotiate(suffix: str, accept: str, default: Format) -> Format:
    """Return the format of the response. Raises NotAcceptable."""
    if suffix:
        return SUFFIXES[suffix]
    if not accept.strip():
        return default
    for media in _by_quality(accept):
        if media == "*/*":
            return default
        if media in RANGES:
            return RANGES[media]
    raise NotAcceptable(f"available: {', '.join(MEDIA_TYPES.values())}")


def json_suffix(request: Request) -> str:
    """Return `.json` if the path ends with it, else an empty string."""
    return ".json" if request.url.path.endswith(".json") else ""


def wants_page(request: Request) -> bool:
    """Return whether to respond with HTML: the client accepts it, and the path does not end with `.json`."""
    try:
        return negotiate(json_suffix(request), request.headers.get("accept", ""), "json") == "html"
    except NotAcceptable:
        return False


def _by_quality(accept: str) -> list[str]:
    ranges = []
    for part in accept.split(","):
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        ranges.append((-_number(quality), media))
    return [media for quality, media in sorted(ranges, key=lambda pair: pair[0]) if quality < 0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0

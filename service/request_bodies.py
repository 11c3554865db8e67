"""Read request bodies of every supported media type, and parse them into rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from podium.inference.json_rows import rows_from_json
from podium.inference.parsed_rows import ParsedRows, ParseOptions
from podium.inference.table_rows import rows_from_form, rows_from_table
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData, Malformed, Problem, TooLarge
from service.asgi import Message, Receive
from service.compute_threads import run_in_compute_thread
from service.errors import CrossSite, StorageFull, UnsupportedMedia

URL_ENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
GZIP = "application/gzip"
TABLES = ("text/csv", "application/csv", "application/vnd.apache.parquet", "application/x-parquet", GZIP)
MAX_BYTES_ON_LOOP = 2_000
"""Larger bodies are parsed in a thread instead of on the event loop."""
RECORD = "podium.record"
"""Key of the pairs of a query in the scope, if some of them are both parameters and columns."""
EXTRA_FIELDS = 100
"""Number of fields that a form may have in addition to the inputs of the model."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request body: its bytes, the fields of a form, or the path of a large table."""

    media: str
    data: bytes
    fields: dict[str, str]
    gzipped: bool = False
    path: Path | None = None

    @property
    def is_form(self) -> bool:
        return self.media in (URL_ENCODED, MULTIPART)

    @property
    def is_upload(self) -> bool:
        return self.media == MULTIPART


@dataclass(frozen=True, slots=True)
class Spool:
    """Where to write tables over `min_bytes`: `new_file` creates an empty file."""

    new_file: Callable[[], Path]
    min_bytes: int


async def read_body(request: Request, max_fields: int, spool: Spool | None = None) -> Body:
    """Read a body; a form may have up to `max_fields` fields; `spool` writes large tables to disk.

    Raises UnsupportedMedia, CrossSite, Malformed, StorageFull.
    """
    media, charset = _media_type(request)
    if request.headers.get("content-encoding", "identity") != "identity" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMedia("bodies must be UTF-8 without Content-Encoding")
    if media in (URL_ENCODED, MULTIPART):
        _check_same_site(request)
        return await _read_form(request, media, max_fields, spool)
    if media != "application/json" and media not in TABLES:
        raise UnsupportedMedia("use application/json, text/csv, application/vnd.apache.parquet or a form")
    if spool and media in TABLES and int(request.headers.get("content-length") or spool.min_bytes + 1) > spool.min_bytes:
        return Body(media, b"", {}, media == GZIP, await _write_stream(request, spool.new_file()))
    return Body(media, await request.body(), {}, media == GZIP)


def _media_type(request: Request) -> tuple[str, str]:
    """Return the media type and the charset of Content-Type."""
    media, *parameters = (part.strip() for part in request.headers.get("content-type", "").lower().split(";"))
    charsets = (part.split("=", 1)[1].strip(' "') for part in parameters if part.startswith("charset="))
    return media, next(charsets, "utf-8")


async def _write_stream(request: Request, path: Path) -> Path:
    """Write the body to a file. Raises StorageFull."""
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                file.write(chunk)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageFull("the file cannot be stored") from None
        raise
    return path


def query_body(request: Request, options: set[str]) -> Body:
    """Return the record in the query, without `options`, as if it were a form. Raises Malformed."""
    pairs = request.scope.get(RECORD, request.query_params.multi_items())
    entries = [(name, value) for name, value in pairs if name not in options]
    if len(dict(entries)) < len(entries):
        raise Malformed([Problem("duplicate-field", "the query repeats a field")])
    return Body(URL_ENCODED, b"", dict(entries))


async def _read_form(request: Request, media: str, max_fields: int, spool: Spool | None) -> Body:
    detector = MultipartEndDetector()
    try:
        observed = Request(request.scope, detector.observe(request.receive))
        form = await observed.form(max_files=1, max_fields=max_fields + EXTRA_FIELDS)
    except HTTPException as error:
        raise _form_error(str(error.detail)) from None
    except OSError:
        raise StorageFull("the file cannot be stored") from None
    if media == MULTIPART and not detector.is_complete:
        raise Malformed([Problem("upload-incomplete", "the upload is incomplete")])
    names = [name for name, _ in form.multi_items()]
    if len(set(names)) < len(names):
        raise Malformed([Problem("duplicate-field", "the form repeats a field")])
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if media == MULTIPART and not files:
        raise BadData([Problem("empty-input", "no file was chosen")])
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if not files:
        return Body(media, b"", fields)
    gzipped = (files[0].filename or "").endswith(".gz")
    if spool and (files[0].size or 0) > spool.min_bytes:
        path = spool.new_file()
        await run_in_compute_thread(_copy, files[0], path)
        return Body(media, b"", fields, gzipped, path)
    return Body(media, await files[0].read(), fields, gzipped)


class MultipartEndDetector:
    """Remembers the last bytes of a body, as Starlette's parser accepts incomplete multipart bodies."""

    def __init__(self) -> None:
        self._last = b""

    def observe(self, receive: Receive) -> Receive:
        async def receive_observed() -> Message:
            message = await receive()
            self._last = (self._last + message.get("body", b"")[-8:])[-8:]
            return message

        return receive_observed

    @property
    def is_complete(self) -> bool:
        """Whether the body ends with a closing boundary."""
        return self._last.rstrip(b"\r\n").endswith(b"--")


def _form_error(message: str) -> BadData:
    """Translate an error message of Starlette's form parser."""
    if "Too many files" in message:
        return Malformed([Problem("duplicate-field", "the form has more than one file")])
    if "Too many fields" in message:
        return TooLarge([Problem("too-many-fields", "the form has too many fields")])
    if "exceeded maximum size" in message:
        return BadData([Problem("out-of-range", "a field of the form is too long")])
    code = "multipart-malformed" if "boundary" in message.lower() else "upload-incomplete"
    return Malformed([Problem(code, "the form cannot be parsed")])


def _copy(file: UploadFile, path: Path) -> None:
    """Copy an upload to a file. Raises StorageFull."""
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
    except OSError:
        path.unlink(missing_ok=True)
        raise StorageFull("the file cannot be stored") from None


def _check_same_site(request: Request) -> None:
    """Check the headers that browsers send with a form. Raises CrossSite."""
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    is_foreign = origin not in ("", "null") and origin.split("://", 1)[-1] != host
    if is_foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise CrossSite("cross-site form posts are not allowed")


async def parse_rows(body: Body, signature: Signature, max_rows: int, options: ParseOptions) -> ParsedRows:
    """Parse a body that is in memory. Raises BadData."""
    if body.media == "application/json":
        if len(body.data) <= MAX_BYTES_ON_LOOP:
            return rows_from_json(body.data, signature, max_rows, options)
        return await run_in_compute_thread(rows_from_json, body.data, signature, max_rows, options)
    if body.media == URL_ENCODED:
        return await run_in_compute_thread(rows_from_form, body.fields, signature)
    table_options = replace(options, gzipped=body.gzipped)
    return await run_in_compute_thread(rows_from_table, body.data, signature, max_rows, table_options)

"""Bodies of every media type to inputs."""

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
from service.problems import CrossSite, StorageFull, UnsupportedMedia

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
GZIP = "application/gzip"
TABLES = ("text/csv", "application/csv", "application/vnd.apache.parquet", "application/x-parquet", GZIP)
SMALL = 2_000
"""Bodies up to this size are parsed where they arrive; larger ones in a thread."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's bytes, or the fields of its form."""

    media: str
    data: bytes
    fields: dict[str, str]
    gzipped: bool = False
    path: Path | None = None

    @property
    def is_form(self) -> bool:
        return self.media in FORMS

    @property
    def is_upload(self) -> bool:
        return self.media == "multipart/form-data"


Spool = Callable[[], Path]
"""Where a table goes that is too large to be kept in memory."""


async def read_body(request: Request, fields: int, spool: Spool | None = None, most: int = 0) -> Body:
    """The body with its media type; a form may have so many fields; with `spool`, tables over `most` bytes go to disk.

    Raises UnsupportedMedia, CrossSite, Malformed, StorageFull.
    """
    media, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    media = media.strip()
    charset = next((p.split("=", 1)[1].strip(' "') for p in parameters.split(";") if p.strip().startswith("charset=")), "utf-8")
    if request.headers.get("content-encoding", "identity") != "identity" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMedia("bodies are UTF-8 and not compressed")
    if media in FORMS:
        _check_site(request)
        return await _read_form(request, media, fields, spool, most)
    if media != "application/json" and media not in TABLES:
        raise UnsupportedMedia("send application/json, text/csv, Parquet or a form")
    if spool and media in TABLES and int(request.headers.get("content-length") or most + 1) > most:
        path = spool()
        try:
            with path.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StorageFull("the file cannot be kept now") from None
            raise
        return Body(media, b"", {}, media == GZIP, path)
    return Body(media, await request.body(), {}, media == GZIP)


def query_body(request: Request, options: set[str]) -> Body:
    """A record in the query, but for the options, as if it were a form. Raises Malformed."""
    entries = [(name, value) for name, value in request.query_params.multi_items() if name not in options]
    if len(dict(entries)) < len(entries):
        raise Malformed([Problem("duplicate-field", "the query names a field twice")])
    return Body(FORMS[0], b"", dict(entries))


async def _read_form(request: Request, media: str, fields: int, spool: Spool | None, most: int) -> Body:
    end = End()
    try:
        form = await Request(request.scope, end.watching(request.receive)).form(max_files=1, max_fields=fields + 100)
    except HTTPException as error:
        raise _wrong_form(str(error.detail)) from None
    except OSError:
        raise StorageFull("the file cannot be kept now") from None
    if media == "multipart/form-data" and not end.is_closed:
        raise Malformed([Problem("upload-incomplete", "the upload ends in the middle")])
    names = [name for name, _ in form.multi_items()]
    if len(set(names)) < len(names):
        raise Malformed([Problem("duplicate-field", "the form names a field twice")])
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if media == "multipart/form-data" and not files:
        raise BadData([Problem("empty-input", "no file was chosen")])
    path = spool() if spool and files and (files[0].size or 0) > most else None
    if path:
        await run_in_compute_thread(_copy, files[0], path)
    data = await files[0].read() if files and not path else b""
    gzipped = bool(files) and (files[0].filename or "").endswith(".gz")
    return Body(media, data, {name: value for name, value in form.items() if isinstance(value, str)}, gzipped, path)


class End:
    """The last bytes of a body that others read."""

    def __init__(self) -> None:
        self._last = b""

    def watching(self, receive: Receive) -> Receive:
        async def seen() -> Message:
            message = await receive()
            self._last = (self._last + message.get("body", b"")[-8:])[-8:]
            return message

        return seen

    @property
    def is_closed(self) -> bool:
        """Whether a multipart body came to its end."""
        return self._last.rstrip(b"\r\n").endswith(b"--")


def _wrong_form(said: str) -> BadData:
    """What Starlette's parser found, as a problem."""
    if "Too many files" in said:
        return Malformed([Problem("duplicate-field", "the form has several files")])
    if "Too many fields" in said:
        return TooLarge([Problem("too-many-fields", "the form has too many fields")])
    if "exceeded maximum size" in said:
        return BadData([Problem("out-of-range", "a field of the form is too long")])
    code = "multipart-malformed" if "boundary" in said.lower() else "upload-incomplete"
    return Malformed([Problem(code, "the form cannot be read")])


def _copy(file: UploadFile, path: Path) -> None:
    """Raises StorageFull."""
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
    except OSError:
        path.unlink(missing_ok=True)
        raise StorageFull("the file cannot be kept now") from None


def _check_site(request: Request) -> None:
    """Browsers say where a form came from; raises CrossSite for another site's."""
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    foreign = origin not in ("", "null") and origin.split("://", 1)[-1] != host
    if foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise CrossSite("send forms from the pages of this service")


async def parse(body: Body, signature: Signature, most: int, asked: ParseOptions) -> ParsedRows:
    """Typed inputs; raises BadData."""
    if body.media == "application/json":
        if len(body.data) <= SMALL:
            return rows_from_json(body.data, signature, most, asked)
        return await run_in_compute_thread(rows_from_json, body.data, signature, most, asked)
    if body.media == "application/x-www-form-urlencoded":
        return await run_in_compute_thread(rows_from_form, body.fields, signature)
    return await run_in_compute_thread(rows_from_table, body.data, signature, most, replace(asked, gzipped=body.gzipped))

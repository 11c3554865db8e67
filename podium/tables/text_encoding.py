"""Decode text files: UTF-8, UTF-16, or a fallback such as Windows-1252."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from podium.schema.data_errors import BadData, Problem
from podium.tables.size_limits import Limits, too_large

BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CHUNK_BYTES = 1 << 20
MAX_BYTES_IN_MEMORY = 64 << 20


@contextmanager
def as_utf8(stream: Any, fallback: str, limits: Limits) -> Iterator[tuple[Any, str]]:
    """Yield the text as UTF-8 without NUL, from its start, and the name of its encoding. Raises BadData.

    The encoding is UTF-16 if the text begins like it, else UTF-8 if the text is valid, else `fallback`.
    """
    encoding = _encoding_of_start(stream)
    if encoding == "utf-8":
        error = _first_invalid_byte(stream)
        if error is None:
            stream.seek(0)
            yield stream, encoding
            return
        if codecs.lookup(fallback).name == "utf-8" or "NUL" in error.problems[0].message:
            raise error
        encoding = fallback
    with tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY) as text:
        _transcode(stream, encoding, text, limits)
        yield text, encoding


def _encoding_of_start(stream: IO[bytes]) -> str:
    """Return the encoding that the byte order mark or the position of NUL bytes implies; `utf-8` by default."""
    stream.seek(0)
    start = stream.read(256)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return "utf-8" if encoding == "utf-8-sig" else encoding
    if len(start) >= 4 and not any(start[0::2]) and all(start[1::2]):
        return "utf-16-be"
    return "utf-16-le" if len(start) >= 4 and all(start[0::2]) and not any(start[1::2]) else "utf-8"


def _first_invalid_byte(stream: IO[bytes]) -> BadData | None:
    stream.seek(0)
    decoder, size = codecs.getincrementaldecoder("utf-8")(), 0
    while chunk := stream.read(CHUNK_BYTES):
        if b"\0" in chunk:
            return _not_text(size + chunk.index(0), "NUL")
        start = size - len(decoder.getstate()[0])
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            return _not_text(start + error.start, "not UTF-8")
        size += len(chunk)
    pending = decoder.getstate()[0]
    return _not_text(size - len(pending), "not UTF-8") if pending else None


def _transcode(stream: IO[bytes], encoding: str, target: Any, limits: Limits) -> None:
    stream.seek(0)
    size, decoder = 0, codecs.getincrementaldecoder(encoding)()
    while True:
        chunk = stream.read(CHUNK_BYTES)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_text(error.start, f"not {encoding}") from None
        if "\0" in text:
            raise _not_text(size, "NUL")
        size += target.write(text.encode(errors="replace"))
        if size > limits.decoded_bytes:
            raise too_large(limits.decoded_bytes)
        if not chunk:
            break
    target.seek(0)


def _not_text(position: int, description: str) -> BadData:
    return BadData([Problem("invalid-encoding", f"byte {position} is {description}", expected="UTF-8 text")])

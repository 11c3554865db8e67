"""Parquet footers and page headers crafted to cost time are rejected quickly."""

from __future__ import annotations

import time

import pytest

from podium.schema.data_errors import BadData
from podium.tables.readers import ReadOptions, read_table
from podium.tables.size_limits import REQUEST

I32, BINARY, LIST, STRUCT = 5, 8, 9, 12


def number(value: int) -> bytes:
    """A zigzag varint."""
    left, data = value << 1, b""
    while left > 127:
        data, left = data + bytes([left & 127 | 128]), left >> 7
    return data + bytes([left])


def field(step: int, kind: int, data: bytes) -> bytes:
    return bytes([step << 4 | kind]) + data


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def many(kind: int, items: list[bytes]) -> bytes:
    length, size = len(items), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([0xF0 | kind]) + size + bytes([length]) + b"".join(items)


def with_footer(body: bytes, footer: bytes) -> bytes:
    return b"PAR1" + body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def skipped_pages(groups: int, pages: int, *, shared: bool) -> bytes:
    """Row groups whose column has many pages of a type that readers skip; all use the same pages if `shared`."""
    skip = field(1, I32, number(1)) + field(1, I32, number(0)) + field(1, I32, number(0)) + b"\0"
    own = skip * pages
    chunks = []
    for place in range(groups):
        start = 4 + (0 if shared else place * len(own))
        meta = field(1, I32, number(1)) + field(1, LIST, many(I32, [number(0)])) + field(1, LIST, many(BINARY, [text("a")]))
        meta += (
            field(1, I32, number(0)) + field(1, 6, number(1)) + field(1, 6, number(len(own))) + field(1, 6, number(len(own)))
        )
        meta += field(2, 6, number(start)) + b"\0"
        column = field(2, 6, number(start)) + field(1, STRUCT, meta) + b"\0"
        chunks.append(field(1, LIST, many(STRUCT, [column])) + field(1, 6, number(len(own))) + field(1, 6, number(1)) + b"\0")
    schema = [field(4, BINARY, text("schema")) + field(1, I32, number(1)) + b"\0"]
    schema += [field(1, I32, number(1)) + field(2, I32, number(1)) + field(1, BINARY, text("a")) + b"\0"]
    footer = field(1, I32, number(1)) + field(1, LIST, many(STRUCT, schema)) + field(1, 6, number(groups))
    footer += field(1, LIST, many(STRUCT, chunks)) + b"\0"
    return with_footer(own * (1 if shared else groups), footer)


@pytest.mark.parametrize(
    "data",
    [
        skipped_pages(300, 40_000, shared=True),
        skipped_pages(1, 200_000, shared=False),
        with_footer(b"", b"\x19" * 3000),
        with_footer(b"", b"\x1c" * 3000),
    ],
    ids=["shared pages", "skipped pages", "nested lists", "nested structures"],
)
def test_crafted_headers_are_rejected_quickly(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BadData):
        read_table(data, ReadOptions(limits=REQUEST))
    assert time.process_time() - started < 5

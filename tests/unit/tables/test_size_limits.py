"""Size limits hold before anything is copied or cast, for every table format."""

from __future__ import annotations

import gzip
import io
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.schema.data_errors import BadData, Malformed
from podium.tables.readers import ReadOptions, read_in_pieces, read_table
from podium.tables.size_limits import Limits

MB = 1_000_000
LIMITS = Limits(rows=MB, columns=1_000, decoded_bytes=20 * MB)


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def repeated(text: str | bytes, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))


def varint(number: int, length: int) -> bytes:
    """A varint of Thrift's compact protocol, padded to a length."""
    number <<= 1
    return bytes((number >> 7 * place & 127) | (128 if place < length - 1 else 0) for place in range(length))


def with_false_sizes(data: bytes) -> bytes:
    """Return the file with a footer that claims tiny pages."""
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length :]
    facts = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    for size in {facts.total_byte_size, facts.column(0).total_uncompressed_size}:
        count = next(count for count in range(1, 6) if size << 1 < 1 << 7 * count)
        assert varint(size, count) in footer
        footer = footer.replace(varint(size, count), varint(1, count))
    return body + footer


ZEROS = pa.table({"x": np.zeros(MB), "y": np.zeros(MB), "z": np.zeros(MB)})
LONG = pa.table({"x": ["y" * 30 * MB]})
CSV = b"a,b\n" + b"1,2\n" * 5 * MB
PARQUET = {
    "a text for many rows": parquet(pa.table({"x": repeated("y" * MB, 1_500)})),
    "bytes for many rows": parquet(pa.table({"x": repeated(b"y" * MB, 1_500)})),
    "a text of a category for many rows, plain": parquet(pa.table({"x": ["y" * 50_000] * 1_500}), compression="zstd"),
    "a text in pages without dictionary": parquet(pa.table({"x": ["y" * 50_000] * 1_500}), use_dictionary=False),
    "prefixes": parquet(
        pa.table({"x": ["y" * 50_000] * 1_500}), use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"}
    ),
    "run lengths": parquet(ZEROS),
    "differences": parquet(
        pa.table({"x": np.zeros(MB, dtype=np.int64)} | {str(n): np.zeros(MB, dtype=np.int64) for n in range(3)}),
        use_dictionary=False,
        column_encoding=dict.fromkeys(["x", "0", "1", "2"], "DELTA_BINARY_PACKED"),
    ),
    "nulls": parquet(pa.table({str(n): pa.nulls(MB, pa.float64()) for n in range(10)})),
    "declared rows": parquet(pa.table({"x": pa.nulls(50 * MB)})),
    "row groups": parquet(pa.table({"x": np.arange(2_000)}), row_group_size=1),
    "columns": parquet(pa.table({str(n): [1] for n in range(1_001)})),
    "a large page": parquet(LONG, use_dictionary=False, compression="zstd"),
    "a large page, false sizes": with_false_sizes(
        parquet(LONG, use_dictionary=False, compression="zstd", write_statistics=False)
    ),
    "lists": parquet(pa.table({"x": pa.array([[0.0] * MB])})),
    "records": parquet(pa.table({"x": pa.array([{"a": 1}])})),
    "bytes of one length": parquet(pa.table({"x": pa.array([b"y" * 1_000] * 10, pa.binary(1_000))})),
    "a footer": parquet(pa.table({"x": [1]}).replace_schema_metadata({"more": "y" * MB})),
}


@pytest.mark.parametrize("name", PARQUET)
def test_too_large_parquet_is_rejected_before_it_is_decoded(name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadData) as caught:
        read_table(PARQUET[name], ReadOptions(limits=LIMITS))
    (tmp_path / "t").write_bytes(PARQUET[name])
    with pytest.raises(BadData):
        list(read_in_pieces(tmp_path / "t", ReadOptions(limits=LIMITS)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000
    assert caught.value.status in (413, 415, 422)


def test_parquet_within_the_limits_is_read(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(100_000.0), "y": repeated("text", 100_000), "z": pa.array([None, True] * 50_000)})
    for options in ({}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"row_group_size": 999}):
        data = parquet(table, **options)
        (tmp_path / "t").write_bytes(data)
        found = read_table(data, ReadOptions(limits=LIMITS))
        assert found.slice(0, 2).to_pydict() == {"x": ["0", "1"], "y": ["text"] * 2, "z": [None, "true"]}
        assert pa.concat_tables(read_in_pieces(tmp_path / "t", ReadOptions(limits=LIMITS))).equals(found.combine_chunks())


def test_long_texts_are_read_in_small_chunks(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(parquet(pa.table({"x": repeated("y" * 10_000, 1_000)})))
    pieces = list(read_in_pieces(tmp_path / "t", chunk_bytes=MB))
    assert sum(piece.num_rows for piece in pieces) == 1_000
    assert max(piece.nbytes for piece in pieces) < 2 * MB


def test_a_damaged_parquet_file_is_always_reported_as_bad_data() -> None:
    data = parquet(pa.table({"x": ["a", "b", None] * 50, "y": np.arange(150.0)}))
    generator = random.Random(1)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        try:
            read_table(bytes(damaged), ReadOptions(limits=LIMITS))
        except BadData:
            continue


GZIP = {
    "one member": gzip.compress(CSV + b"1,2\n" * 5 * MB),
    "many members": gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n" * MB) * 20,
    "empty members": gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"") * 10_000 + gzip.compress(b"1,2\n" * 10 * MB),
    "a cell": gzip.compress(b"a,b\n1," + b"x" * 30 * MB + b"\n"),
    "Parquet": gzip.compress(PARQUET["a text for many rows"]),
    "NUL": gzip.compress(b"\0" * 100 * MB),
    "gzip": gzip.compress(gzip.compress(b"\0" * 100 * MB)),
}


@pytest.mark.parametrize("name", GZIP)
def test_gzip_is_rejected_at_the_limit(name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadData):
        read_table(GZIP[name], ReadOptions(gzipped=True, limits=LIMITS))
    (tmp_path / "t").write_bytes(GZIP[name])
    with pytest.raises(BadData):
        for _ in read_in_pieces(tmp_path / "t", ReadOptions(gzipped=True, limits=LIMITS)):
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (CSV + CSV, "too-large"),
        (b"a,b\n" + b",\n" * 3 * MB, "too-large"),
        (b"a,b\n" + b"1,2\n" * (MB + 1), "too-many-rows"),
        (b"a,b\n1," + b"x" * 2 * MB + b"\n", "out-of-range"),
        (",".join(f"c{n}" for n in range(1_001)).encode() + b"\n", "too-many-columns"),
        (b"," * 5 * MB, "invalid-encoding"),
        (b"a,b\n1,2\n3,\xe4\n", "invalid-encoding"),
        ("a,b\n1,é\n".encode()[:-2], "invalid-encoding"),
        (b'a,"b' + b"x" * 5 * MB + b'"\n1,2\n', "invalid-encoding"),
        (b'a,"b\n' + b"1,2\n" * MB + b'"\n1,2\n', "invalid-encoding"),
    ],
)
def test_too_large_csv_is_rejected_before_it_is_parsed(data: bytes, code: str) -> None:
    with pytest.raises(BadData) as caught:
        read_table(data, ReadOptions(limits=LIMITS))
    assert caught.value.code == code


def test_many_columns_and_rows_of_wrong_length_are_rejected_quickly() -> None:
    names = ",".join(f"c{n}" for n in range(10_000)).encode()
    assert read_table(names + b"\n" + b"," * 9_999 + b"\n").num_columns == 10_000
    with pytest.raises(BadData) as caught:
        read_table(b"a,b\n" + b"1\n" * MB)
    assert len(caught.value.problems) == 100


def test_unknown_columns_are_rejected_before_rows_are_read(tmp_path: Path) -> None:
    class Refused(Exception):
        pass

    def check(names: Any) -> None:
        raise Refused(list(names))

    damaged = parquet(pa.table({"a": [1], "b": [2]}))
    damaged = damaged[:4] + b"\xff" * 20 + damaged[24:]
    for data in (b"a,b\n1\n", damaged):
        (tmp_path / "t").write_bytes(data)
        with pytest.raises(Refused):
            list(read_in_pieces(tmp_path / "t", ReadOptions(check=check)))
    with pytest.raises(Malformed):
        read_table(damaged)

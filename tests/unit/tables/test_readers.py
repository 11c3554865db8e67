"""The reader of CSV, gzip and Parquet tables."""

from __future__ import annotations

import gzip
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.schema.data_errors import BadData, Malformed, TooLarge, WrongType
from podium.schema.reading import Reading
from podium.tables.csv_header import HeaderOptions
from podium.tables.readers import ReadOptions, read_source, read_table
from podium.tables.size_limits import Limits

GOOD = [
    (b"a,b\n1,x\n", {"a": ["1"], "b": ["x"]}),
    (b"\xef\xbb\xbfa,b\n1,x\n", {"a": ["1"], "b": ["x"]}),
    (b"a,b\r\n1,x\r\n", {"a": ["1"], "b": ["x"]}),
    (b"a,b\r1,x\r", {"a": ["1"], "b": ["x"]}),
    (b'a,b\n1,"x\ny"\n', {"a": ["1"], "b": ["x\ny"]}),
    (b'a,b\n1,"x ""y"""\n', {"a": ["1"], "b": ['x "y"']}),
    (b"a,b\n1,NA\n2,\n", {"a": ["1", "2"], "b": ["NA", ""]}),
    ("a,b\n1,Köln\n".encode(), {"a": ["1"], "b": ["Köln"]}),
    ("a,b\n1,Köln\n".encode("utf-16"), {"a": ["1"], "b": ["Köln"]}),
    ("a,b\n1,2\n".encode("utf-16-le"), {"a": ["1"], "b": ["2"]}),
    (b"a;b\n1;2,5\n", {"a": ["1"], "b": ["2,5"]}),
    (b"a\tb\n1\t2\n", {"a": ["1"], "b": ["2"]}),
    (b"sep=|\na|b\n1|2\n", {"a": ["1"], "b": ["2"]}),
    (b"a,a\n1,2\n", {"a": ["1"], "a.1": ["2"]}),
    (b"a,\n1,2\n", {"a": ["1"], "Unnamed: 1": ["2"]}),
    (b",a\n0,2\n", {"Unnamed: 0": ["0"], "a": ["2"]}),
    (b" a, b\n1,2\n", {"a": ["1"], "b": ["2"]}),
    (b"a,b\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"], "Unnamed: 2": ["", ""]}),
    (b'"a","b"\n"x",1,2\n"y",3,4\n"z",5,6\n', {"Unnamed: 0": ["x", "y", "z"], "a": ["1", "3", "5"], "b": ["2", "4", "6"]}),
    (b"a,b\n1,3,2\n2,3,4\n3,5,6\n", {"Unnamed: 0": ["1", "2", "3"], "a": ["3", "3", "5"], "b": ["2", "4", "6"]}),
    (b'a,b\n1,5" pipe\n2,x\n', {"a": ["1", "2"], "b": ['5" pipe', "x"]}),
    (b"a,b\n\n1,x\n\n", {"a": ["1"], "b": ["x"]}),
]

BAD = [
    (b"", "empty-input"),
    (b"\n\n", "empty-input"),
    (b"a,b\n", "empty-input"),
    (b"a,b\n1,2,3\n", "csv-row-length"),
    (b"name,age\nDoe, John,35\nRoe, Jane,36\nPoe, Jim,37\n", "csv-row-length"),
    (b"a,b\n1,2\n# a comment\n3,4\n", "csv-row-length"),
    (b"a,b\n1,2\nsum\n", "csv-row-length"),
    (b"a,b\n1\n", "csv-row-length"),
    (b"a,b\n1,2,3\n1,2,3\n", "csv-row-length"),
    (b'a,b\n1,"x\n', "csv-quote"),
    (b"a,b\n1,\x00\n", "invalid-encoding"),
    (b"a,b\n1,\xe4\n", "invalid-encoding"),
]


@pytest.mark.parametrize(("data", "columns"), GOOD)
def test_a_table_is_read_as_text(data: bytes, columns: dict[str, list[str]]) -> None:
    assert read_table(data).to_pydict() == columns


@pytest.mark.parametrize(("data", "code"), BAD)
def test_an_invalid_table_is_rejected_with_a_code(data: bytes, code: str) -> None:
    with pytest.raises(BadData) as caught:
        read_table(data)
    assert caught.value.code == code


def test_all_rows_of_wrong_length_are_reported() -> None:
    with pytest.raises(BadData) as caught:
        read_table(b"a,b\n1,2\n1\n1,2\n1,2,3\n")
    assert [problem.row for problem in caught.value.problems] == [2, 4]


OTHER_TYPES = {
    "zip": b"PK\x03\x04rest",
    "gzip": gzip.compress(b"a,b\n1,2\n", mtime=0),
    "JSON": b'[{"a": 1}, {"a": 2}]',
    "JSON Lines": b'\xef\xbb\xbf{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n',
    "JSON lists": b"[\n  [1, 2]\n]",
    "HTML": b"\n<!DOCTYPE html><html><table>",
}


@pytest.mark.parametrize("media_type", OTHER_TYPES)
@pytest.mark.parametrize("is_training", [True, False])
def test_other_media_types_are_rejected(media_type: str, is_training: bool) -> None:
    options = ReadOptions(is_training=is_training and media_type != "gzip")
    with pytest.raises(WrongType, match=f"{media_type.split()[0]}.*; send CSV or Parquet"):
        read_table(OTHER_TYPES[media_type], options)


def test_training_recognizes_gzip_by_its_first_bytes() -> None:
    for data in (b"a,b\n1,2\n", gzip.compress(b"a,b\n1,2\n", mtime=0)):
        assert read_table(data, ReadOptions(is_training=True)).to_pydict() == {"a": ["1"], "b": ["2"]}


def test_gzip_is_decompressed_only_if_declared() -> None:
    assert read_table(gzip.compress(b"a,b\n1,2\n", mtime=0), ReadOptions(gzipped=True)).to_pydict() == {"a": ["1"], "b": ["2"]}
    with pytest.raises(Malformed):
        read_table(gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], ReadOptions(gzipped=True))


def test_a_decompression_bomb_is_rejected() -> None:
    with pytest.raises(BadData) as caught:
        read_table(gzip.compress(b"a,b\n" + b"1,2\n" * 100_000), ReadOptions(gzipped=True, limits=Limits(decoded_bytes=10_000)))
    assert caught.value.code == "too-large"


def test_parquet_gives_the_same_text_as_csv() -> None:
    frame = pd.DataFrame(
        {"n": [1.5, None], "t": ["x", "y"], "d": pd.to_datetime(["2020-01-02", "2021-03-04"]), "b": [True, False]}
    )
    file = io.BytesIO()
    frame.to_parquet(file)
    table = read_table(file.getvalue()).to_pydict()
    assert table == {"n": ["1.5", None], "t": ["x", "y"], "d": ["2020-01-02", "2021-03-04"], "b": ["true", "false"]}
    with pytest.raises(Malformed):
        read_table(file.getvalue()[:-20])


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def test_parquet_is_measured_before_it_is_decoded() -> None:
    with pytest.raises(TooLarge):
        read_table(parquet(pa.table({"x": pa.nulls(1_000_000, pa.float64())})), ReadOptions(limits=Limits(rows=1000)))


def test_parquet_with_an_unsupported_type_is_rejected() -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    for column in (broken, pa.array([[1]]), pa.array(["a\0b"])):
        with pytest.raises(BadData):
            read_table(parquet(pa.table({"x": column})))
    assert read_table(parquet(pa.table({"x": [float("nan"), 1.0]}))).to_pydict() == {"x": [None, "1"]}


TRAINING = ReadOptions(is_training=True)
KNOWN = ReadOptions(header=HeaderOptions(Reading(names=("a", "b", "c"))))


def test_training_leaves_out_comments_and_short_rows_after_the_table() -> None:
    source = read_source(b"a,b\n1,2\n# a comment\n3,4\nsum\n", TRAINING)
    assert source.table.to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}
    assert [finding.message for finding in source.findings] == [
        "1 row after the table left out, with fewer cells: sum",
        "1 comment line skipped",
    ]


@pytest.mark.parametrize("data", [b"a,b\n1,2\n3", b"a,b\n1,2\n3,4,5\n", b"a,b\n1\n3,4\n"])
def test_a_file_that_was_cut_off_has_no_footer(data: bytes) -> None:
    with pytest.raises(BadData) as caught:
        read_source(data, TRAINING)
    assert caught.value.code == "csv-row-length"


def test_names_of_a_table_without_a_header_may_be_cells_too() -> None:
    assert read_table(b"a,1,2\nx,3,c\n", KNOWN).to_pydict() == {"a": ["a", "x"], "b": ["1", "3"], "c": ["2", "c"]}
    assert read_table(b"c,a,b\n1,2,3\n", KNOWN).to_pydict() == {"c": ["1"], "a": ["2"], "b": ["3"]}

"""Invalid tables and forms get a problem that names row and column; unusual ones are predicted."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.local.http_client import Answer, Client
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
CSV = {"content-type": "text/csv"}
HEADER = "income,visits,city,member,since,score"
ROW = "41000.5,3,Bonn,true,2022-05-17,0.25"
GOOD = f"{HEADER}\n{ROW}\n"


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


TABLES: list[tuple[bytes, int, str]] = [
    (b"", 422, "empty-input"),
    (b"\n\n \n", 422, "empty-input"),
    (GOOD.replace("41000.5", '"41000,5"').encode(), 422, "invalid-type"),
    (GOOD.replace("Bonn", "Bo\0nn").encode(), 422, "invalid-encoding"),
    (GOOD.replace("city", "").encode(), 422, "missing-field"),
    (f"{ROW}\n{ROW}\n".encode(), 422, "csv-header"),
    (f"{HEADER.split(',', 1)[0]},{ROW}\n{ROW},1\n".encode(), 422, "csv-header"),  # the line break is missing
    (f"{HEADER}\n{ROW}\n{ROW[:-5]}\n".encode(), 422, "csv-row-length"),
    (GOOD.replace("41000.5", "0x1F").encode(), 422, "invalid-type"),
    (GOOD.replace("41000.5", "1_000").encode(), 422, "invalid-type"),
    (GOOD.replace("41000.5", "\u0661\u0662").encode(), 422, "invalid-type"),
    (gzip.compress(GOOD.encode()), 415, "unsupported-media-type"),
    (workbook(), 415, "unsupported-media-type"),
    (GOOD.replace("Bonn", "x" * 300_000).encode(), 422, "out-of-range"),
    (GOOD.replace("city", "x" * 300_000).encode(), 422, "invalid-encoding"),
    (",".join(f"c{index}" for index in range(50_000)).encode() + b"\n1\n", 413, "too-many-columns"),
    (f"{HEADER}\n".encode(), 422, "empty-input"),
    (f"{HEADER}\n{ROW},1\n".encode(), 422, "csv-row-length"),
    (f"{HEADER},city\n{ROW},Bonn\n".encode(), 422, "unknown-field"),
    (f"{HEADER},extra\n{ROW},1\n".encode(), 422, "unknown-field"),
    (f"{HEADER[7:]}\n{ROW[8:]}\n".encode(), 422, "missing-field"),
    (f"{HEADER}\n{ROW}\n".replace("41000.5", "inf").encode(), 422, "not-finite"),
    (f"{HEADER}\n{ROW}\n".replace("41000.5", "1e999").encode(), 422, "not-finite"),
    (f"{HEADER}\n{ROW}\n".replace("Bonn", '"Bonn').encode(), 422, "csv-quote"),
    (f"{HEADER}\n{ROW}\n".replace("Bonn", "K\xf6ln").encode("latin-1"), 422, "invalid-encoding"),
    (f"{HEADER}\n{ROW}\n".encode("utf-16")[:-1], 422, "invalid-encoding"),
    (b"PK\x03\x04zip", 415, "unsupported-media-type"),
]


@pytest.mark.parametrize(("body", "status", "code"), TABLES, ids=range(len(TABLES)))
def test_invalid_tables_get_a_problem_as_body_and_as_upload(service: Client, body: bytes, status: int, code: str) -> None:
    response_to_body = service.post(MIXED, body, {"content-type": "text/csv"})
    assert (response_to_body.status, response_to_body.json()["code"]) == (status, code), response_to_body.text[:300]
    response_to_upload = service.post_file("/projects/mixed/batch?extra=refuse", body)
    assert response_to_upload.status == status
    assert "please fix the following" in response_to_upload.text


def test_invalid_cells_are_named_even_if_a_column_is_missing(service: Client) -> None:
    errors = service.post(MIXED, b"visits,city,member,since\nx,Bonn,true,2022-05-17\n", CSV).json()["errors"]
    assert [(error.get("row"), error["column"], error["code"]) for error in errors] == [
        (None, "income", "missing-field"),
        (1, "visits", "invalid-type"),
    ]


@pytest.fixture(scope="module")
def expected(service: Client) -> list[dict[str, str]]:
    return rows(service.post(f"{MIXED}.csv", f"{HEADER}\n{ROW}\n".encode(), CSV))


def rows(response: Answer) -> list[dict[str, str]]:
    assert response.status == 200, response.text[:300]
    return list(csv.DictReader(io.StringIO(response.text)))


def test_a_cell_of_ten_megabytes_is_rejected(service: Client) -> None:
    response = service.post(MIXED, GOOD.replace("Bonn", "x" * 10_000_000).encode(), CSV)
    assert (response.status, response.json()["code"]) == (422, "out-of-range")


REORDERED = "score,since,member,city,visits,income\n0.25,2022-05-17,true,Bonn,3,41000.5\n"
UNUSUAL = {
    "byte order mark": f"\ufeff{HEADER}\n{ROW}\n",
    "quotes": f"{HEADER}\n{ROW}\n".replace("Bonn", '"Bonn"'),
    "carriage returns": f"{HEADER}\r{ROW}\r",
    "mixed line ends": f"{HEADER}\r\n{ROW}\n",
    "no last line end": f"{HEADER}\n{ROW}",
    "blank lines": f"\n{HEADER}\n\n{ROW}\n\n",
    "blanks around": f"{HEADER}\n{ROW}\n".replace("Bonn", " Bonn "),
    "reordered": REORDERED,
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_tables_give_the_same_predictions(service: Client, expected: list[dict[str, str]], name: str) -> None:
    actual = rows(service.post(f"{MIXED}.csv", UNUSUAL[name].encode(), CSV))
    assert [row["prediction"] for row in actual] == [row["prediction"] for row in expected]
    assert [row["probability_yes"] for row in actual] == [row["probability_yes"] for row in expected]


def test_quoted_line_breaks_and_na_words_are_text(service: Client) -> None:
    cities = ['"Bo\nnn"', "NA", "None", "null"]
    text = "\n".join([HEADER, *(ROW.replace("Bonn", city) for city in cities)])
    actual = rows(service.post(f"{MIXED}.csv", text.encode(), CSV))
    assert [row["city"] for row in actual] == ["Bo\nnn", "NA", "None", "null"]
    warnings = service.post(f"{MIXED}.json", text.encode(), CSV).json()["warnings"]
    assert [warning["row"] for warning in warnings if warning["code"] == "unknown-category"] == [
        1,
        3,
        4,
    ]  # NA is a city in the training data


def test_spreadsheet_formulas_are_escaped(service: Client) -> None:
    text = f"{HEADER}\n{ROW}\n".replace("Bonn", "=cmd()").replace("0.25", "-5")
    (row,) = rows(service.post(f"{MIXED}.csv", text.encode(), CSV))
    assert (row["city"], row["score"]) == ("'=cmd()", "-5")


BOUNDARY = "frontier"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
TABLE = f"{HEADER}\n{ROW}\n"


def part(name: str, text: str, file: str | None = None) -> str:
    named = f'; filename="{file}"' if file is not None else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n{text}\r\n'


END = f"--{BOUNDARY}--\r\n"
FORMS = {
    "no boundary": (part("file", TABLE, "x.csv") + END, {"content-type": "multipart/form-data"}, 400, "multipart-malformed"),
    "cut off": (part("file", TABLE, "x.csv")[:-20], FORM, 400, "upload-incomplete"),
    "cut off in a head": (part("file", TABLE, "x.csv")[:40], FORM, 400, "upload-incomplete"),
    "two files": (part("file", TABLE, "x.csv") * 2 + END, FORM, 400, "duplicate-field"),
    "a field twice": (part("a", "1") * 2 + part("file", TABLE, "x.csv") + END, FORM, 400, "duplicate-field"),
    "1,001 parts": ("".join(part(f"f{index}", "") for index in range(1001)) + END, FORM, 413, "too-many-fields"),
    "no file": (part("a", "1") + END, FORM, 422, "empty-input"),
    "10 MB field": (part("a", "x" * 10_000_000) + END, FORM, 422, "out-of-range"),
    "zip": (part("file", "PK\x03\x04", "x.csv") + END, FORM, 415, "unsupported-media-type"),
}


@pytest.mark.parametrize("name", FORMS)
def test_invalid_forms_get_a_problem(service: Client, name: str) -> None:
    text, headers, status, code = FORMS[name]
    response = service.post("/projects/mixed/batch.json", text.encode("latin-1"), headers)
    assert (response.status, response.json()["code"]) == (status, code), response.text[:300]


@pytest.mark.parametrize("name", ["../../x", "x\\..\\y", "", "a" * 500, "%00"])
def test_the_name_of_an_uploaded_file_is_ignored(service: Client, name: str) -> None:
    response = service.post("/projects/mixed/batch.csv", (part("file", TABLE, name) + END).encode(), FORM)
    assert response.status == 200, response.text
    assert name not in response.text or not name


def parquet_bomb(column: str) -> bytes:
    """Return 2 KB of Parquet in which 1,500 rows share one text of a megabyte."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1_500, pa.int32()), pa.array(["x" * 1_000_000]))
    record = {**RECORD, "since": "2022-05-17"}
    file = io.BytesIO()
    pq.write_table(pa.table({name: [cell] * 1_500 for name, cell in record.items() if name != column} | {column: long}), file)
    return file.getvalue()


WIDE = f"{HEADER},{','.join(f'e{index}' for index in range(8_000))}\n{ROW}{',1' * 8_000}\n".encode()
PARQUET, JSON, PACKED = "application/vnd.apache.parquet", "application/json", "application/gzip"
LARGE: dict[str, tuple[str, bytes, int]] = {
    "gzip": (PACKED, gzip.compress(f"{HEADER}\n".encode() + f"{ROW}\n".encode() * 13_000_000, 1), 413),
    "a category": (PARQUET, parquet_bomb("city"), 413),
    "another column": (PARQUET, parquet_bomb("more"), 413),
    "8,000 columns": ("text/csv", WIDE, 413),
    "20,000 fields": (JSON, json.dumps({**RECORD, **{f"e{index}": 1 for index in range(20_000)}}).encode(), 413),
    "empty lists": (JSON, b"[" + b"[]," * 6_666_666 + b"[]]", 413),
}


@pytest.mark.parametrize("name", LARGE)
def test_decompression_bombs_are_rejected_quickly(service: Client, name: str) -> None:
    media, body, status = LARGE[name]
    started = time.monotonic()
    for suffix in (".csv?extra=keep&on_error=row&models=all", ".html?extra=keep", ".json"):
        response = service.post(f"{MIXED}{suffix}", body, {"content-type": media})
        expected_status = 422 if name == "another column" and suffix == ".json" else status
        assert response.status in (status, expected_status), response.text[:300]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["gzip", "a category"])
def test_decompression_bombs_are_rejected_as_jobs_too(service: Client, name: str) -> None:
    media, body, _ = LARGE[name]
    response = service.post("/projects/mixed/batch", body, {"content-type": media})
    if response.status == 202:
        facts: dict[str, Any] = {}

        def is_over() -> bool:
            facts.update(service.get(response.headers["location"]).json())
            return facts["state"] in ("done", "failed")

        service.wait_until(is_over, 60)
        assert (facts["state"], facts["errors"][0]["code"]) == ("failed", "too-large")
    else:
        assert response.status == 413


def test_a_thousand_kept_columns_are_rendered_quickly(service: Client) -> None:
    names, cells = ",".join(f"e{index}" for index in range(1_000)), ",x" * 1_000
    text = f"{HEADER},{names}\n" + f"{ROW}{cells}\n" * 100
    started = time.monotonic()
    for suffix in (".html", ".csv", ".parquet"):
        assert service.post(f"{MIXED}{suffix}?extra=keep", text.encode(), CSV).status == 200
    assert time.monotonic() - started < 10

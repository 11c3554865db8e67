"""Every input format with every response format and option: never a server error."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.local.http_client import Client
from tests.tables import RECORD

pytestmark = pytest.mark.slow

MEDIA = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
SUFFIXES = [".json", ".csv", ".html", ".parquet"]
OPTIONS = [
    f"?on_error={on_error}&extra={extra}&models={models}&inputs={inputs}"
    for on_error, extra, models, inputs in itertools.product(("all", "row"), ("refuse", "keep"), ("champion", "all"), (0, 1))
]
INVALID = {**RECORD, "income": "much"}
NAMES = ("prediction", "problem", "probability_yes", "prediction_", 'a"b', "a\nb", "=1+1", "é" * 900, "<b>")
NESTED: Any = "deep"
for _ in range(90):
    NESTED = [NESTED]


def csv_of(records: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().encode()


def parquet_of(records: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({name: [str(record.get(name)) for record in records] for name in records[0]}), file)
    return file.getvalue()


WRITERS = {"json": lambda records: json.dumps(records).encode(), "csv": csv_of, "parquet": parquet_of}
ROWS: dict[str, list[dict[str, Any]]] = {
    "all invalid": [INVALID, INVALID],
    "many invalid": [INVALID] * 15,
    "one invalid of many": [RECORD] * 14 + [INVALID],
    "empty texts": [dict.fromkeys(RECORD, "")] * 2,
    "all valid, names of outputs": [{**RECORD, **dict.fromkeys(NAMES, "x")}] * 2,
    "all invalid, names of outputs": [{**INVALID, **dict.fromkeys(NAMES, "=x")}] * 2,
}
JSON_ONLY: dict[str, Any] = {
    "surrogate in a name": {**RECORD, "\ud800": 1},
    "surrogate in a value": {**RECORD, "more": "\ud800"},
    "NUL in a name": {**RECORD, "a\0b": 1},
    "NUL in a value": {**RECORD, "more": "a\0b"},
    "no name": {**RECORD, "": 1},
    "long name": {**RECORD, "x" * 100_000: 1},
    "unusual values": {**RECORD, "a": True, "b": [1, {"c": "\ud800"}], "d": NESTED, "e": 10**299, "f": None},
    "infinite value": {**RECORD, "more": 1e308},
    "only unusual": [{"\ud800": "\udfff"}, [], {}, None, "x", [[]]],
    "arrays": [list(RECORD.values()), list(INVALID.values()), []],
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("name", ROWS)
def test_no_combination_causes_a_server_error(service: Client, name: str, media: str, suffix: str) -> None:
    body = WRITERS[media](ROWS[name])
    for options in OPTIONS:
        response = service.post(f"/projects/mixed/predict{suffix}{options}", body, {"content-type": MEDIA[media]})
        assert response.status in (200, 422), (options, response.text[:300])
        if "on_error=row" in options and "names" not in name:
            assert response.status == 200, (options, response.text[:300])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", JSON_ONLY)
def test_no_unusual_record_causes_a_server_error(service: Client, name: str, suffix: str) -> None:
    body = json.dumps(JSON_ONLY[name]).encode()
    for options in OPTIONS:
        response = service.post(f"/projects/mixed/predict{suffix}{options}", body, {"content-type": MEDIA["json"]})
        assert response.status in (200, 422), (options, response.text[:300])
        assert "x" * 1_000 not in response.body.decode(errors="replace")


@pytest.mark.parametrize("media", ["csv", "parquet"])
@pytest.mark.parametrize("project", ["prices", "odd"])
def test_a_table_without_valid_rows_gets_a_result(service: Client, project: str, media: str) -> None:
    records = {"prices": {"area": "x", "rooms": "y"}, "odd": {'he said "x" <b>': "x", "flag": "y", "prediction": "a"}}
    body = WRITERS[media]([records[project]] * 12)
    for suffix, models in itertools.product(SUFFIXES, ("champion", "all")):
        path = f"/projects/{project}/batch{suffix}?on_error=row&models={models}"
        response = service.post(path, body, {"content-type": MEDIA[media]})
        assert response.status == 200, (path, response.text[:300])
    path = f"/projects/{project}/batch.csv?on_error=row&models=all"
    rows = list(csv.DictReader(io.StringIO(service.post(path, body, {"content-type": MEDIA[media]}).text)))
    assert len(rows) == 12
    assert all(row["problem"] for row in rows)


def test_names_of_kept_columns_are_escaped(service: Client) -> None:
    body = csv_of([{**RECORD, "=1+1": "x"}])
    response = service.post("/projects/mixed/predict.csv?extra=keep", body, {"content-type": "text/csv"})
    assert "'=1+1" in next(csv.reader(io.StringIO(response.text)))

"""Every form of input with every form of answer and every option: a clear answer, never an error of the service."""

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

MEDIA = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
ANSWERS = [".json", ".csv", ".html", ".parquet"]
OPTIONS = [
    f"?on_error={on_error}&extra={extra}&models={models}&inputs={inputs}"
    for on_error, extra, models, inputs in itertools.product(("all", "row"), ("refuse", "keep"), ("champion", "all"), (0, 1))
]
WRONG = {**RECORD, "income": "much"}
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
    "all wrong": [WRONG, WRONG],
    "many wrong": [WRONG] * 15,
    "one wrong of many": [RECORD] * 14 + [WRONG],
    "empty texts": [dict.fromkeys(RECORD, "")] * 2,
    "all right, names of answers": [{**RECORD, **dict.fromkeys(NAMES, "x")}] * 2,
    "all wrong, names of answers": [{**WRONG, **dict.fromkeys(NAMES, "=x")}] * 2,
}
JSON_ONLY: dict[str, Any] = {
    "surrogate in a name": {**RECORD, "\ud800": 1},
    "surrogate in a value": {**RECORD, "more": "\ud800"},
    "NUL in a name": {**RECORD, "a\0b": 1},
    "NUL in a value": {**RECORD, "more": "a\0b"},
    "no name": {**RECORD, "": 1},
    "long name": {**RECORD, "x" * 100_000: 1},
    "odd values": {**RECORD, "a": True, "b": [1, {"c": "\ud800"}], "d": NESTED, "e": 10**299, "f": None},
    "infinite value": {**RECORD, "more": 1e308},
    "nothing but odd": [{"\ud800": "\udfff"}, [], {}, None, "x", [[]]],
    "arrays": [list(RECORD.values()), list(WRONG.values()), []],
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("form", MEDIA)
@pytest.mark.parametrize("name", ROWS)
def test_no_combination_is_an_error_of_the_service(service: Client, name: str, form: str, answer: str) -> None:
    body = WRITERS[form](ROWS[name])
    for options in OPTIONS:
        found = service.post(f"/projects/mixed/predict{answer}{options}", body, {"content-type": MEDIA[form]})
        assert found.status in (200, 422), (options, found.text[:300])
        if "on_error=row" in options and "names" not in name:
            assert found.status == 200, (options, found.text[:300])


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", JSON_ONLY)
def test_no_odd_record_is_an_error_of_the_service(service: Client, name: str, answer: str) -> None:
    body = json.dumps(JSON_ONLY[name]).encode()
    for options in OPTIONS:
        found = service.post(f"/projects/mixed/predict{answer}{options}", body, {"content-type": MEDIA["json"]})
        assert found.status in (200, 422), (options, found.text[:300])
        assert "x" * 1_000 not in found.body.decode(errors="replace")


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("project", ["prices", "odd"])
def test_a_table_without_a_good_row_is_answered_for_every_model(service: Client, project: str, form: str) -> None:
    records = {"prices": {"area": "x", "rooms": "y"}, "odd": {'he said "x" <b>': "x", "flag": "y", "prediction": "a"}}
    body = WRITERS[form]([records[project]] * 12)
    for answer, models in itertools.product(ANSWERS, ("champion", "all")):
        path = f"/projects/{project}/batch{answer}?on_error=row&models={models}"
        found = service.post(path, body, {"content-type": MEDIA[form]})
        assert found.status == 200, (path, found.text[:300])
    rows = list(
        csv.DictReader(io.StringIO(service.post(path.replace(".parquet", ".csv"), body, {"content-type": MEDIA[form]}).text))
    )
    assert len(rows) == 12
    assert all(row["problem"] for row in rows)


def test_the_names_of_kept_columns_are_no_formulas(service: Client) -> None:
    body = csv_of([{**RECORD, "=1+1": "x"}])
    found = service.post("/projects/mixed/predict.csv?extra=keep", body, {"content-type": "text/csv"})
    assert "'=1+1" in next(csv.reader(io.StringIO(found.text)))

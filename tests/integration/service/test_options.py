"""What a request may ask for: rows by themselves, inputs back, other forms of tables."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from tests import tables
from tests.e2e.test_cli import podium
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
CSV = {"content-type": "text/csv"}
HEADER, ROW = "income,visits,city,member,since,score", "41000.5,3,Bonn,true,2022-05-17,0.25"
BAD = "much,3,Bonn,true,2022-05-17,0.25"


@pytest.fixture(scope="module")
def expected(service: Client) -> dict[str, Any]:
    found: dict[str, Any] = service.post_json(MIXED, RECORD).json()["predictions"][0]
    return found


@pytest.mark.parametrize("count", [2, 15])
def test_a_wrong_record_need_not_stop_the_others(service: Client, expected: dict[str, Any], count: int) -> None:
    rows: list[Any] = [dict(RECORD) for _ in range(count)]
    rows[1] = {**RECORD, "income": "much"}
    assert service.post_json(MIXED, rows).status == 422
    found = service.post_json(f"{MIXED}?on_error=row", rows).json()["predictions"]
    assert [set(each) for each in found[:2]] == [{"prediction", "probabilities"}, {"errors"}]
    assert found[0] == expected
    assert [(each["row"], each["column"], each["code"]) for each in found[1]["errors"]] == [(2, "income", "invalid-type")]
    assert all(each == expected for each in found[2:])


def test_arrays_and_strange_things_are_wrong_by_themselves(service: Client, expected: dict[str, Any]) -> None:
    rows = [list(RECORD.values()), [1], 5, None, {"colour": 1}]
    found = service.post_json(f"{MIXED}?on_error=row", rows).json()["predictions"]
    assert [expected == each or each["errors"][0]["code"] for each in found] == [
        True,
        "wrong-length",
        "invalid-type",
        "invalid-type",
        "unknown-field",
    ]


@pytest.mark.parametrize("good", [1, 12])
def test_a_wrong_row_of_a_table_keeps_its_place(service: Client, expected: dict[str, Any], good: int) -> None:
    text = "\n".join([HEADER, BAD, *[ROW] * good, ROW.replace("3", "", 1)]) + "\n"
    answer = service.post(f"{MIXED}.csv?on_error=row", text.encode(), CSV)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["prediction"] for row in rows] == ["", *[expected["prediction"]] * good, ""] or len(rows) == good + 2
    assert rows[0]["problem"].startswith("income is not a number")
    assert (rows[0]["income"], rows[0]["prediction"], rows[1]["problem"]) == ("much", "", "")
    strange = text + ROW.replace("Bonn", "Atlantis") + "\n"
    assert service.post(f"{MIXED}.csv?on_error=row", strange.encode(), CSV).headers["x-prediction-warnings"] == "1"
    (warning,) = service.post(f"{MIXED}.json?on_error=row", strange.encode(), CSV).json()["warnings"]
    assert (warning["row"], warning["column"]) == (good + 3, "city")
    page = service.post_file("/projects/mixed/batch?on_error=row", text.encode())
    assert (page.status, "income is not a number" in page.text) == (200, True)


def test_only_wrong_rows_are_told_and_nothing_is_predicted(service: Client) -> None:
    answer = service.post(f"{MIXED}?on_error=row", f"{HEADER}\n{BAD}\n".encode(), CSV)
    assert (answer.status, list(answer.json()["predictions"][0])) == (200, ["errors"])


def test_the_inputs_come_back_sorted_by_name(service: Client) -> None:
    for body in (RECORD, list(RECORD.values())):
        inputs = service.post_json(f"{MIXED}?inputs=true", body).json()["predictions"][0]["inputs"]
        assert inputs == dict(sorted(RECORD.items()))
        assert list(inputs) == sorted(RECORD)
    missing = service.post_json(f"{MIXED}?inputs=true", {**RECORD, "visits": -1}).json()["predictions"][0]["inputs"]
    assert missing["visits"] is None


def test_unknown_columns_are_kept_when_asked(service: Client, expected: dict[str, Any]) -> None:
    text = f"id,{HEADER}\n=7,{ROW}\n"
    assert service.post(f"{MIXED}.csv", text.encode(), CSV).status == 422
    (row,) = csv.DictReader(io.StringIO(service.post(f"{MIXED}.csv?extra=keep", text.encode(), CSV).text))
    assert (row["id"], row["prediction"]) == ("'=7", expected["prediction"])
    assert service.post_json(f"{MIXED}?extra=keep", {**RECORD, "id": 7}).json()["predictions"][0] == expected


def test_an_upload_by_the_page_shows_columns_that_the_model_does_not_know(service: Client) -> None:
    text = f"id,{HEADER}\nrow-17,{ROW}\n".encode()
    page = service.post_file("/projects/mixed/batch", text)
    assert (page.status, "<td>row-17</td>" in page.text, "<th>id</th>" in page.text) == (200, True, True)
    assert service.post_file("/projects/mixed/batch?extra=refuse", text).status == 422
    program = service.post_file("/projects/mixed/batch.json", text)
    assert (program.status, program.json()["code"]) == (422, "unknown-field")


@pytest.mark.parametrize(("name", "mark"), [(";", ";"), ("tab", "\t"), ("|", "|")])
def test_other_delimiters_are_taken_when_asked(service: Client, expected: dict[str, Any], name: str, mark: str) -> None:
    text = f"{HEADER}\n{ROW}\n".replace(",", mark).encode()
    refused = service.post(MIXED, text, CSV)
    assert (refused.status, refused.json()["code"]) == (422, "csv-delimiter")
    path = f"{MIXED}?delimiter={name.replace(';', '%3B').replace('|', '%7C')}"
    assert service.post(path, text, CSV).json()["predictions"][0] == expected
    assert service.post(f"{MIXED}?delimiter=x", text, CSV).status == 422


def test_gzip_is_opened_when_it_is_called_so(service: Client, expected: dict[str, Any]) -> None:
    packed = gzip.compress(f"{HEADER}\n{ROW}\n".encode())
    assert service.post(MIXED, packed, {"content-type": "application/gzip"}).json()["predictions"][0] == expected
    assert expected["prediction"] in service.post_file("/projects/mixed/batch", packed, "rows.csv.gz").text
    assert service.post(MIXED, packed, CSV).status == 415
    assert service.post_file("/projects/mixed/batch", packed, "rows.csv").status == 415
    assert service.post(MIXED, packed[:-9], {"content-type": "application/gzip"}).status == 400


def test_parquet_out(service: Client, expected: dict[str, Any]) -> None:
    for path, headers in ((f"{MIXED}.parquet", CSV), (MIXED, {**CSV, "accept": "application/vnd.apache.parquet"})):
        answer = service.post(path, f"{HEADER}\n{ROW}\n".encode(), headers)
        table = pq.read_table(pa.BufferReader(answer.body))
        assert table.column_names[:6] == HEADER.split(",")
        assert table["prediction"].to_pylist() == [expected["prediction"]]
        assert answer.headers["x-model-version"]


def test_a_regression_tells_its_interval_on_every_path(service: Client) -> None:
    record = {"area": 100.0, "rooms": 3}
    (lane,) = service.post_json("/projects/prices/predict", record).json()["predictions"]
    (common,) = service.post_json("/projects/prices/predict?models=champion", record).json()["predictions"]
    assert lane == common
    low, high = lane["interval"]
    assert low < lane["prediction"] < high
    text = "area,rooms\n" + "100.0,3\n" * 12
    rows = list(csv.DictReader(io.StringIO(service.post("/projects/prices/predict.csv", text.encode(), CSV).text)))
    assert [float(rows[0][name]) for name in ("prediction", "prediction_low", "prediction_high")] == [
        lane["prediction"],
        low,
        high,
    ]
    answer = service.post("/projects/prices/predict.csv?models=all", text.encode(), CSV)
    (every, *_) = csv.DictReader(io.StringIO(answer.text))
    assert every["linear.prediction_low"] < every["linear.prediction"] < every["linear.prediction_high"]


def test_the_command_line_gives_the_same_by_a_service_and_without(service: Client, cloud: LocalCloud, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    tables.mixed(30).assign(note="=1+1").to_csv(rows, index=False)
    url = f"http://{service._host}"
    remote = podium(cloud, "predict", "--project", "mixed", "--url", url, "--models", "all", str(rows))
    assert remote.returncode == 0, remote.stderr
    local = podium(cloud, "predict", "--project", "mixed", "--local", "--models", "all", str(rows))
    assert local.stdout == remote.stdout
    assert len(local.stdout.splitlines()) == 31
    assert "mixed 20" in local.stderr
    words = ("predict", "--project", "mixed", "--url", url, "--random", "5", "--seed", "1", "--data", str(rows))
    one, two = podium(cloud, *words), podium(cloud, *words)
    assert one.stdout == two.stdout
    assert len(one.stdout.splitlines()) == 6


def test_the_command_line_says_what_is_wrong(service: Client, cloud: LocalCloud, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{HEADER}\n{BAD}\n")
    url = f"http://{service._host}"
    cases = [
        (("--project", "mixed", "--url", url, str(rows)), 5, "invalid-type"),
        (("--project", "mixed", "--local", str(rows)), 3, "invalid-type"),
        (("--project", "mixed", "--url", "http://127.0.0.1:1", str(rows)), 5, "--local needs none"),
        (("--project", "nobody", "--local", str(rows)), 5, "no champion"),
        (("--project", "mixed"), 2, "--random"),
    ]
    for words, code, text in cases:
        result = podium(cloud, "predict", *words)
        assert (result.returncode, text in result.stderr) == (code, True), result.stderr
        assert "Traceback" not in result.stderr

"""Query options: invalid rows, returned inputs, unknown columns, delimiters and formats."""

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
    prediction: dict[str, Any] = service.post_json(MIXED, RECORD).json()["predictions"][0]
    return prediction


@pytest.mark.parametrize("count", [2, 15])
def test_an_invalid_record_can_fail_alone(service: Client, expected: dict[str, Any], count: int) -> None:
    rows: list[Any] = [dict(RECORD) for _ in range(count)]
    rows[1] = {**RECORD, "income": "much"}
    assert service.post_json(MIXED, rows).status == 422
    predictions = service.post_json(f"{MIXED}?on_error=row", rows).json()["predictions"]
    assert [set(prediction) for prediction in predictions[:2]] == [{"prediction", "probabilities"}, {"errors"}]
    assert predictions[0] == expected
    assert [(e["row"], e["column"], e["code"]) for e in predictions[1]["errors"]] == [(2, "income", "invalid-type")]
    assert all(prediction == expected for prediction in predictions[2:])


def test_invalid_items_fail_alone(service: Client, expected: dict[str, Any]) -> None:
    rows = [list(RECORD.values()), [1], 5, None, {"colour": 1}]
    predictions = service.post_json(f"{MIXED}?on_error=row", rows).json()["predictions"]
    assert [prediction == expected or prediction["errors"][0]["code"] for prediction in predictions] == [
        True,
        "wrong-length",
        "invalid-type",
        "invalid-type",
        "unknown-field",
    ]


@pytest.mark.parametrize("good", [1, 12])
def test_an_invalid_row_of_a_table_stays_in_order(service: Client, expected: dict[str, Any], good: int) -> None:
    text = "\n".join([HEADER, BAD, *[ROW] * good, ROW.replace("3", "", 1)]) + "\n"
    response = service.post(f"{MIXED}.csv?on_error=row", text.encode(), CSV)
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["prediction"] for row in rows] == ["", *[expected["prediction"]] * good, ""] or len(rows) == good + 2
    assert rows[0]["problem"].startswith("income is not a number")
    assert (rows[0]["income"], rows[0]["prediction"], rows[1]["problem"]) == ("much", "", "")
    unseen = text + ROW.replace("Bonn", "Atlantis") + "\n"
    assert service.post(f"{MIXED}.csv?on_error=row", unseen.encode(), CSV).headers["x-prediction-warnings"] == "1"
    (warning,) = service.post(f"{MIXED}.json?on_error=row", unseen.encode(), CSV).json()["warnings"]
    assert (warning["row"], warning["column"]) == (good + 3, "city")
    page = service.post_file("/projects/mixed/batch?on_error=row", text.encode())
    assert (page.status, "income is not a number" in page.text) == (200, True)


def test_a_table_of_invalid_rows_returns_only_errors(service: Client) -> None:
    response = service.post(f"{MIXED}?on_error=row", f"{HEADER}\n{BAD}\n".encode(), CSV)
    assert (response.status, list(response.json()["predictions"][0])) == (200, ["errors"])


def test_parsed_inputs_are_returned_sorted_by_name(service: Client) -> None:
    for body in (RECORD, list(RECORD.values())):
        inputs = service.post_json(f"{MIXED}?inputs=true", body).json()["predictions"][0]["inputs"]
        used = {name: cell for name, cell in RECORD.items() if name != "member"}  # no model uses it
        assert inputs == used and list(inputs) == sorted(used)
    missing = service.post_json(f"{MIXED}?inputs=true", {**RECORD, "visits": -1}).json()["predictions"][0]["inputs"]
    assert missing["visits"] is None


def test_unknown_columns_are_kept_on_request(service: Client, expected: dict[str, Any]) -> None:
    text = f"id,{HEADER}\n=7,{ROW}\n"
    assert service.post(f"{MIXED}.csv", text.encode(), CSV).status == 422
    (row,) = csv.DictReader(io.StringIO(service.post(f"{MIXED}.csv?extra=keep", text.encode(), CSV).text))
    assert (row["id"], row["prediction"]) == ("'=7", expected["prediction"])
    assert service.post_json(f"{MIXED}?extra=keep", {**RECORD, "id": 7}).json()["predictions"][0] == expected


def test_an_upload_from_the_page_keeps_unknown_columns(service: Client) -> None:
    text = f"id,{HEADER}\nrow-17,{ROW}\n".encode()
    page = service.post_file("/projects/mixed/batch", text)
    assert (page.status, "<td>row-17</td>" in page.text, "<th>id</th>" in page.text) == (200, True, True)
    assert service.post_file("/projects/mixed/batch?extra=refuse", text).status == 422
    json_response = service.post_file("/projects/mixed/batch.json", text)
    assert (json_response.status, json_response.json()["code"]) == (422, "unknown-field")


@pytest.mark.parametrize(("name", "mark"), [(";", ";"), ("tab", "\t"), ("|", "|")])
def test_other_delimiters_are_accepted_on_request(service: Client, expected: dict[str, Any], name: str, mark: str) -> None:
    text = f"{HEADER}\n{ROW}\n".replace(",", mark).encode()
    assert service.post(MIXED, text, CSV).json()["predictions"][0] == expected
    rejected = service.post(f"{MIXED}?delimiter=%2C", text, CSV)
    assert (rejected.status, rejected.json()["code"]) == (422, "csv-delimiter")
    path = f"{MIXED}?delimiter={name.replace(';', '%3B').replace('|', '%7C')}"
    assert service.post(path, text, CSV).json()["predictions"][0] == expected
    assert service.post(f"{MIXED}?delimiter=x", text, CSV).status == 422


def test_gzip_is_decompressed_if_declared(service: Client, expected: dict[str, Any]) -> None:
    compressed = gzip.compress(f"{HEADER}\n{ROW}\n".encode())
    assert service.post(MIXED, compressed, {"content-type": "application/gzip"}).json()["predictions"][0] == expected
    assert expected["prediction"] in service.post_file("/projects/mixed/batch", compressed, "rows.csv.gz").text
    assert service.post(MIXED, compressed, CSV).status == 415
    assert service.post_file("/projects/mixed/batch", compressed, "rows.csv").status == 415
    assert service.post(MIXED, compressed[:-9], {"content-type": "application/gzip"}).status == 400


def test_a_response_can_be_parquet(service: Client, expected: dict[str, Any]) -> None:
    for path, headers in ((f"{MIXED}.parquet", CSV), (MIXED, {**CSV, "accept": "application/vnd.apache.parquet"})):
        response = service.post(path, f"{HEADER}\n{ROW}\n".encode(), headers)
        table = pq.read_table(pa.BufferReader(response.body))
        assert table.column_names[:6] == HEADER.split(",")
        assert table["prediction"].to_pylist() == [expected["prediction"]]
        assert response.headers["x-model-version"]


def test_a_regression_returns_its_interval_on_every_path(service: Client) -> None:
    record = {"area": 100.0, "rooms": 3}
    (fast,) = service.post_json("/projects/prices/predict", record).json()["predictions"]
    (routed,) = service.post_json("/projects/prices/predict?on_error=all", record).json()["predictions"]
    assert fast == routed
    low, high = fast["interval"]
    assert low < fast["prediction"] < high
    text = "area,rooms\n" + "100.0,3\n" * 12
    rows = list(csv.DictReader(io.StringIO(service.post("/projects/prices/predict.csv", text.encode(), CSV).text)))
    assert [float(rows[0][name]) for name in ("prediction", "prediction_low", "prediction_high")] == [
        fast["prediction"],
        low,
        high,
    ]
    response = service.post("/projects/prices/predict.csv?models=all", text.encode(), CSV)
    (all_models, *_) = csv.DictReader(io.StringIO(response.text))
    assert all_models["linear.prediction_low"] < all_models["linear.prediction"] < all_models["linear.prediction_high"]


@pytest.mark.slow
def test_the_command_line_predicts_the_same_with_and_without_a_service(
    service: Client, cloud: LocalCloud, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    tables.mixed(30).assign(note="=1+1").to_csv(rows, index=False)
    url = f"http://{service.host}"
    remote = podium(cloud, "predict", "--project", "mixed", "--url", url, "--models", "all", str(rows))
    assert remote.returncode == 0, remote.stderr
    local = podium(cloud, "predict", "--project", "mixed", "--local", "--models", "all", str(rows))
    assert local.stdout == remote.stdout
    assert len(local.stdout.splitlines()) == 31
    assert "mixed 20" in local.stderr
    arguments = ("predict", "--project", "mixed", "--url", url, "--random", "5", "--seed", "1", "--data", str(rows))
    one, two = podium(cloud, *arguments), podium(cloud, *arguments)
    assert one.stdout == two.stdout
    assert len(one.stdout.splitlines()) == 6


def test_the_command_line_reports_errors(service: Client, cloud: LocalCloud, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{HEADER}\n{BAD}\n")
    url = f"http://{service.host}"
    cases = [
        (("--project", "mixed", "--url", url, str(rows)), 5, "is not a number"),
        (("--project", "mixed", "--local", str(rows)), 3, "is not a number"),
        (("--project", "mixed", "--url", "http://127.0.0.1:1", str(rows)), 5, "use --local"),
        (("--project", "nobody", "--local", str(rows)), 5, "no champion"),
        (("--project", "mixed"), 2, "--random"),
    ]
    for arguments, code, text in cases:
        result = podium(cloud, "predict", *arguments)
        assert (result.returncode, text in result.stderr) == (code, True), result.stderr
        assert "Traceback" not in result.stderr

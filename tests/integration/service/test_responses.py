"""Predictions in every format, on a real server with a real Dask cluster."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.local.http_client import Answer, Client
from tests import tables
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
ARRAY = list(RECORD.values())


def prediction(response: Answer, row: int = 0) -> dict[str, Any]:
    assert response.status == 200, response.text
    predicted: dict[str, Any] = response.json()["predictions"][row]
    return predicted


def record(**cells: Any) -> dict[str, Any]:
    return {**RECORD, **cells}


@pytest.fixture(scope="module")
def expected(service: Client) -> dict[str, Any]:
    return prediction(service.post_json(MIXED, RECORD))


def test_a_response_names_model_version_and_prediction_id(service: Client) -> None:
    response = service.post_json(MIXED, RECORD)
    body = response.json()
    assert list(body) == ["project", "version", "model", "prediction_id", "predictions", "warnings"]
    assert response.headers["x-model-version"] == body["version"]
    assert response.headers["x-prediction-id"] == body["prediction_id"]
    first = body["predictions"][0]
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["prediction"] == max(first["probabilities"], key=first["probabilities"].get)


SAME = [
    ARRAY,
    [ARRAY],
    [RECORD],
    {"records": [RECORD]},
    dict(reversed(RECORD.items())),
    record(city=" Bonn "),
    record(income=41000.50, visits=3.0),
]


@pytest.mark.parametrize("body", SAME)
def test_records_lists_and_arrays_give_the_same_prediction(service: Client, expected: dict[str, Any], body: Any) -> None:
    assert prediction(service.post_json(MIXED, body)) == expected


def test_forms_csv_and_parquet_give_the_same_prediction(service: Client, expected: dict[str, Any]) -> None:
    texts = {name: "true" if value is True else str(value) for name, value in RECORD.items()}
    form = service.request("POST", MIXED + ".json", "&".join(f"{k}={v}" for k, v in texts.items()).encode(), FORM)
    assert prediction(form) == expected
    table = pd.DataFrame([texts])
    data = table.to_csv(index=False).encode()
    assert prediction(service.post(MIXED, data, {"content-type": "text/csv"})) == expected
    assert prediction(service.post_file(MIXED + ".json", data)) == expected
    file = io.BytesIO()
    pd.DataFrame([RECORD]).to_parquet(file)
    assert prediction(service.post(MIXED, file.getvalue(), {"content-type": "application/vnd.apache.parquet"})) == expected


FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_the_fast_path_and_the_routes_give_the_same_bytes(service: Client) -> None:
    """The fast path does not support `on_error`."""
    for row in tables.mixed(60, seed=9).drop(columns="bought").to_dict("records"):
        cells = {name: None if value != value else value for name, value in row.items()} | {"member": row["member"] == "true"}
        fast, routed = service.post_json(MIXED, cells), service.post_json(MIXED + "?on_error=all", cells)
        assert _without_id(fast) == _without_id(routed)


def _without_id(response: Answer) -> str:
    return re.sub(r'"prediction_id":"[^"]*"', "", response.text).replace('"warnings":[]', "")


def test_predictions_do_not_depend_on_the_number_of_records(service: Client) -> None:
    rows = [record(income=30000 + 100 * index, score=None if index % 3 == 0 else index / 10) for index in range(25)]
    for families in ("champion", "all"):
        path = f"{MIXED}?models={families}"
        single = [prediction(service.post_json(path, row)) for row in rows]
        ten = service.post_json(path, rows[:10]).json()["predictions"]
        before = service.get("/status").json()["dask"]["batches"]
        eleven = service.post_json(path, rows[:11]).json()["predictions"]
        everything = service.post_json(path, rows).json()["predictions"]
        assert service.get("/status").json()["dask"]["batches"] > before
        assert single[:10] == ten
        assert single[:11] == eleven
        assert single == everything
    assert service.get("/status").json()["dask"]["fallbacks"] == 0


def test_a_response_can_have_all_models(service: Client) -> None:
    response = service.post_json(MIXED + "?models=all", RECORD).json()
    models = response["predictions"][0]["models"]
    assert set(models) == {"linear", "random-forest", "extra-trees", "lightgbm", "catboost"}
    assert next(iter(models)) == response["model"]
    assert response["predictions"][0]["prediction"] == models[response["model"]]["prediction"]
    one = service.post_json(MIXED + "?models=extra-trees", RECORD).json()
    assert one["model"] == "extra-trees"
    assert one["predictions"][0] == models["extra-trees"]
    assert service.post_json(MIXED + "?models=nonsense", RECORD).status == 404


def test_a_regression_returns_a_number_and_its_interval(service: Client) -> None:
    response = prediction(service.post_json("/projects/prices/predict", {"area": 100, "rooms": 3}))
    assert set(response) == {"prediction", "interval"}
    assert 250_000 < response["prediction"] < 400_000


def test_unseen_categories_and_extreme_numbers_get_a_warning(service: Client) -> None:
    response = service.post_json(MIXED, record(city="Atlantis", income=1e9, since="2030-01-01")).json()
    assert {(warning["column"], warning["code"]) for warning in response["warnings"]} == {
        ("city", "unknown-category"),
        ("income", "out-of-training-range"),
        ("since", "out-of-training-range"),
    }
    assert "Atlantis" not in json.dumps(response)


def test_optional_cells_may_be_missing_in_every_format(service: Client) -> None:
    without = {name: value for name, value in RECORD.items() if name != "score"}
    responses = [prediction(service.post_json(MIXED, body)) for body in (without, record(score=None), [*ARRAY[:-1], None])]
    data = pd.DataFrame([without]).to_csv(index=False).encode()
    responses.append(prediction(service.post(MIXED, data, {"content-type": "text/csv"})))
    assert all(response == responses[0] for response in responses)
    marked, absent = (prediction(service.post_json(MIXED, record(visits=value))) for value in (-1, None))
    assert marked == absent


def test_a_csv_result_keeps_the_columns_unchanged(service: Client) -> None:
    rows = tables.mixed(30, seed=4)
    data = rows.to_csv(index=False).encode()
    response = service.post(MIXED + ".csv?models=all", data, {"content-type": "text/csv"})
    assert response.headers["content-type"].startswith("text/csv")
    sent, rows_of_csv = (list(csv.DictReader(io.StringIO(text))) for text in (data.decode(), response.text))
    names = list(sent[0])
    assert list(rows_of_csv[0])[: len(names)] == names
    assert [{name: row[name] for name in names} for row in rows_of_csv] == sent
    assert list(rows_of_csv[0])[len(names) : len(names) + 3] == ["prediction", "probability_no", "probability_yes"]
    for family in ("linear", "lightgbm", "random-forest", "extra-trees", "catboost"):
        columns = [f"{family}.{name}" for name in ("prediction", "probability_no", "probability_yes")]
        assert columns == [name for name in rows_of_csv[0] if name.startswith(f"{family}.")]
        for row in rows_of_csv:
            assert float(row[columns[1]]) + float(row[columns[2]]) == pytest.approx(1)
            assert row[columns[0]] == ("yes" if float(row[columns[2]]) > 0.5 else "no")
    by_json = service.post(MIXED, data, {"content-type": "text/csv"}).json()["predictions"]
    assert [row["prediction"] for row in rows_of_csv] == [item["prediction"] for item in by_json]
    assert np.allclose(
        [float(row["probability_yes"]) for row in rows_of_csv],
        [item["probabilities"]["yes"] for item in by_json],
        rtol=0,
        atol=0,
    )


def test_downloads_escape_formulas_but_not_numbers(service: Client) -> None:
    row = pd.DataFrame([record(member="true", city="=cmd()", score=-0.5)]).to_csv(index=False).encode()
    safe, raw = (service.post(f"{MIXED}.csv{query}", row, {"content-type": "text/csv"}).text for query in ("", "?raw=1"))
    assert next(csv.DictReader(io.StringIO(safe)))["city"] == "'=cmd()"
    assert next(csv.DictReader(io.StringIO(safe)))["score"] == "-0.5"
    assert next(csv.DictReader(io.StringIO(raw)))["city"] == "=cmd()"


def test_the_response_format_follows_accept_and_suffix(service: Client) -> None:
    json_type = {"content-type": "application/json"}
    body = json.dumps(RECORD).encode()
    for path, accept, media in (
        (MIXED, "text/csv", "text/csv"),
        (MIXED, "text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        (MIXED, "application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        (MIXED + ".csv", "application/json", "text/csv"),
        (MIXED + ".html", "*/*", "text/html"),
    ):
        response = service.post(path, body, {**json_type, "accept": accept})
        assert response.headers["content-type"].startswith(media), (path, accept)
        assert response.headers["x-model-version"]
    assert service.post(MIXED, body, {**json_type, "accept": "image/png"}).status == 406


def test_the_service_describes_the_deployed_model(service: Client) -> None:
    described = service.get("/openapi.json").json()
    schema = described["components"]["schemas"]["record-mixed"]
    assert list(schema["properties"]) == list(RECORD)
    assert schema["required"] == ["income", "city", "since"]  # no model uses `member`
    assert "/projects/mixed/predict" in described["paths"]
    assert service.get("/projects/mixed/schema").json() == schema
    board = list(csv.DictReader(io.StringIO(service.get("/projects/mixed/leaderboard.csv").text)))
    assert [row["rank"] for row in board] == ["1", "2", "3", "4", "5"]
    versions = service.get("/projects/mixed/versions").json()
    (shown,) = [item for item in versions["versions"] if item["version"] == versions["serving"]]
    assert (shown["state"], shown["author"], shown["model"]) == ("serving", "trainer", board[0]["model"])
    assert shown["low"] <= shown["score"] <= shown["high"]
    status = service.get("/status").json()
    fast = {item["project"]: item["fast_path"] for item in status["serving"]}
    assert fast["mixed"] and fast["odd"] and fast["prices"]


def test_no_page_shows_golden_rows_or_loads_from_other_hosts(service: Client) -> None:
    pages = [service.get(path) for path in ("/", "/projects/mixed", "/docs")]
    for page in pages:
        assert page.status == 200
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
    assert service.get("/static/style.css").status == service.get("/swagger/swagger-ui-bundle.js").status == 200


def test_a_downloaded_result_has_its_version(service: Client) -> None:
    page = service.post_file("/projects/mixed/batch", tables.mixed(20).to_csv(index=False).encode())
    link = re.findall(r'href="(/jobs/[^"]+)"', page.text)[0]
    download = service.get(link)
    assert download.headers["x-model-version"] == page.headers["x-model-version"]
    assert len(list(csv.DictReader(io.StringIO(download.text)))) == 20
    assert service.get("/jobs/somebody-elses/result.csv").status == 404


def test_readiness_and_liveness(service: Client) -> None:
    assert service.get("/livez").json() == {"status": "alive"}
    assert set(service.get("/readyz").json()["serving"]) >= {"mixed", "odd", "prices"}


ODD = "/projects/odd/predict"


def test_unusual_names_work_in_every_format(service: Client) -> None:
    row = {'he said "x" <b>': 0.5, "flag": None, "prediction": "a"}
    fast, routed = service.post_json(ODD, row), service.post_json(ODD + "?on_error=all", row)
    assert _without_id(fast) == _without_id(routed)
    flagged = service.post_json(ODD, {**row, "flag": False}).json()
    assert [warning["column"] for warning in flagged["warnings"]] == ["flag"]
    assert (
        "<b>"
        not in service.post_json(ODD + ".html", row)
        .text.replace("<b>linear</b>", "")
        .split("<main>")[1]
        .split("Leaderboard")[1]
    )
    rows = list(csv.reader(io.StringIO(service.post_json(ODD + ".csv", row).text)))
    assert rows[0] == [*row, "prediction_", "probability_p", "probability_q"]
    assert rows[1][2] == "a"


def test_an_empty_record_works_in_every_format(service: Client) -> None:
    expected = prediction(service.post_json(ODD, {}))
    assert service.post_json(ODD + ".csv", {}).status == service.post_json(ODD + ".html", {}).status == 200
    assert len(service.post_json(ODD + ".csv", [{}, {}]).text.splitlines()) == 3
    assert prediction(service.post_form(ODD + ".json", {})) == expected
    assert service.post_form(ODD, {}).status == 200


def test_several_records_are_shown_as_a_table(service: Client) -> None:
    assert "5 predictions" in service.post_json(MIXED + ".html", [RECORD] * 5).text


def test_the_fast_path_and_the_routes_send_the_same_headers(service: Client) -> None:
    changing = {"x-prediction-id", "date", "server", "content-length"}
    fast, routed = (
        {name.lower(): value for name, value in service.post_json(path, RECORD).headers.items() if name.lower() not in changing}
        for path in (MIXED, MIXED + "?on_error=all")
    )
    assert fast == routed


def test_invalid_requests_reach_the_routes(service: Client) -> None:
    """The fast path must not accept what the routes reject, or use another model than the one that is named."""
    deep = b'{"city": ' + b"[" * 600 + b"]" * 600 + b"}"
    json_type = {"content-type": "application/json"}
    assert service.post(MIXED, deep, json_type).status == 400
    assert service.get("/projects//predict?income=1").status == 404
    records = {"dataframe_records": [RECORD]}
    assert service.post_json("/invocations?project=nobody", records).status == 404
    assert service.post_json("/invocations?other=mixed", records).status == 422
    assert service.post_json("/invocations?project=mixed", records).status == 200
    for inputs in ([], [{"name": "records", "shape": [1], "datatype": "FP64", "data": [[[[1.0], [2.0]]]]}]):
        assert service.post_json("/v2/models/prices/infer", {"inputs": inputs}).status == 422

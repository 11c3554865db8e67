"""Every input format gives bit-identical predictions for dirty columns, panels and query records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from podium.local.acceptance import as_json, to_csv
from podium.local.http_client import Client
from tests.conftest import Put
from tests.unit.training.test_panel import shops

Rows = list[dict[str, str]]
Predict = Callable[[str, bytes, str], list[Any]]


def dirty(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    amount, share = random.normal(100, 900, count).round(2), random.uniform(0, 40, count).round(1)
    days = random.choice(["Monday", "tue", "WED", "thurs", " Friday", "sat", "Sunday"], count)
    region = random.choice(
        ["asia", "Asia", "EUROPE", "europe", "eruope", "asai", ""], count, p=[0.4, 0.1, 0.1, 0.39, 0.003, 0.003, 0.004]
    )
    amounts = [f"(${-cell:,.2f})" if cell < 0 else f"${cell:,.2f}" for cell in amount]
    return pd.DataFrame(
        {
            "amount": np.where(random.random(count) < 0.02, "", amounts),
            "share": [f"{cell}%" for cell in share],
            "day": days,
            "region": region,
            "plain": random.normal(size=count).round(3).astype(str),
            "taken": np.where(amount / 900 + share / 20 + random.normal(size=count) > 1, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def served(service: Client, put_champion: Put) -> Client:
    put_champion(dirty(2000, 0), name="dirty", target="taken", n_trials=1, families=["linear", "glm", "lightgbm"])
    panel = {"entity": "shop", "time": "day", "lags": 2, "forecast_base": "first"}
    put_champion(
        shops(),
        name="shops",
        target="sold",
        panel=panel,
        n_trials=1,
        families=["persistence", "linear", "lightgbm"],
    )
    for project in ("dirty", "shops"):
        service.wait_until(lambda project=project: service.get(f"/projects/{project}/schema").status == 200, 60)  # type: ignore[misc]
    return service


@pytest.fixture
def predict(served: Client) -> Predict:
    def post(path: str, body: bytes, media: str) -> list[Any]:
        response = served.post(path, body, {"content-type": media, "accept": "application/json"})
        assert response.status == 200, response.text
        predictions: list[Any] = response.json()["predictions"]
        return predictions

    return post


def form(row: dict[str, str]) -> bytes:
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in row.items()).encode()


def test_dirty_rows_give_the_same_predictions_in_every_format(served: Client, predict: Predict) -> None:
    rows: Rows = dirty(25, 1).drop(columns="taken").to_dict("records")
    rows[0] |= {"amount": "", "region": "", "day": "Wednsday"}
    rows[1] |= {"region": "EUROPA", "amount": "-$1,234.50"}
    schema = served.get("/projects/dirty/schema").json()
    records = [as_json(row, schema) for row in rows]
    path = "/projects/dirty/predict?inputs=true"
    by_dask = predict(path, json.dumps(records).encode(), "application/json")
    assert predict(path, to_csv(rows), "text/csv") == by_dask
    assert [
        prediction for row in rows for prediction in predict(path, form(row), "application/x-www-form-urlencoded")
    ] == by_dask
    assert [
        prediction for record in records for prediction in predict(path, json.dumps(record).encode(), "application/json")
    ] == by_dask
    first, second = by_dask[0]["inputs"], by_dask[1]["inputs"]
    assert list(first) == sorted(first)
    assert first["amount"] is None and second["amount"] == -1234.5


def test_the_fast_path_and_the_routes_parse_dirty_columns_alike(predict: Predict) -> None:
    """Clean cells use the fast path; texts that need parsing use the routes."""
    plain = {"amount": 1234.5, "share": 12.0, "day": "Tuesday", "region": "asia", "plain": 0.5}
    written = {"amount": "$1,234.50", "share": "12%", "day": "TUE", "region": "asai", "plain": 0.5}
    responses = [
        predict("/projects/dirty/predict", json.dumps(record).encode(), "application/json") for record in (plain, written)
    ]
    assert responses[0] == responses[1]


def test_a_form_accepts_formatted_amounts(served: Client) -> None:
    page = served.get("/projects/dirty?example=true").text
    assert 'name="amount" type="text"' in page
    invalid = served.post_form(
        "/projects/dirty/predict", {"amount": "12 dollars", "share": "3%", "day": "mon", "region": "asia", "plain": "1"}
    )
    assert invalid.status == 422 and "$1,234.5" in invalid.text
    assert served.get("/openapi.json").json()["components"]["schemas"]["record-dirty"]["properties"]["amount"]["type"] == [
        "number",
        "string",
        "null",
    ]


def test_a_record_in_the_query(served: Client) -> None:
    record = {"amount": "$5", "share": "12%", "day": "mon", "region": "asia", "plain": "1"}
    query = "&".join(f"{name}={quote(value)}" for name, value in record.items())
    response = served.get(f"/projects/dirty/predict?{query}")
    assert response.status == 200 and response.headers["X-Model-Version"]
    posted = served.request("POST", "/projects/dirty/predict", form(record), {
        "content-type": "application/x-www-form-urlencoded", "accept": "application/json"})  # fmt: skip
    assert response.json()["predictions"] == posted.json()["predictions"]
    all_models = served.get(f"/projects/dirty/predict?{query}&models=all&inputs=true").json()["predictions"][0]
    assert set(all_models["models"]) >= {"linear", "glm", "lightgbm"} and "inputs" in all_models
    page = served.request("GET", f"/projects/dirty/predict?{query}", None, {"accept": "text/html"})
    assert page.status == 200 and "champion" in page.text
    assert served.get(f"/projects/dirty/predict?{query}&more=1").json()["errors"][0]["code"] == "unknown-field"
    assert served.get(f"/projects/dirty/predict?{query}&plain=2").json()["errors"][0]["code"] == "duplicate-field"
    assert served.get("/projects/dirty/predict?amount=much").status == 422


def history(count: int = 9, names: tuple[str, ...] = ("s0", "s3")) -> Rows:
    frame = shops(days=count).astype(str)
    return frame[frame["shop"].isin(names)].to_dict("records")


def as_records(rows: Rows) -> bytes:
    return json.dumps([{**row, "sold": float(row["sold"]), "visits": float(row["visits"])} for row in rows]).encode()


def test_a_panel_gives_the_same_forecasts_in_every_format(served: Client, predict: Predict) -> None:
    rows, path = history(), "/projects/shops/predict?models=all"
    by_dask = predict(path, as_records(rows), "application/json")
    assert len(by_dask) == 2 * 10
    assert predict(path, to_csv(rows), "text/csv") == by_dask
    assert predict(path, form({"rows": to_csv(rows).decode()}), "application/x-www-form-urlencoded") == by_dask
    separate = [
        prediction
        for name in ("s0", "s3")
        for prediction in predict(path, as_records([r for r in rows if r["shop"] == name]), "application/json")
    ]
    assert separate == by_dask
    assert predict(path, as_records(rows[::-1]), "application/json")[10:] == by_dask[:10]  # in any order


def test_the_response_of_a_panel_has_a_forecast_per_day(served: Client, predict: Predict) -> None:
    rows = history(names=("s3",))
    predictions = predict("/projects/shops/predict", as_records(rows), "application/json")
    assert [row["index"] for row in predictions] == list(range(10))
    assert predictions[0]["prediction"] == predictions[0]["actual"] == float(rows[0]["sold"])
    assert predictions[9]["actual"] is None and predictions[9]["day"] == "2026-01-10"
    later = as_records([{**row, "day": row["day"].replace("2026", "2031")} for row in rows])
    warnings = served.post("/projects/shops/predict", later, {"content-type": "application/json"}).json()["warnings"]
    assert not [warning for warning in warnings if warning["column"] == "day"]
    rejected = served.get("/projects/shops/predict?shop=s3&day=2026-01-01")
    assert rejected.status == 422 and "POST them" in rejected.text
    assert abs(predictions[9]["step"] / float(rows[-1]["sold"]) - 1) < 0.5
    response = served.post("/projects/shops/predict.csv", to_csv(rows), {"content-type": "text/csv"})
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert list(table[0]) == ["shop", "index", "day", "pred_sold", "val_sold"]
    assert [float(row["pred_sold"]) for row in table] == [row["prediction"] for row in predictions]
    assert table[9]["val_sold"] == ""


def test_forecasts_are_not_explained(served: Client) -> None:
    rows = shops(2, 5).to_dict("records")
    assert served.post_json("/projects/shops/predict?explain=2", rows).json()["code"] == "not-explainable"


def test_the_page_of_a_panel_accepts_rows_and_shows_forecasts(served: Client) -> None:
    page = served.get("/projects/shops?example=true").text
    assert 'name="rows"' in page and "s0," in page
    shown = served.post_form("/projects/shops/predict", {"rows": to_csv(history()).decode()})
    assert shown.status == 200 and "20 predictions" in shown.text
    invalid = served.post_form("/projects/shops/predict", {"rows": "shop,day,sold,visits\ns0,tomorrow,1,2\n"})
    assert invalid.status == 422 and "a date of the form" in invalid.text
    assert served.post_form("/projects/shops/predict", {"rows": " "}).status == 422
    last = served.post_form("/projects/shops/predict", {"rows": "shop,day,sold,visits\ns0,9999-12-31,1,2\n"})
    assert last.status == 422 and "has no next day" in last.text
    assert served.get("/projects/shops/card").status == 200


def test_a_panel_works_with_the_standard_protocols(served: Client) -> None:
    rows = history(names=("s0",))
    body = {"dataframe_records": json.loads(as_records(rows))}
    predictions = served.post_json("/invocations?project=shops", body).json()["predictions"]
    tensors = [
        {
            "name": name,
            "datatype": kind,
            "shape": [9],
            "data": [row[name] if kind == "BYTES" else float(row[name]) for row in rows],
        }
        for name, kind in {"shop": "BYTES", "day": "BYTES", "sold": "FP64", "visits": "FP64"}.items()
    ]
    infer = served.post_json("/v2/models/shops/infer", {"inputs": tensors}).json()
    assert infer["outputs"][0]["data"] == predictions and len(predictions) == 10
    assert {tensor["name"] for tensor in served.get("/v2/models/shops").json()["inputs"]} == {"shop", "day", "sold", "visits"}


def test_an_inbox_file_of_a_panel_is_processed(served: Client, put_champion: Put, cloud_store: Any) -> None:
    cloud_store.create("inbox/shops/days.csv", to_csv(history()))
    receipt = "outbox/shops/days.csv.receipt.json"
    served.wait_until(lambda: cloud_store.exists(receipt), 60)
    rows = list(csv.reader(io.StringIO(cloud_store.read("outbox/shops/days.csv").data.decode())))
    assert rows[0] == ["shop", "index", "day", "pred_sold", "val_sold"]
    assert len(rows) == 21
    assert json.loads(cloud_store.read(receipt).data)["rows"] == 20


def test_a_large_panel_becomes_a_job(served: Client) -> None:
    frame = shops(count=25, days=500)
    response = served.post("/projects/shops/batch.csv", frame.to_csv(index=False).encode(), {"content-type": "text/csv"})
    assert response.status == 202
    location = response.headers["Location"]
    served.wait_until(lambda: served.get(location).json()["state"] in ("done", "failed"), 60)
    result = served.get(f"{location}/result.csv")
    assert result.status == 200 and len(result.body.splitlines()) == 25 * 501 + 1

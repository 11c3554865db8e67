"""Whatever form a training table had, requests may have: times, decimal commas, encodings, extra and missing columns."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest

import podium
from podium.local.http_client import Client
from tests.conftest import Put, projects_of

CSV, JSON, PARQUET = ({"content-type": media} for media in ("text/csv", "application/json", "application/vnd.apache.parquet"))
ROWS = 300
pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"n_trials": 1, "families": ["linear", "lightgbm"], "features": {"max_features": 8}}


def sales() -> pd.DataFrame:
    random = np.random.default_rng(3)
    at = pd.date_range("2024-01-01", periods=ROWS, freq="5h")
    color = random.choice(["red", "grün", "blue"], ROWS)
    area = random.integers(40, 200, ROWS)
    weight = random.normal(60, 10, ROWS).round(2)
    amount = 10 * at.hour.to_numpy() + area + weight + 20 * (color == "red") + random.normal(0, 3, ROWS)
    noise = {f"noise{index}": random.normal(0, 1, ROWS).round(3) for index in range(6)}
    return pd.DataFrame({"at": at, "color": color, "area": area, "weight": weight, **noise, "amount": amount.round(2)})


def german(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, sep=";", decimal=",").encode("windows-1252")


@pytest.fixture(scope="module")
def field(service: Client, put_champion: Put) -> Client:
    """The service with `sales`, trained on a German table, and `decided`, which predicts an event from 75 % on."""
    put_champion(
        german(sales()),
        name="sales",
        target="amount",
        n_trials=1,
        families=["linear", "lightgbm"],
        features={"max_features": 8},
    )
    events = sales().assign(
        event=lambda frame: (frame["amount"] > frame["amount"].median()).map({True: "event", False: "none"})
    )
    events.loc[::9, "color"] = "NA"
    put_champion(
        events.drop(columns="amount"), name="decided", target="event", n_trials=1, families=["linear"],
        decision={"class": "event", "threshold": 0.95},
    )  # fmt: skip
    named = events.rename(columns={"area": "raw", "color": "inputs", "weight": "explain", "noise0": "extra"})
    put_champion(named.drop(columns=["amount", "at"]), name="named", target="event", n_trials=1, families=["linear"])
    service.wait_until(lambda: {"sales", "decided", "named"} <= projects_of(service), 60)
    return service


def predict(client: Client, body: bytes, media: dict[str, str], project: str = "sales") -> list[Any]:
    response = client.post(f"/projects/{project}/predict.json", body, media)
    assert response.status == 200, response.text
    return [row["prediction"] for row in response.json()["predictions"]]


def test_a_get_can_ask_columns_that_are_called_like_its_parameters(field: Client) -> None:
    record = {"inputs": "grün", "raw": 140, "explain": 61.5, "extra": 0.2} | {f"noise{n}": 0.1 for n in range(1, 6)}
    posted = field.post_json("/projects/named/predict", record).json()
    for suffix in ("", ".json"):
        response = field.get(f"/projects/named/predict{suffix}?{urlencode({**record, 'models': 'all'})}")
        assert response.status == 200, response.text
        assert response.json()["predictions"] == posted["predictions"]
    unknown = field.get(f"/projects/named/predict?{urlencode({**record, 'rows': '3'})}")
    assert (unknown.status, "rows" in unknown.text) == (422, True)


def json_rows(frame: pd.DataFrame, **options: Any) -> bytes:
    return str(frame.to_json(orient="records", **options)).encode()


def test_every_form_of_a_table_gives_the_same_predictions(field: Client) -> None:
    rows = sales().drop(columns="amount").head(5)
    file = io.BytesIO()
    rows.to_parquet(file)
    forms = {
        "epoch": (json_rows(rows.assign(at=rows["at"].astype("datetime64[ms]").astype("int64"))), JSON),
        "iso": (json_rows(rows, date_format="iso"), JSON),
        "csv": (rows.to_csv(index=False).encode(), CSV),
        "csv with an index": (rows.to_csv().encode(), CSV),
        "German csv": (german(rows), CSV),
        "tabs": (rows.to_csv(index=False, sep="\t").encode("utf-16"), CSV),
        "preamble": (b"Sales\n\n" + rows.to_csv(index=False).encode(), CSV),
        "parquet": (file.getvalue(), PARQUET),
    }
    answers = {name: predict(field, *form) for name, form in forms.items()}
    assert all(answer == pytest.approx(answers["csv"]) for answer in answers.values()), answers
    assert len(answers["csv"]) == 5


def test_decimals_in_a_column_of_whole_numbers_get_a_warning(field: Client) -> None:
    record = {**json.loads(json_rows(sales().head(1), date_format="iso"))[0], "area": 71.5}
    del record["amount"]
    response = field.post("/projects/sales/predict.json", json.dumps(record).encode(), JSON)
    assert response.status == 200
    assert [(warning["code"], warning["column"]) for warning in response.json()["warnings"]] == [("not-whole", "area")]


def test_columns_that_no_model_uses_are_optional(field: Client) -> None:
    schema = field.get("/projects/sales/schema.json").json()
    used = set(schema["required"])
    assert {"at", "area", "weight"} <= used and len(used) < 9 < len(schema["properties"])
    record = json.loads(json_rows(sales().head(1), date_format="iso"))[0]
    complete = {name: cell for name, cell in record.items() if name != "amount"}
    part = {name: cell for name, cell in record.items() if name in used}
    bodies = [json.dumps(body).encode() for body in (complete, part)]
    assert predict(field, bodies[0], JSON) == predict(field, bodies[1], JSON)
    response = field.post("/projects/sales/predict.json?inputs=true", bodies[0], JSON)
    assert list(response.json()["predictions"][0]["inputs"]) == sorted(used)


def test_a_decision_has_its_own_threshold(field: Client) -> None:
    rows = sales().drop(columns="amount").head(200)
    response = field.post("/projects/decided/predict.json", json_rows(rows, date_format="iso"), JSON).json()["predictions"]
    expected = ["event" if row["probabilities"]["event"] > 0.95 else "none" for row in response]
    assert [row["prediction"] for row in response] == expected
    assert any(0.5 < row["probabilities"]["event"] <= 0.95 for row in response)
    table = field.post("/projects/decided/predict.csv", rows.to_csv(index=False).encode(), CSV)
    assert pd.read_csv(io.StringIO(table.text))["prediction"].tolist() == expected
    first = [predict(field, json_rows(rows.iloc[[index]], date_format="iso"), JSON, "decided")[0] for index in range(40)]
    assert first == expected[:40]
    card = field.get("/projects/decided/card.json").json()
    assert card["target"]["decision"] == "event if its probability is above 0.95"


def test_missing_marks_of_the_training_table_are_missing_in_requests(field: Client) -> None:
    row = sales().drop(columns="amount").head(1)
    table = row.assign(color="NA").to_csv(index=False).encode()
    bodies = [(json_rows(row.assign(color=color), date_format="iso"), JSON) for color in ("NA", None)]
    responses = [field.post("/projects/decided/predict.json", *request) for request in [*bodies, (table, CSV)]]
    assert [response.status for response in responses] == [200, 200, 200]
    assert len({json.dumps(response.json()["predictions"]) for response in responses}) == 1
    assert not any(response.json().get("warnings") for response in responses)


def test_the_card_and_the_pages_tell_what_was_read(field: Client) -> None:
    findings = field.get("/projects/sales/card.json").json()["findings"]
    assert {"text read as windows-1252", "the delimiter is a semicolon"} <= {finding["message"] for finding in findings}
    for page in ("/projects/sales", "/projects/sales/card"):
        assert "What was read, changed and left out" in field.request("GET", page, headers={"accept": "text/html"}).text


def tensors(color: str, **parameters: Any) -> bytes:
    record = json.loads(json_rows(sales().drop(columns="amount").head(1), date_format="iso"))[0]
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(cell, str) else "FP64", "data": [cell]}
        for name, cell in record.items()
    ]
    for tensor in inputs:
        if tensor["name"] == "color":
            tensor |= {"data": [color], **({"parameters": parameters} if parameters else {})}
    return json.dumps({"inputs": inputs}).encode()


def test_tensors_in_base64_are_decoded(field: Client) -> None:
    path = "/v2/models/sales/infer"
    plain = field.post(path, tensors("red"), JSON).json()["outputs"][0]["data"]
    encoded = base64.b64encode(b"red").decode()
    for content_type, color in (("base64", encoded), ("str", "red"), ("np", "red"), ("pd", "red")):
        assert field.post(path, tensors(color, content_type=content_type), JSON).json()["outputs"][0]["data"] == plain
    unknown = field.post(path, tensors("red", content_type="hg_jpeg"), JSON)
    assert unknown.status == 422 and "content_type" in unknown.text
    assert field.post(path, tensors("%%%", content_type="base64"), JSON).status == 422


def test_mlflow_requests_may_have_nan_and_other_columns(field: Client) -> None:
    record = json.loads(json_rows(sales().drop(columns="amount").head(1), date_format="iso"))[0]
    path = "/invocations?project=sales"
    expected = field.post(path, json.dumps({"dataframe_records": [record]}).encode(), JSON)
    assert expected.status == 200 and "x-ignored-columns" not in expected.headers
    extra = field.post(path, json.dumps({"dataframe_records": [{**record, "id": 7}]}).encode(), JSON)
    assert extra.json() == expected.json() and extra.headers["x-ignored-columns"] == "id"
    split = {"columns": [*record, "id"], "data": [[*record.values(), 7]]}
    assert field.post(path, json.dumps({"dataframe_split": split}).encode(), JSON).json() == expected.json()
    body = json.dumps({"dataframe_records": [{**record, "weight": float("nan")}]}).encode()
    assert field.post(path, body, JSON).json()["code"] == "missing-field"  # NaN is a missing value, and weight is required


def test_containers_answer_ping_and_version(field: Client) -> None:
    assert field.get("/ping").status == 200
    assert field.get("/version").text == podium.__version__

"""The Open Inference Protocol v2 and MLflow's scoring protocol, also with a public client."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest

from podium.local.http_client import Client
from tests.conftest import PROMOTERS
from tests.tables import RECORD

INFER = "/v2/models/mixed/infer"
TYPES = {"income": "FP64", "visits": "INT64", "city": "BYTES", "member": "BOOL", "since": "BYTES", "score": "FP32"}


def tensors(rows: list[dict[str, Any]], flat: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": kind,
            "shape": [len(rows)] if flat else [len(rows), 1],
            "data": [row[name] if flat else [row[name]] for row in rows],
        }
        for name, kind in TYPES.items()
    ]


@pytest.fixture(scope="module")
def expected(service: Client) -> dict[str, Any]:
    prediction: dict[str, Any] = service.post_json("/projects/mixed/predict", RECORD).json()["predictions"][0]
    return prediction


def test_server_and_model_metadata(service: Client) -> None:
    assert service.get("/v2").json()["name"] == "podium"
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    assert {"mixed", "prices", "odd"} <= set(service.get("/v2/models").json()["models"])
    metadata = service.get("/v2/models/mixed").json()
    assert set(metadata) == {"name", "versions", "platform", "inputs", "outputs"}
    assert [(tensor["name"], tensor["datatype"]) for tensor in metadata["inputs"]][:3] == [
        ("income", "FP64"),
        ("visits", "INT64"),
        ("city", "BYTES"),
    ]
    assert all(tensor["shape"] == [-1, 1] for tensor in metadata["inputs"] + metadata["outputs"])
    (version,) = metadata["versions"]
    assert service.get(f"/v2/models/mixed/versions/{version}").json() == metadata
    assert service.get(f"/v2/models/mixed/versions/{version}/ready").json() == {"name": "mixed", "ready": True}
    other_version = service.get("/v2/models/mixed/versions/20200101T000000Z-00000000")
    assert (other_version.status, "is" in other_version.json()["error"]) == (404, True)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("count", [1, 11])
def test_inference_with_tensors_gives_the_same_predictions(
    service: Client, expected: dict[str, Any], flat: bool, count: int
) -> None:
    body = {"id": "mine", "parameters": {"content_type": "pd"}, "inputs": tensors([RECORD] * count, flat)}
    response = service.post_json(INFER, body)
    result = response.json()
    assert (result["id"], result["model_name"], result["model_version"]) == (
        "mine",
        "mixed",
        response.headers["x-model-version"],
    )
    assert [tensor["name"] for tensor in result["outputs"]] == ["prediction", "probability_no", "probability_yes"]
    assert {tuple(tensor["shape"]) for tensor in result["outputs"]} == {(count, 1)}
    assert result["outputs"][0]["data"] == [expected["prediction"]] * count
    assert result["outputs"][2]["data"] == [expected["probabilities"]["yes"]] * count


def test_missing_values_are_null_or_nan(service: Client) -> None:
    expected_prediction = service.post_json("/projects/mixed/predict", {**RECORD, "score": None}).json()["predictions"][0]
    for value in (None, float("nan")):
        result = service.post_json(INFER, {"inputs": tensors([{**RECORD, "score": value}])}).json()
        assert result["outputs"][0]["data"] == [expected_prediction["prediction"]]
        assert result["id"]


def test_one_tensor_may_hold_whole_rows(service: Client) -> None:
    rows = [[100.0, 3], [55.5, 2]]
    expected_prediction = [
        row["prediction"] for row in service.post_json("/projects/prices/predict", rows).json()["predictions"]
    ]
    body = {"inputs": [{"name": "input-0", "datatype": "FP64", "shape": [2, 2], "data": [100.0, 3, 55.5, 2]}]}
    outputs = service.post_json("/v2/models/prices/infer", body).json()["outputs"]
    assert [tensor["data"] for tensor in outputs] == [expected_prediction]


def test_the_repository_index_accepts_an_object_or_an_empty_body(service: Client) -> None:
    for body in (b"", b"{}", b'{"ready": false}'):
        assert service.post("/v2/repository/index", body, {}).status == 200
    for body in (b"[]", b"5", b'"x"', b"null", b"true", b'{"ready": 1}', b'{"ready": {}}'):
        assert service.post("/v2/repository/index", body, {}).status == 422
    for body in (b"\xff", b"{", b"NaN", b"[" * 60_000):
        assert service.post("/v2/repository/index", body, {}).status == 400


def test_invalid_requests_get_problems(service: Client) -> None:
    good = tensors([RECORD])
    changes = [{"parameters": 5}, {"parameters": []}, {"id": "\ud800"}, {"id": 7}, {"outputs": [{"name": {}}]}]
    bodies = [{"inputs": good, **change} for change in changes]
    bodies += [
        {"inputs": [{**good[0], **change}, *good[1:]]} for change in ({"parameters": "x"}, {"datatype": []}, {"name": {}})
    ]
    for body in bodies:
        response = service.post_json(INFER, body)
        assert (response.status, response.headers["content-type"]) == (422, "application/problem+json"), body
    broken = service.post(INFER, b"{}", {"Inference-Header-Content-Length": "9"})
    assert (broken.status, broken.json()["code"]) == (400, "wrong-length")


def test_only_the_requested_outputs_are_returned(service: Client) -> None:
    body = {"inputs": tensors([RECORD]), "outputs": [{"name": "probability_yes"}]}
    assert [tensor["name"] for tensor in service.post_json(INFER, body).json()["outputs"]] == ["probability_yes"]


GOOD = tensors([RECORD])
INVALID: list[tuple[Any, int]] = [
    ([], 422),
    ({}, 422),
    ({"inputs": []}, 422),
    ({"inputs": [5]}, 422),
    ({"inputs": GOOD[1:]}, 422),
    ({"inputs": [*GOOD, GOOD[0]]}, 422),
    ({"inputs": [{**GOOD[0], "shape": [2]}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "shape": "x"}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "shape": [1, 2], "data": [1, 2]}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "data": None}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "data": ["much"]}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "datatype": "FLOAT"}, *GOOD[1:]]}, 422),
    ({"inputs": [{**GOOD[0], "parameters": {"binary_data_size": 8}}, *GOOD[1:]]}, 422),
    ({"inputs": [*GOOD, {"name": "other", "datatype": "FP32", "shape": [1], "data": [1]}]}, 422),
    ({"inputs": GOOD, "outputs": [{"name": "other"}]}, 422),
    ({"inputs": GOOD, "outputs": "all"}, 422),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 5], "data": [1, 2, 3, 4, 5]}]}, 422),
]


@pytest.mark.parametrize(("body", "status"), INVALID, ids=range(len(INVALID)))
def test_invalid_tensors_get_an_error_of_both_standards(service: Client, body: Any, status: int) -> None:
    response = service.post_json(INFER, body)
    assert (response.status, response.headers["content-type"]) == (status, "application/problem+json"), response.text
    assert isinstance(response.json()["error"], str)


def test_the_repository_index_has_states_and_reasons(service: Client) -> None:
    index = service.post_json("/v2/repository/index", {}).json()
    assert {"name", "version", "state", "reason"} == set(index[0])
    ready = service.post_json("/v2/repository/index", {"ready": True}).json()
    assert {version["state"] for version in ready} == {"READY"}
    assert [version["name"] for version in ready].count("mixed") == 1
    assert all(version["reason"] for version in index if version["state"] != "READY")


def test_loading_needs_a_promoter_and_unloading_is_not_allowed(service: Client) -> None:
    bearer = {"authorization": f"Bearer {PROMOTERS['ann']}"}
    assert service.post("/v2/repository/models/mixed/load", b"{}", {}).status == 401
    assert service.post("/v2/repository/models/mixed/load", b"{}", bearer).status == 200
    assert service.post("/v2/repository/models/nothing/load", b"{}", bearer).status == 404
    assert service.post("/v2/repository/models/mixed/unload", b"{}", bearer).status == 409


@pytest.mark.parametrize("by_default", [True, False])
def test_a_public_client_of_the_protocol_works(service: Client, expected: dict[str, Any], by_default: bool) -> None:
    """By default, the client sends and requests binary tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tritonclient.http as tritonclient_http

    client = tritonclient_http.InferenceServerClient(service.host)
    try:
        assert client.is_server_live()
        assert client.is_model_ready("mixed")
        assert client.get_model_metadata("mixed")["name"] == "mixed"
        inputs = [tritonclient_http.InferInput(name, [2, 1], kind) for name, kind in TYPES.items()]
        for tensor in inputs:
            value, kind = RECORD[tensor.name()], tensor.datatype()
            cell = value.encode() if kind == "BYTES" else value
            dtype = {"FP64": np.float64, "INT64": np.int64, "BYTES": object, "BOOL": bool, "FP32": np.float32}[kind]
            binary = {} if by_default else {"binary_data": False}
            tensor.set_data_from_numpy(np.array([[cell], [cell]], dtype=dtype), **binary)
        outputs = None if by_default else [tritonclient_http.InferRequestedOutput("prediction", binary_data=False)]
        result = client.infer("mixed", inputs, request_id="7", outputs=outputs)
        labels = [cell.decode() if isinstance(cell, bytes) else cell for cell in result.as_numpy("prediction").ravel()]
        assert labels == [expected["prediction"]] * 2
        assert result.get_response()["id"] == "7"
        if by_default:
            assert result.as_numpy("probability_yes").tolist() == [[expected["probabilities"]["yes"]]] * 2
        assert any(model["name"] == "mixed" for model in client.get_model_repository_index())
    finally:
        client.close()


INVOCATIONS = "/invocations?project=mixed"
NAMES, CELLS = list(RECORD), list(RECORD.values())
BODIES: list[Any] = [
    {"dataframe_split": {"columns": NAMES, "data": [CELLS], "index": [0]}},
    {"dataframe_split": {"columns": NAMES[::-1], "data": [CELLS[::-1]]}},
    {"dataframe_records": [RECORD]},
    {"instances": [RECORD]},
    {"instances": [CELLS]},
    {"inputs": {name: [value] for name, value in RECORD.items()}},
    {"inputs": {name: [[value]] for name, value in RECORD.items()}},
    {"inputs": [RECORD]},
    {"inputs": RECORD},
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_mlflow_bodies_give_mlflow_responses(service: Client, expected: dict[str, Any], body: Any) -> None:
    response = service.post_json(INVOCATIONS, body)
    assert response.json() == {"predictions": [expected["prediction"]]}, response.text
    assert response.headers["x-model-version"]


def test_mlflow_csv_is_predicted(service: Client, expected: dict[str, Any]) -> None:
    text = ",".join(NAMES) + "\n" + ",".join(str(value).lower() if value is True else str(value) for value in CELLS) + "\n"
    response = service.post(INVOCATIONS, text.encode(), {"content-type": "text/csv; charset=utf-8"})
    assert response.json() == {"predictions": [expected["prediction"]]}


INVALID_MLFLOW: list[Any] = [
    {},
    [],
    {"instances": [RECORD], "inputs": [RECORD]},
    {"instances": []},
    {"instances": [5, "x"]},
    {"dataframe_split": {"columns": NAMES, "data": [CELLS[:-1]]}},
    {"dataframe_split": {"columns": [*NAMES, NAMES[0]], "data": [[*CELLS, 1]]}},
    {"dataframe_split": []},
    {"inputs": {"income": [1, 2], "visits": [1]}},
]


@pytest.mark.parametrize("body", INVALID_MLFLOW, ids=range(len(INVALID_MLFLOW)))
def test_invalid_mlflow_bodies_get_problems(service: Client, body: Any) -> None:
    response = service.post(INVOCATIONS, json.dumps(body).encode(), {"content-type": "application/json"})
    assert (response.status, response.headers["content-type"]) == (422, "application/problem+json")


def test_invocations_need_a_project_if_there_are_several(service: Client) -> None:
    assert service.post_json("/invocations", {"instances": [CELLS]}).status == 404

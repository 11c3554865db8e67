"""Clients of other servers, unchanged: the Open Inference Protocol v2 and MLflow's scoring protocol."""

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
    found: dict[str, Any] = service.post_json("/projects/mixed/predict", RECORD).json()["predictions"][0]
    return found


def test_the_server_and_its_models_describe_themselves(service: Client) -> None:
    assert service.get("/v2").json()["name"] == "podium"
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    assert {"mixed", "prices", "odd"} <= set(service.get("/v2/models").json()["models"])
    found = service.get("/v2/models/mixed").json()
    assert set(found) == {"name", "versions", "platform", "inputs", "outputs"}
    assert [(tensor["name"], tensor["datatype"]) for tensor in found["inputs"]][:3] == [
        ("income", "FP64"),
        ("visits", "INT64"),
        ("city", "BYTES"),
    ]
    assert all(tensor["shape"] == [-1, 1] for tensor in found["inputs"] + found["outputs"])
    (version,) = found["versions"]
    assert service.get(f"/v2/models/mixed/versions/{version}").json() == found
    assert service.get(f"/v2/models/mixed/versions/{version}/ready").json() == {"name": "mixed", "ready": True}
    gone = service.get("/v2/models/mixed/versions/20200101T000000Z-00000000")
    assert (gone.status, "is" in gone.json()["error"]) == (404, True)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("count", [1, 11])
def test_tensors_in_give_tensors_out(service: Client, expected: dict[str, Any], flat: bool, count: int) -> None:
    body = {"id": "mine", "parameters": {"content_type": "pd"}, "inputs": tensors([RECORD] * count, flat)}
    answer = service.post_json(INFER, body)
    found = answer.json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("mine", "mixed", answer.headers["x-model-version"])
    assert [tensor["name"] for tensor in found["outputs"]] == ["prediction", "probability_no", "probability_yes"]
    assert {tuple(tensor["shape"]) for tensor in found["outputs"]} == {(count, 1)}
    assert found["outputs"][0]["data"] == [expected["prediction"]] * count
    assert found["outputs"][2]["data"] == [expected["probabilities"]["yes"]] * count


def test_missing_values_are_null_or_nan(service: Client) -> None:
    wanted = service.post_json("/projects/mixed/predict", {**RECORD, "score": None}).json()["predictions"][0]
    for value in (None, float("nan")):
        found = service.post_json(INFER, {"inputs": tensors([{**RECORD, "score": value}])}).json()
        assert found["outputs"][0]["data"] == [wanted["prediction"]]
        assert found["id"]


def test_whole_rows_may_come_as_one_tensor(service: Client) -> None:
    rows = [[100.0, 3], [55.5, 2]]
    wanted = [each["prediction"] for each in service.post_json("/projects/prices/predict", rows).json()["predictions"]]
    body = {"inputs": [{"name": "input-0", "datatype": "FP64", "shape": [2, 2], "data": [100.0, 3, 55.5, 2]}]}
    found = service.post_json("/v2/models/prices/infer", body).json()["outputs"]
    assert [tensor["data"] for tensor in found] == [wanted]


def test_the_repository_takes_an_object_or_nothing(service: Client) -> None:
    for body in (b"", b"{}", b'{"ready": false}'):
        assert service.post("/v2/repository/index", body, {}).status == 200
    for body in (b"[]", b"5", b'"x"', b"null", b"true", b'{"ready": 1}', b'{"ready": {}}'):
        assert service.post("/v2/repository/index", body, {}).status == 422
    for body in (b"\xff", b"{", b"NaN", b"[" * 60_000):
        assert service.post("/v2/repository/index", body, {}).status == 400


def test_the_faults_of_a_request_are_problems_over_http(service: Client) -> None:
    good = tensors([RECORD])
    more = [{"parameters": 5}, {"parameters": []}, {"id": "\ud800"}, {"id": 7}, {"outputs": [{"name": {}}]}]
    bodies = [{"inputs": good, **each} for each in more]
    bodies += [{"inputs": [{**good[0], **each}, *good[1:]]} for each in ({"parameters": "x"}, {"datatype": []}, {"name": {}})]
    for body in bodies:
        answer = service.post_json(INFER, body)
        assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json"), body
    broken = service.post(INFER, b"{}", {"Inference-Header-Content-Length": "9"})
    assert (broken.status, broken.json()["code"]) == (400, "wrong-length")


def test_only_the_asked_outputs_come(service: Client) -> None:
    body = {"inputs": tensors([RECORD]), "outputs": [{"name": "probability_yes"}]}
    assert [tensor["name"] for tensor in service.post_json(INFER, body).json()["outputs"]] == ["probability_yes"]


GOOD = tensors([RECORD])
WRONG: list[tuple[Any, int]] = [
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


@pytest.mark.parametrize(("body", "status"), WRONG, ids=range(len(WRONG)))
def test_wrong_tensors_are_an_error_in_both_standards(service: Client, body: Any, status: int) -> None:
    answer = service.post_json(INFER, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert isinstance(answer.json()["error"], str)


def test_the_repository_tells_true_states(service: Client) -> None:
    found = service.post_json("/v2/repository/index", {}).json()
    assert {"name", "version", "state", "reason"} == set(found[0])
    ready = service.post_json("/v2/repository/index", {"ready": True}).json()
    assert {each["state"] for each in ready} == {"READY"}
    assert [each["name"] for each in ready].count("mixed") == 1
    assert all(each["reason"] for each in found if each["state"] != "READY")


def test_loading_needs_a_promoter_and_a_champion_is_not_unloaded(service: Client) -> None:
    bearer = {"authorization": f"Bearer {PROMOTERS['ann']}"}
    assert service.post("/v2/repository/models/mixed/load", b"{}", {}).status == 401
    assert service.post("/v2/repository/models/mixed/load", b"{}", bearer).status == 200
    assert service.post("/v2/repository/models/nothing/load", b"{}", bearer).status == 404
    assert service.post("/v2/repository/models/mixed/unload", b"{}", bearer).status == 409


@pytest.mark.parametrize("by_default", [True, False])
def test_a_public_client_of_the_protocol_works_unchanged(service: Client, expected: dict[str, Any], by_default: bool) -> None:
    """By default it sends and asks for binary tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tritonclient.http as public

    client = public.InferenceServerClient(service._host)
    try:
        assert client.is_server_live()
        assert client.is_model_ready("mixed")
        assert client.get_model_metadata("mixed")["name"] == "mixed"
        inputs = [public.InferInput(name, [2, 1], kind) for name, kind in TYPES.items()]
        for tensor in inputs:
            value, kind = RECORD[tensor.name()], tensor.datatype()
            cell = value.encode() if kind == "BYTES" else value
            dtype = {"FP64": np.float64, "INT64": np.int64, "BYTES": object, "BOOL": bool, "FP32": np.float32}[kind]
            binary = {} if by_default else {"binary_data": False}
            tensor.set_data_from_numpy(np.array([[cell], [cell]], dtype=dtype), **binary)
        asked = None if by_default else [public.InferRequestedOutput("prediction", binary_data=False)]
        result = client.infer("mixed", inputs, request_id="7", outputs=asked)
        found = [cell.decode() if isinstance(cell, bytes) else cell for cell in result.as_numpy("prediction").ravel()]
        assert found == [expected["prediction"]] * 2
        assert result.get_response()["id"] == "7"
        if by_default:
            assert result.as_numpy("probability_yes").tolist() == [[expected["probabilities"]["yes"]]] * 2
        assert any(each["name"] == "mixed" for each in client.get_model_repository_index())
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
def test_mlflow_bodies_give_mlflow_answers(service: Client, expected: dict[str, Any], body: Any) -> None:
    answer = service.post_json(INVOCATIONS, body)
    assert answer.json() == {"predictions": [expected["prediction"]]}, answer.text
    assert answer.headers["x-model-version"]


def test_mlflow_csv(service: Client, expected: dict[str, Any]) -> None:
    text = ",".join(NAMES) + "\n" + ",".join(str(value).lower() if value is True else str(value) for value in CELLS) + "\n"
    answer = service.post(INVOCATIONS, text.encode(), {"content-type": "text/csv; charset=utf-8"})
    assert answer.json() == {"predictions": [expected["prediction"]]}


BAD: list[Any] = [
    {},
    [],
    {"instances": [RECORD], "inputs": [RECORD]},
    {"instances": []},
    {"instances": [5, "x"]},
    {"dataframe_split": {"columns": NAMES, "data": [CELLS[:-1]]}},
    {"dataframe_split": {"columns": [*NAMES, NAMES[0]], "data": [[*CELLS, 1]]}},
    {"dataframe_split": []},
    {"inputs": {"income": [1, 2], "visits": [1]}},
    {"dataframe_records": [{**RECORD, "colour": 1}]},
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_bad_mlflow_bodies_are_problems(service: Client, body: Any) -> None:
    answer = service.post(INVOCATIONS, json.dumps(body).encode(), {"content-type": "application/json"})
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")


def test_invocations_without_a_project_ask_for_one(service: Client) -> None:
    assert service.post_json("/invocations", {"instances": [CELLS]}).status == 404

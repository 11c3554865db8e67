"""Invalid input gets a problem that names row and column but never the value; nothing returns 500."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from podium.local.http_client import Client
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
JSON = {"content-type": "application/json"}
ARRAY = list(RECORD.values())


def record(**cells: Any) -> bytes:
    return json.dumps({**RECORD, **cells}).encode()


TEXT = json.dumps(RECORD)
BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid-json"),
    (b"{", 400, "invalid-json"),
    (TEXT.encode() + b"x", 400, "invalid-json"),
    (TEXT.replace('"', "'").encode(), 400, "invalid-json"),
    (TEXT.encode() + b" // a record", 400, "invalid-json"),
    (b"[" * 101 + b"]" * 101, 400, "invalid-json"),
    (b"[" * 250_000, 400, "invalid-json"),
    (TEXT.replace("41000.5", "NaN").encode(), 400, "not-finite"),
    (TEXT.replace("41000.5", "-Infinity").encode(), 400, "not-finite"),
    (TEXT.replace("41000.5", "1e999").encode(), 422, "out-of-range"),
    (TEXT.replace("41000.5", "9" * 4000).encode(), 422, "out-of-range"),
    (record(visits=2**63), 422, "out-of-range"),
    (record(city="x" * 1_000_000), 422, "out-of-range"),
    (record(income="nan"), 422, "invalid-type"),
    (record(income="1"), 422, "invalid-type"),
    (record(income=True), 422, "invalid-type"),
    (record(member=2), 422, "invalid-type"),
    (record(since="2022-02-30"), 422, "invalid-type"),
    (record(income=None), 422, "missing-field"),
    (json.dumps({name: cell for name, cell in RECORD.items() if name != "income"}).encode(), 422, "missing-field"),
    (b"null", 422, "invalid-type"),
    (b"5", 422, "invalid-type"),
    (b'"text"', 422, "invalid-type"),
    (TEXT.replace('"visits": 3', '"visits": ' + "9" * 320).encode(), 422, "out-of-range"),
    (record(city="\ud800"), 422, "invalid-encoding"),
    (record(city="a\0b"), 422, "invalid-encoding"),
    (TEXT.encode("utf-16"), 400, "invalid-encoding"),
    (b'{"income": "\xff"}', 400, "invalid-encoding"),
    (TEXT.replace('"visits"', '"income": 1, "visits"').encode(), 400, "duplicate-field"),
    (b"[]", 422, "empty-input"),
    (b'{"records": []}', 422, "empty-input"),
    (record(colour="red"), 422, "unknown-field"),
    (json.dumps({**RECORD, "Income": 1}).encode(), 422, "unknown-field"),
    (record(__proto__={}), 422, "unknown-field"),
    (json.dumps(ARRAY[:-1]).encode(), 422, "wrong-length"),
    (json.dumps([*ARRAY, 1]).encode(), 422, "wrong-length"),
    (json.dumps([RECORD, 5]).encode(), 422, "invalid-type"),
    (json.dumps([[[1]]]).encode(), 422, "wrong-length"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=range(len(BODIES)))
def test_invalid_json_gets_a_problem(service: Client, body: bytes, status: int, code: str) -> None:
    """The event loop is not blocked: the best of five liveness checks takes less than 0.1 s."""
    response = service.post(MIXED, body, JSON)
    assert (response.status, response.json()["code"]) == (status, code), response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith(code)
    assert min(liveness_seconds(service) for _ in range(5)) < 0.1


def liveness_seconds(service: Client) -> float:
    started = time.monotonic()
    assert service.get("/livez").status == 200
    return time.monotonic() - started


UNUSUAL: list[tuple[bytes, list[str]]] = [
    (b"\xef\xbb\xbf" + TEXT.encode(), []),
    (record(score=None), []),
    (record(city="K\u00f6ln"), []),
    (record(city="Ko\u0308ln"), []),
    (record(city="NA"), []),
    (record(city="Paris"), ["unknown-category"]),
    (record(income=10**9), ["out-of-training-range"]),
]


@pytest.mark.parametrize(("body", "warnings"), UNUSUAL, ids=range(len(UNUSUAL)))
def test_unusual_input_is_predicted(service: Client, body: bytes, warnings: list[str]) -> None:
    response = service.post(MIXED, body, JSON)
    assert response.status == 200, response.text
    assert [warning["code"] for warning in response.json()["warnings"]] == warnings


def test_composed_and_decomposed_letters_are_the_same_category(service: Client) -> None:
    predictions = [service.post(MIXED, record(city=city), JSON).json()["predictions"] for city in ("K\u00f6ln", "Ko\u0308ln")]
    assert predictions[0] == predictions[1]


def test_an_invalid_row_is_named_and_nothing_is_predicted(service: Client) -> None:
    rows = [dict(RECORD) for _ in range(10)]
    rows[6]["income"] = "secret"
    response = service.post_json(MIXED, rows)
    assert response.status == 422
    assert [(error["row"], error["column"]) for error in response.json()["errors"]] == [(7, "income")]
    assert "predictions" not in response.json()
    assert "secret" not in response.text


REQUESTS = [
    ("POST", MIXED, {"content-type": "text/plain"}, 415),
    ("POST", MIXED, {}, 415),
    ("POST", MIXED, {"content-type": "application/json; charset=utf-16"}, 415),
    ("POST", MIXED, {**JSON, "content-encoding": "gzip"}, 415),
    ("POST", MIXED, {"content-type": "application/octet-stream"}, 415),
    ("POST", MIXED, {"content-type": "application/python-pickle"}, 415),
    ("POST", MIXED, {**JSON, "accept": "image/png"}, 406),
    ("PUT", MIXED, JSON, 405),
    ("POST", "/projects/nothing/predict", JSON, 404),
    ("POST", "/projects//predict", JSON, 404),
    ("POST", "/projects/../predict", JSON, 404),
    ("POST", "/projects/%2e%2e/predict", JSON, 404),
    ("POST", "/projects/%00/predict", JSON, 404),
    ("GET", "/projects/mixed/../../etc/passwd", {}, 404),
    ("GET", "/static/%2e%2e/settings.py", {}, 404),
    ("GET", "/nothing", {}, 404),
    ("POST", "/projects/Mixed%2f..%2f/promote", JSON, 404),
    ("POST", "/projects/MIXED/promote", JSON, 422),
    ("POST", "/refresh", JSON, 401),
    ("POST", MIXED, {"content-type": "multipart/form-data"}, 400),
    ("POST", MIXED, {"content-type": "application/x-www-form-urlencoded", "origin": "http://elsewhere.example"}, 403),
    ("POST", MIXED, {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "cross-site"}, 403),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), REQUESTS)
def test_invalid_requests_get_problems(service: Client, method: str, path: str, headers: dict[str, str], status: int) -> None:
    response = service.request(method, path, TEXT.encode() if method != "GET" else None, headers)
    assert response.status == status, response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"


def test_a_form_with_an_error_shows_the_message_at_the_field(service: Client) -> None:
    fields = {name: str(value).lower() if value is True else str(value) for name, value in RECORD.items()} | {"income": "much"}
    page = service.post_form(MIXED, fields)
    assert page.status == 422
    assert "a number, such as 3 or 2.5" in page.text
    assert 'value="2022-05-17"' in page.text  # valid values are kept


def test_without_a_default_project_a_name_is_required(service: Client) -> None:
    response = service.post_json("/predict", RECORD)
    assert response.status == 404
    assert "PODIUM_DEFAULT_PROJECT" in response.text


def test_a_wrong_method_gets_allow_and_head_equals_get_without_body(service: Client) -> None:
    assert service.request("PUT", MIXED, b"", JSON).headers["allow"]
    for path in ("/", "/livez", "/projects/mixed", "/docs", "/openapi.json"):
        head, get = service.request("HEAD", path), service.get(path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(get.body))


def test_a_declared_body_over_the_limit_is_rejected_unread(service: Client) -> None:
    response = service.request("POST", MIXED, b"{}", {**JSON, "content-length": "5000000000", "accept": "text/csv"})
    assert (response.status, response.json()["code"]) == (413, "too-large")

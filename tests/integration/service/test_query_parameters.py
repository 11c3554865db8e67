"""Every endpoint rejects unknown and repeated query parameters."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from podium.local.http_client import Client
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
QUERY = "&".join(f"{name}={quote(str(cell).lower() if cell is True else str(cell))}" for name, cell in RECORD.items())


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        (f"{MIXED}?model=all", "did you mean `models`?"),
        (f"{MIXED}?onerror=row", "did you mean `on_error`?"),
        (f"{MIXED}?MODELS=all", "unknown parameter `MODELS`; available: delimiter, explain, extra"),
        (f"{MIXED}.csv?raws=true", "did you mean `raw`?"),
        ("/projects/mixed/batch?xyz=1", "unknown parameter `xyz`"),
        (f"{MIXED}?models=all&models=champion", "is repeated"),
        (f"{MIXED}?=1", "unknown parameter ``"),
        ("/invocations?projects=mixed", "did you mean `project`?"),
        ("/v2/models/mixed/infer?versions=1", "did you mean `version`?"),
        ("/v2/repository/index?ready=true", "this path has no parameters"),
        ("/refresh?x", "this path has no parameters"),
        ("/projects/mixed/promote?dry_run=true", "this path has no parameters"),
    ],
)
def test_an_unknown_parameter_is_rejected_with_a_suggestion(service: Client, path: str, suggestion: str) -> None:
    response = service.post_json(path, RECORD)
    assert (response.status, response.json()["code"]) == (422, "invalid-parameter")
    assert suggestion in response.json()["detail"], response.text
    assert suggestion in response.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "path",
    ["/", "/livez", "/status", "/docs", "/projects/mixed", "/projects/mixed/history", "/v2", "/v2/models/mixed", "/jobs/x"],
)
def test_pages_reject_unknown_parameters_too(service: Client, path: str) -> None:
    assert service.get(f"{path}?unheard=secret-value").status == 422
    assert "secret-value" not in service.get(f"{path}?unheard=secret-value").text


def test_a_query_record_may_have_fields_of_the_model_and_options(service: Client) -> None:
    assert service.get(f"{MIXED}?{QUERY}&models=all&inputs=true").status == 200
    problem = service.get(f"{MIXED}?{QUERY.replace('visits', 'visit')}").json()
    assert (problem["code"], problem["errors"][0]["column"]) == ("unknown-field", "visit")
    assert "did you mean `visits`?" in problem["detail"]
    assert service.get("/projects/nothing/predict?a=1").json()["code"] == "unknown-project"


def test_many_and_long_names_get_a_short_error(service: Client) -> None:
    many = service.post_json(f"{MIXED}?{'&'.join(f'n{index}=1' for index in range(2000))}", RECORD)
    assert (many.status, len(many.json()["errors"])) == (422, 5)
    long = service.post_json(f"{MIXED}?{'x' * 9000}=1", RECORD)
    assert (long.status, len(long.body) < 1000) == (422, True)

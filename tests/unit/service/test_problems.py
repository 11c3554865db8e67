"""Errors and their problem documents."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from podium.schema.data_errors import BadData, Malformed, Problem
from service.active_models import ActiveModels
from service.errors import ModelNotReady, ServiceError, UnknownProject
from service.problem_types import PROBLEM_TYPES
from service.problems import EXTRA_HINT, install_problems, invalid_input, problem_document, problem_headers


def error_classes(base: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    for error in base.__subclasses__():
        yield error
        yield from error_classes(error)


def get(app: FastAPI, path: str) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(request())


def test_every_error_has_a_documented_code() -> None:
    assert {error.code for error in error_classes()} <= PROBLEM_TYPES.keys()


def test_a_problem_document_has_the_members_of_rfc_9457_and_of_open_inference() -> None:
    error = ModelNotReady("not loaded: mixed (see /status)")
    assert json.loads(problem_document(error, "/readyz")) == {
        "type": "/problems/model-not-ready",
        "title": "Model not ready",
        "status": 503,
        "detail": "not loaded: mixed (see /status)",
        "instance": "/readyz",
        "code": "model-not-ready",
        "error": "not loaded: mixed (see /status)",
    }
    assert problem_headers(error) == {"Content-Type": "application/problem+json", "Retry-After": "5"}


def test_invalid_data_gives_code_title_errors_and_hint() -> None:
    unknown = invalid_input(BadData([Problem("unknown-field", "is unknown", column="x")]))
    assert (unknown.status, unknown.code, unknown.title) == (422, "unknown-field", "Invalid input")
    assert unknown.members == {
        "errors": [{"code": "unknown-field", "message": "is unknown", "column": "x"}],
        "hint": EXTRA_HINT,
    }
    malformed = invalid_input(Malformed([Problem("invalid-json", "line 1")]))
    assert (malformed.status, malformed.title, "hint" in malformed.members) == (400, "Malformed input", False)


def test_an_unknown_project_lists_the_available_ones() -> None:
    with pytest.raises(UnknownProject, match=r'project not found: "none" \(available: none\)'):
        ActiveModels().get("none")


def test_an_internal_error_is_logged_under_the_id_in_its_response(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    install_problems(app)

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("secret")

    with caplog.at_level(logging.ERROR):
        response = get(app, "/fails")
    (record,) = [record for record in caplog.records if record.name == "service.problems"]
    assert record.__dict__["error_id"] in response.json()["detail"]
    assert (response.status_code, "secret" in response.text) == (500, False)


def test_an_unknown_page_is_named() -> None:
    app = FastAPI()
    install_problems(app)
    problem = get(app, "/nothere").json()
    assert (problem["title"], problem["detail"]) == ("Not found", "No such page: /nothere")

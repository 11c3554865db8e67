"""Errors: documented at the path of their type, and shown as pages in browsers."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.local.http_client import Answer, Client
from podium.settings import ROOT
from service.problem_types import PROBLEM_TYPES

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SLUG = re.compile(r"[a-z]+(-[a-z]+)*")


def get(service: Client, path: str) -> Answer:
    return service.request("GET", path, headers=BROWSER)


def sources() -> Iterator[ast.AST]:
    for package in ("podium", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "problem_types.py":
                yield from ast.walk(ast.parse(Path(path).read_text()))


def text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_status(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and 400 <= node.value < 600


def codes() -> Iterator[str]:
    """Yield the error codes in the sources: after a status, as a problem's first argument, or before a message."""
    for node in sources():
        values = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        yield from (text(code) for status, code in itertools.pairwise(values) if is_status(status))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "_Wrong"):
            yield text(node.args[0])
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tensor_error" and len(node.args) > 2:
            yield text(node.args[1])


def test_every_code_is_documented() -> None:
    used = {code for code in codes() if SLUG.fullmatch(code)}
    assert {"invalid-type", "overloaded", "unknown-project", "malformed-http", "gate-failed"} <= used
    assert used - PROBLEM_TYPES.keys() == set()


def test_the_type_of_a_problem_is_the_path_of_its_documentation(service: Client) -> None:
    for body in ({}, {"income": "much"}, [], 5):
        problem = service.post_json("/projects/mixed/predict", body).json()
        documented = service.get(problem["type"]).json()
        assert (documented["code"], documented["type"]) == (problem["code"], problem["type"])
        assert documented["title"] in get(service, problem["type"]).text
    listed = service.get("/problems").json()["problems"]
    assert {item["code"] for item in listed} == PROBLEM_TYPES.keys()
    page = get(service, "/problems")
    assert all(f'href="/problems/{code}"' in page.text for code in PROBLEM_TYPES)
    for code in PROBLEM_TYPES:
        assert (service.get(f"/problems/{code}").status, service.get(f"/problems/{code}.json").status) == (200, 200)
    assert service.get("/problems/unheard-of").status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/projects/nothing", 404),
        ("/jobs/nothing", 404),
        ("/problems/nothing", 404),
        ("/refresh", 405),
        ("/projects/mixed?unheard=secret", 422),
        ("/projects/mixed/predict.html?unheard=secret", 422),
        ("/static/nothing.css", 404),
    ],
)
def test_an_error_is_a_page_in_browsers_and_a_problem_otherwise(service: Client, path: str, status: int) -> None:
    response = get(service, path)
    assert (response.status, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "<h1>" in response.text
    assert "secret" not in response.text
    assert response.headers["content-security-policy"]
    assert int(response.headers["content-length"]) == len(response.body)
    as_json = service.get(path.replace(".html", ""))
    assert (as_json.status, as_json.headers["content-type"]) == (status, "application/problem+json")


def test_names_are_escaped_in_error_pages(service: Client) -> None:
    assert "<script>" not in get(service, "/projects/mixed?%3Cscript%3E=1").text


def test_an_error_is_json_for_a_json_path(service: Client) -> None:
    assert get(service, "/projects/nothing/schema.json").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["history", "schema", "versions", "card"])
def test_documents_are_pages_in_browsers_and_json_otherwise(service: Client, name: str) -> None:
    page = get(service, f"/projects/mixed/{name}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f'href="/projects/mixed/{name}.json"' in page.text
    as_json = get(service, f"/projects/mixed/{name}.json")
    assert as_json.headers["content-type"] == "application/json"
    assert service.get(f"/projects/mixed/{name}").json() == as_json.json()
    assert page.headers["etag"] == as_json.headers["etag"] if name == "history" else True

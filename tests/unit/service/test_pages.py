"""Pages rendered without a service."""

from __future__ import annotations

from typing import Any

import pytest

from podium.schema.data_errors import Problem
from podium.settings import ROOT
from service.pages import Pages

JOB = {
    "job": "a1",
    "project": "mixed",
    "version": "20261127T030700Z-58fa7be9",
    "bytes": 4_000_000,
    "rows": 1000,
    "seconds": 1.24,
}
WRONG = [Problem("missing-field", "has no value", 2, "age", "a whole number").as_json(), Problem("csv-quote", "open").as_json()]


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages(ROOT / "templates")


@pytest.mark.parametrize(
    ("job", "texts"),
    [
        ({"state": "waiting", "wrong_rows": 0}, ["Queued", 'http-equiv="refresh"']),
        ({"state": "running", "wrong_rows": 3}, ["Predicting…", "1,000 rows (3 invalid) · 4.0 MB · 1.2 s"]),
        ({"state": "done", "wrong_rows": 0, "result": "/jobs/a1/result.csv"}, ["Done", 'href="/jobs/a1/result.csv"']),
        ({"state": "failed", "wrong_rows": 0, "reason": "too slow", "errors": []}, ["Failed", "<li>too slow</li>"]),
        (
            {"state": "failed", "wrong_rows": 1, "reason": "", "errors": WRONG},
            ["<li>Row 2, <b>age</b>: required (a whole number)</li>", "<li>Open</li>"],
        ),
    ],
)
def test_a_job_page_shows_its_state(pages: Pages, job: dict[str, Any], texts: list[str]) -> None:
    page = pages.job({**JOB, **job})
    assert [text for text in [*texts, '/projects/mixed/versions#20261127T030700Z-58fa7be9"'] if text not in page] == []


def test_an_error_page_shows_each_error_and_the_hint(pages: Pages) -> None:
    problem = {
        "type": "/problems/missing-field",
        "code": "missing-field",
        "status": 422,
        "title": "Invalid input",
        "detail": "…",
    }
    page = pages.page("error.html", problem={**problem, "errors": WRONG, "hint": "pass `?extra=keep`"})
    assert "<h1>Invalid input</h1>" in page
    assert "<b>age</b>: required" in page
    assert "pass <code>?extra=keep</code>" in page
    assert "<p>no such page</p>" in pages.page("error.html", problem={**problem, "detail": "no such page"})


def test_the_home_page_without_models_says_how_to_train_one(pages: Pages) -> None:
    page = pages.index([])
    assert "No models deployed yet" in page
    assert "luigi --module luigi_tasks Pipeline" in page
    assert "It reloads on the next request" in pages.index([], ["titanic"])

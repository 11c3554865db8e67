"""Promotion and rollback over HTTP: authorization, preconditions, gates and history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from podium.local.http_client import Answer, Client
from podium.project import GateOptions, Project
from podium.registry.promotion import PromotionContext
from podium.registry.versions import Manifest
from service.settings import ServiceSettings
from tests import tables
from tests.conftest import PROMOTERS, Put, publish_version

ENTRIES: dict[str, Any] = {"name": "guarded", "target": "kind", "families": ("linear",), "n_trials": 1}
PROMOTE, ROLLBACK = "/projects/guarded/promote", "/projects/guarded/rollback"


@pytest.fixture(scope="module")
def versions(service: Client, put_champion: Put, cloud_context: PromotionContext) -> list[Manifest]:
    """A champion, a valid successor, and an incompatible version whose manifest disables the gates."""
    project = Project(data="s3://podium/none", **ENTRIES)
    loose = project.model_copy(update={"gates": GateOptions(compatible=False, non_inferiority=False)})
    first = put_champion(tables.flowers(600), **ENTRIES)
    narrower = tables.flowers(600).rename(columns={"petal": "colour"})
    return [
        first,
        publish_version(cloud_context, tables.flowers(600, seed=9), project),
        publish_version(cloud_context, narrower, loose),
    ]


def post(service: Client, path: str, body: object, token: str = PROMOTERS["ann"], **headers: str) -> Answer:
    all_headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    return service.post(path, json.dumps(body).encode(), all_headers)


def test_promoters_can_promote_and_roll_back(service: Client, versions: list[Manifest]) -> None:
    one, two, _ = (manifest.version for manifest in versions)
    assert service.get("/projects/guarded/history").headers["etag"] == f'"{one}"'
    dry_run = post(service, PROMOTE, {"version": two, "reason": "try", "dry_run": True}, if_match=f'"{one}"')
    assert (dry_run.status, dry_run.json()["champion"], dry_run.headers["etag"]) == (200, two, None)
    assert service.get("/projects/guarded/history").headers["etag"] == f'"{one}"'
    promoted = post(service, PROMOTE, {"version": two, "reason": "better"}, if_match=f'"{one}"')
    assert (promoted.status, promoted.headers["etag"], promoted.json()["by"]) == (200, f'"{two}"', "ann")
    service.wait_until(lambda: service.get("/projects/guarded/versions").json()["serving"] == two, 20)
    dry_rollback = post(service, ROLLBACK, {"reason": "try", "dry_run": True}, PROMOTERS["bob"], if_match=f'"{two}"')
    assert (dry_rollback.status, dry_rollback.json()["champion"]) == (200, one)
    rolled_back = post(service, ROLLBACK, {"reason": "wrong since noon"}, PROMOTERS["bob"], if_match=f'"{two}"')
    assert (rolled_back.status, rolled_back.json()["champion"], rolled_back.json()["by"]) == (200, one, "bob")
    entries = service.get("/projects/guarded/history").json()["entries"]
    assert [(entry["action"], entry["by"], entry["reason"]) for entry in entries][1:] == [
        ("promote", "ann", "better"),
        ("rollback", "bob", "wrong since noon"),
    ]


@pytest.fixture
def rejected(versions: list[Manifest]) -> Iterator[list[tuple[str, object, dict[str, str], int, str]]]:
    one, two, strict = (manifest.version for manifest in versions)
    valid = {"version": two, "reason": "x"}
    match = {"if_match": f'"{one}"'}
    unknown = {"version": "20200101T000000Z-00000000", "reason": "x"}
    yield [
        (PROMOTE, valid, {}, 428, "condition-missing"),
        (PROMOTE, valid, {"if_match": f'"{strict}"'}, 412, "alias-moved"),
        (PROMOTE, valid, {"if_none_match": "*"}, 412, "alias-moved"),
        (PROMOTE, valid, {"if_match": "*"}, 428, "condition-missing"),
        (PROMOTE, valid, {"if_match": f'W/"{one}"'}, 428, "condition-missing"),
        (PROMOTE, valid, {"if_match": f'"{one}", "{two}"'}, 428, "condition-missing"),
        (PROMOTE, valid, {"if_match": one}, 428, "condition-missing"),
        (PROMOTE, valid, {**match, "if_none_match": "*"}, 428, "condition-missing"),
        (PROMOTE, valid, {**match, "token": ""}, 401, "not-a-promoter"),
        (ROLLBACK, {"reason": "x", "to": strict}, match, 409, "no-previous-champion"),
        (ROLLBACK, {"reason": "x", "to": one}, match, 409, "no-previous-champion"),
        (PROMOTE, valid, {**match, "token": "nobody"}, 401, "not-a-promoter"),
        (PROMOTE, valid, {**match, "authorization": ""}, 401, "not-a-promoter"),
        (PROMOTE, unknown, match, 404, "unknown-version"),
        (PROMOTE, {"version": strict, "reason": "x"}, match, 409, "gate-failed"),
        (PROMOTE, {"version": two}, match, 422, "invalid-parameter"),
        (PROMOTE, {"version": two, "reason": " "}, match, 422, "invalid-parameter"),
        (PROMOTE, {"version": "../../x", "reason": "x"}, match, 422, "invalid-parameter"),
        (PROMOTE, {**valid, "forced": True}, match, 422, "invalid-parameter"),
        (PROMOTE, [], match, 422, "invalid-parameter"),
        ("/projects/No%20Such/promote", valid, match, 422, "invalid-parameter"),
        ("/projects/nobody/promote", valid, match, 404, "unknown-version"),
        (ROLLBACK, {"reason": "x"}, {}, 428, "condition-missing"),
        (ROLLBACK, {"reason": "x"}, {"if_match": f'"{two}"'}, 412, "alias-moved"),
        (ROLLBACK, {"reason": "x", "to": unknown["version"]}, match, 409, "no-previous-champion"),
    ]


def test_invalid_promotions_change_nothing(
    service: Client, versions: list[Manifest], rejected: list[tuple[str, object, dict[str, str], int, str]]
) -> None:
    before = service.get("/projects/guarded/history").headers["etag"]
    for path, body, arguments, status, code in rejected:
        response = post(service, path, body, **arguments)
        assert (response.status, response.json()["code"]) == (status, code), (path, body, arguments, response.text)
        assert response.headers["content-type"] == "application/problem+json"
    assert service.get("/projects/guarded/history").headers["etag"] == before


def test_a_failed_gate_is_reported_with_details(service: Client, versions: list[Manifest]) -> None:
    body = {"version": versions[2].version, "reason": "x", "dry_run": True}
    response = post(service, PROMOTE, body, if_match=f'"{versions[0].version}"')
    assert "compatible" in [error["code"] for error in response.json()["errors"]]
    assert "column colour is new and required" in response.text


@pytest.mark.parametrize("token", ["", "short", "with a blank in it", "ümlaut-0123456789"])
def test_a_weak_token_is_rejected(token: str) -> None:
    for field in ("promoters", "api_keys"):
        with pytest.raises(ValidationError, match="at least 16 printable ASCII characters"):
            ServiceSettings(**{field: {"bob": token}})

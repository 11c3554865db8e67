"""The guarded moves over HTTP: who, from which champion, and why."""

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
    """A champion, one that may follow, and one that takes other columns and whose manifest asks for no gates."""
    project = Project(data="s3://podium/none", **ENTRIES)
    loose = project.model_copy(update={"gates": GateOptions(compatible=False, non_inferiority=False)})
    first = put_champion(tables.flowers(600), **ENTRIES)
    narrower = tables.flowers(600).rename(columns={"sepal": "colour"})
    return [
        first,
        publish_version(cloud_context, tables.flowers(600, seed=9), project),
        publish_version(cloud_context, narrower, loose),
    ]


def ask(service: Client, path: str, body: object, token: str = PROMOTERS["ann"], **headers: str) -> Answer:
    sent = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return service.post(path, json.dumps(body).encode(), sent)


def test_promoted_and_rolled_back_by_who_may(service: Client, versions: list[Manifest]) -> None:
    one, two, _ = (manifest.version for manifest in versions)
    assert service.get("/projects/guarded/history").headers["etag"] == f'"{one}"'
    dry = ask(service, PROMOTE, {"version": two, "reason": "try", "dry_run": True}, if_match=f'"{one}"')
    assert (dry.status, dry.json()["champion"], dry.headers["etag"]) == (200, two, None)
    assert service.get("/projects/guarded/history").headers["etag"] == f'"{one}"'
    moved = ask(service, PROMOTE, {"version": two, "reason": "better"}, if_match=f'"{one}"')
    assert (moved.status, moved.headers["etag"], moved.json()["by"]) == (200, f'"{two}"', "ann")
    service.wait_until(lambda: service.get("/projects/guarded/versions").json()["serving"] == two, 20)
    trial = ask(service, ROLLBACK, {"reason": "try", "dry_run": True}, PROMOTERS["bob"], if_match=f'"{two}"')
    assert (trial.status, trial.json()["champion"]) == (200, one)
    back = ask(service, ROLLBACK, {"reason": "wrong since noon"}, PROMOTERS["bob"], if_match=f'"{two}"')
    assert (back.status, back.json()["champion"], back.json()["by"]) == (200, one, "bob")
    acts = service.get("/projects/guarded/history").json()["acts"]
    assert [(act["action"], act["by"], act["reason"]) for act in acts][1:] == [
        ("promote", "ann", "better"),
        ("rollback", "bob", "wrong since noon"),
    ]


@pytest.fixture
def refusals(versions: list[Manifest]) -> Iterator[list[tuple[str, object, dict[str, str], int, str]]]:
    one, two, strict = (manifest.version for manifest in versions)
    good = {"version": two, "reason": "x"}
    match = {"if_match": f'"{one}"'}
    unknown = {"version": "20200101T000000Z-00000000", "reason": "x"}
    yield [
        (PROMOTE, good, {}, 428, "condition-missing"),
        (PROMOTE, good, {"if_match": f'"{strict}"'}, 412, "alias-moved"),
        (PROMOTE, good, {"if_none_match": "*"}, 412, "alias-moved"),
        (PROMOTE, good, {"if_match": "*"}, 428, "condition-missing"),
        (PROMOTE, good, {"if_match": f'W/"{one}"'}, 428, "condition-missing"),
        (PROMOTE, good, {"if_match": f'"{one}", "{two}"'}, 428, "condition-missing"),
        (PROMOTE, good, {"if_match": one}, 428, "condition-missing"),
        (PROMOTE, good, {**match, "if_none_match": "*"}, 428, "condition-missing"),
        (PROMOTE, good, {**match, "token": ""}, 401, "not-a-promoter"),
        (ROLLBACK, {"reason": "x", "to": strict}, match, 409, "nothing-before"),
        (ROLLBACK, {"reason": "x", "to": one}, match, 409, "nothing-before"),
        (PROMOTE, good, {**match, "token": "nobody"}, 401, "not-a-promoter"),
        (PROMOTE, good, {**match, "authorization": ""}, 401, "not-a-promoter"),
        (PROMOTE, unknown, match, 404, "unknown-version"),
        (PROMOTE, {"version": strict, "reason": "x"}, match, 409, "gate-failed"),
        (PROMOTE, {"version": two}, match, 422, "invalid-parameter"),
        (PROMOTE, {"version": two, "reason": " "}, match, 422, "invalid-parameter"),
        (PROMOTE, {"version": "../../x", "reason": "x"}, match, 422, "invalid-parameter"),
        (PROMOTE, {**good, "forced": True}, match, 422, "invalid-parameter"),
        (PROMOTE, [], match, 422, "invalid-parameter"),
        ("/projects/No%20Such/promote", good, match, 422, "invalid-parameter"),
        ("/projects/nobody/promote", good, match, 404, "unknown-version"),
        (ROLLBACK, {"reason": "x"}, {}, 428, "condition-missing"),
        (ROLLBACK, {"reason": "x"}, {"if_match": f'"{two}"'}, 412, "alias-moved"),
        (ROLLBACK, {"reason": "x", "to": unknown["version"]}, match, 409, "nothing-before"),
    ]


def test_whatever_is_not_right_moves_nothing(
    service: Client, versions: list[Manifest], refusals: list[tuple[str, object, dict[str, str], int, str]]
) -> None:
    before = service.get("/projects/guarded/history").headers["etag"]
    for path, body, how, status, code in refusals:
        answer = ask(service, path, body, **how)
        assert (answer.status, answer.json()["code"]) == (status, code), (path, body, how, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert service.get("/projects/guarded/history").headers["etag"] == before


def test_a_failed_gate_is_told_with_its_figures(service: Client, versions: list[Manifest]) -> None:
    body = {"version": versions[2].version, "reason": "x", "dry_run": True}
    answer = ask(service, PROMOTE, body, if_match=f'"{versions[0].version}"')
    assert "compatible" in [error["code"] for error in answer.json()["errors"]]
    assert "column colour is new and required" in answer.text


@pytest.mark.parametrize("token", ["", "short", "with a blank in it", "ümlaut-0123456789"])
def test_a_weak_token_is_no_setting(token: str) -> None:
    for field in ("promoters", "api_keys"):
        with pytest.raises(ValidationError, match="16 ASCII characters"):
            ServiceSettings(**{field: {"bob": token}})

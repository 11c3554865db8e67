"""Calls from pages of other origins, where these are allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from service.app import create_app
from service.asgi import Receive, Scope, Send
from service.http_head import Head
from service.http_limits import HEAD
from service.settings import ServiceSettings

ORIGIN = "https://app.example.com"
KEY = "k" * 20


def ask(origins: tuple[str, ...], method: str, path: str, headers: Mapping[str, str]) -> httpx.Response:
    """The answer of an application that needs a key; its lifespan is not started, as no model is asked for."""
    app = create_app(ServiceSettings(cors_origins=origins, api_keys={"ann": SecretStr(KEY)}, access_log=False))

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, HEAD: Head(b"", b"localhost", 0)}, receive, send)

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asked())


def preflight(origins: tuple[str, ...], origin: str, headers: str = "content-type,x-api-key") -> tuple[int, str | None]:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    answer = ask(origins, "OPTIONS", "/projects/mixed/predict", asked)
    return answer.status_code, answer.headers.get("access-control-allow-origin")


def test_a_preflight_of_an_allowed_origin_needs_no_key() -> None:
    assert preflight((ORIGIN,), ORIGIN) == (200, ORIGIN)
    assert preflight(("*",), ORIGIN) == (200, "*")
    assert preflight((ORIGIN,), ORIGIN, "authorization,inference-header-content-length,if-match")[0] == 200


def test_other_origins_and_headers_are_not_allowed() -> None:
    assert preflight((ORIGIN,), "https://other.example.com") == (400, None)
    assert preflight((ORIGIN,), ORIGIN + ".evil.example") == (400, None)
    assert preflight((ORIGIN,), ORIGIN, "x-other")[0] == 400
    assert preflight((), ORIGIN)[1] is None


def test_answers_and_refusals_can_be_read_by_an_allowed_page() -> None:
    for path, headers, status in (("/livez", {}, 200), ("/v2", {}, 401), ("/v2", {"X-API-Key": KEY}, 200)):
        answer = ask((ORIGIN,), "GET", path, {"Origin": ORIGIN, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        exposed = answer.headers["access-control-expose-headers"]
        assert {"X-Model-Version", "X-Prediction-Id"} <= {name.strip() for name in exposed.split(",")}
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "https://a.example/x", "null", "", "ftp://x"]
)
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValidationError, match="https://host"):
        ServiceSettings(cors_origins=(origin,))

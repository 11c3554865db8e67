"""Cross-origin requests from allowed and other origins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from service.app import create_app
from service.asgi import Receive, Scope, Send
from service.http_limits import HEAD
from service.request_head import Head
from service.settings import ServiceSettings

ORIGIN = "https://app.example.com"
KEY = "k" * 20


def send(origins: tuple[str, ...], method: str, path: str, headers: Mapping[str, str]) -> httpx.Response:
    """Return the response of an application with an API key; no model is needed, so its lifespan is not started."""
    app = create_app(ServiceSettings(cors_origins=origins, api_keys={"ann": SecretStr(KEY)}, access_log=False))

    async def with_head(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, HEAD: Head(b"", b"localhost", 0)}, receive, send)

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_head), base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(request())


def preflight(origins: tuple[str, ...], origin: str, headers: str = "content-type,x-api-key") -> tuple[int, str | None]:
    request_headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    response = send(origins, "OPTIONS", "/projects/mixed/predict", request_headers)
    return response.status_code, response.headers.get("access-control-allow-origin")


def test_a_preflight_of_an_allowed_origin_needs_no_key() -> None:
    assert preflight((ORIGIN,), ORIGIN) == (200, ORIGIN)
    assert preflight(("*",), ORIGIN) == (200, "*")
    assert preflight((ORIGIN,), ORIGIN, "authorization,inference-header-content-length,if-match")[0] == 200


def test_other_origins_and_headers_are_not_allowed() -> None:
    assert preflight((ORIGIN,), "https://other.example.com") == (400, None)
    assert preflight((ORIGIN,), ORIGIN + ".evil.example") == (400, None)
    assert preflight((ORIGIN,), ORIGIN, "x-other")[0] == 400
    assert preflight((), ORIGIN)[1] is None


def test_an_allowed_page_can_read_responses_and_errors() -> None:
    for path, headers, status in (("/livez", {}, 200), ("/v2", {}, 401), ("/v2", {"X-API-Key": KEY}, 200)):
        response = send((ORIGIN,), "GET", path, {"Origin": ORIGIN, **headers})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, ORIGIN)
        exposed = response.headers["access-control-expose-headers"]
        assert {"X-Model-Version", "X-Prediction-Id"} <= {name.strip() for name in exposed.split(",")}
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "https://a.example/x", "null", "", "ftp://x"]
)
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValidationError, match="https://host"):
        ServiceSettings(cors_origins=(origin,))

"""Check the host, address and API key of a request."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping

from service.asgi import Scope
from service.errors import AuthenticationRequired, UnknownHost, UnsafeServer
from service.http_limits import HEAD
from service.request_head import Head
from service.settings import ServiceSettings

SIGNED_PATHS = ("/refresh",)
"""Paths that check a signature instead of an API key."""
PUBLIC_PATHS = ("/status", "/status.json", "/metrics")
"""Paths that `PODIUM_PUBLIC_STATUS` makes public; they bypass admission control."""
ANY_HOST = "*"
CALLER = "podium.caller"
"""Scope key for the name of the request's API key."""


class Authenticator:
    """Performs the checks that do not need the body of a request."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._keys = {name: key.get_secret_value().encode() for name, key in settings.api_keys.items()}
        self._public_status = settings.public_status
        self._hosts = frozenset(host.lower().encode() for host in settings.allowed_hosts)
        self._any_host = ANY_HOST in settings.allowed_hosts
        self._loopback_only = not settings.api_keys and not settings.allow_anonymous

    def check(self, scope: Scope) -> None:
        """Check a request. Raises UnsafeServer, UnknownHost, AuthenticationRequired."""
        head: Head | None = scope.get(HEAD)
        if head is None or (self._loopback_only and scope["server"] and not is_loopback(scope["server"][0])):
            raise UnsafeServer(
                "start the server with `podium serve` or `python -m service`: they set limits and require API keys"
            )
        if not self._any_host and not self._is_allowed(head.host):
            raise UnknownHost("this host is not listed in PODIUM_ALLOWED_HOSTS")
        if self._keys and scope["path"] not in SIGNED_PATHS and not (self._public_status and scope["path"] in PUBLIC_PATHS):
            given = key_of(dict(scope["headers"]))
            scope[CALLER] = next((name for name, key in self._keys.items() if hmac.compare_digest(given, key)), "")
            if not scope[CALLER]:
                raise AuthenticationRequired("send an API key as `Authorization: Bearer …` or `X-API-Key`")

    def _is_allowed(self, host: bytes) -> bool:
        if host in self._hosts:
            return True
        name = host[: host.rfind(b":")] if host.rfind(b":") > host.rfind(b"]") else host
        return name in self._hosts or any(b"*" + name[dot:] in self._hosts for dot in _dots(name))


def _dots(name: bytes) -> list[int]:
    return [index for index, byte in enumerate(name) if byte == ord(".")]


def is_loopback(address: str) -> bool:
    """Return whether an address is reachable only from this host."""
    if address == "localhost" or address == "127.0.0.1":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def caller(scope: Scope) -> str:
    """Return the name of the request's API key; empty if no keys are configured."""
    name: str = scope.get(CALLER, "")
    return name


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key from X-API-Key, a bearer token, or the password of basic authentication."""
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value if scheme.lower() == b"bearer" else b""

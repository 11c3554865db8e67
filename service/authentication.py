"""Which requests are answered at all: by the host that they name, the address that they came to, and their key."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping

from service.asgi import Scope
from service.http_head import Head
from service.http_limits import HEAD
from service.problems import AuthenticationRequired, UnknownHost, UnsafeServer
from service.settings import ServiceSettings

SIGNED_PATHS = ("/refresh",)
"""Paths that check a signature instead of a key."""
PUBLIC_PATHS = ("/status", "/status.json", "/metrics")
"""Paths that need a key unless `PODIUM_PUBLIC_STATUS` is set; they are answered whatever the load is."""
ANY_HOST = "*"
CALLER = "podium.caller"
"""The key of a request's scope for the name of the API key that it came with."""


class AuthMiddleware:
    """The checks that need neither the body nor a place in the queue."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._keys = {name: key.get_secret_value().encode() for name, key in settings.api_keys.items()}
        self._public_status = settings.public_status
        self._hosts = frozenset(host.lower().encode() for host in settings.allowed_hosts)
        self._any_host = ANY_HOST in settings.allowed_hosts
        self._loopback_only = not settings.api_keys and not settings.allow_anonymous

    def check(self, scope: Scope) -> None:
        """Raises UnsafeServer, UnknownHost, KeyMissing."""
        head: Head | None = scope.get(HEAD)
        if head is None or (self._loopback_only and scope["server"] and not is_loopback(scope["server"][0])):
            raise UnsafeServer("start it with `podium serve` or `python -m service`, which set limits and ask for keys")
        if not self._any_host and not self._is_allowed(head.host):
            raise UnknownHost("PODIUM_ALLOWED_HOSTS does not list this host")
        if self._keys and scope["path"] not in SIGNED_PATHS and not (self._public_status and scope["path"] in PUBLIC_PATHS):
            given = key_of(dict(scope["headers"]))
            scope[CALLER] = next((name for name, key in self._keys.items() if hmac.compare_digest(given, key)), "")
            if not scope[CALLER]:
                raise AuthenticationRequired("send an API key as `Authorization: Bearer …` or as X-API-Key")

    def _is_allowed(self, host: bytes) -> bool:
        if host in self._hosts:
            return True
        name = host[: host.rfind(b":")] if host.rfind(b":") > host.rfind(b"]") else host
        return name in self._hosts or any(b"*" + name[place:] in self._hosts for place in _dots(name))


def _dots(name: bytes) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == ord(".")]


def is_loopback(address: str) -> bool:
    """Whether only this host can reach an address."""
    if address == "localhost" or address == "127.0.0.1":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def caller(scope: Scope) -> str:
    """The name of the API key of a request; empty where no keys are set."""
    name: str = scope.get(CALLER, "")
    return name


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """From X-API-Key, a bearer token, or the password that a browser asked for."""
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value if scheme.lower() == b"bearer" else b""

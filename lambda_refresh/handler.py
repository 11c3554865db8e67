"""Turn S3 events into signed notifications, which tell every replica of the service to check the store.

Notifications are signed according to Standard Webhooks (https://www.standardwebhooks.com). Replicas read the store
themselves, so a notification may be lost, repeated or late. Environment variables:

PODIUM_REFRESH_TARGETS     comma-separated /refresh URLs; each address of a host name counts as a replica
PODIUM_REFRESH_SECRET      signing key: `whsec_` followed by the base64-encoded key; alternatively, set
PODIUM_REFRESH_SECRET_ID   name or ARN of the key's secret in Secrets Manager; read every five minutes and after a 401
PODIUM_WATCHED_PREFIXES    comma-separated key prefixes that trigger a notification; default `aliases/,inbox/,drop/`
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, urlsplit

WATCHED_PREFIXES, OUTPUT_PREFIX = "aliases/,inbox/,drop/", "outbox/"
TIMEOUT_SECONDS = 3.0
SECRET_SECONDS = 300.0
UNAUTHORIZED = 401

_cached_secret: tuple[str, float] = ("", 0.0)


class NotDelivered(Exception):
    """Some replicas did not accept the notification; Lambda retries the whole event."""


class Replica(NamedTuple):
    """A URL and one address of its host."""

    url: str
    address: str

    def __str__(self) -> str:
        return self.url if self.address in self.url else f"{self.url} at {self.address}"


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Send the watched changes in an S3 event to every replica. Raises NotDelivered, which names the failed replicas."""
    changes, targets = watched_changes(event), replicas(_list_variable("PODIUM_REFRESH_TARGETS", ""))
    if not changes or not targets:
        return {"changes": len(changes), "delivered": []}
    body = json.dumps({"changes": changes}, sort_keys=True).encode()
    with ThreadPoolExecutor(len(targets)) as pool:
        errors = list(pool.map(lambda replica: send(replica, body), targets))
    failures = [f"{replica}: {error}" for replica, error in zip(targets, errors, strict=True) if error]
    if failures:
        raise NotDelivered("; ".join(failures))
    return {"changes": len(changes), "delivered": [str(replica) for replica in targets]}


def watched_changes(event: dict[str, Any]) -> list[dict[str, str]]:
    """Return the bucket, key, version and sequencer of each created object under a watched prefix."""
    prefixes, changes = tuple(_list_variable("PODIUM_WATCHED_PREFIXES", WATCHED_PREFIXES)), []
    for record in event.get("Records", []):  # an s3:TestEvent has none
        entry = record.get("s3", {}).get("object", {})
        key = unquote_plus(entry.get("key", ""))  # S3 form-encodes the keys in events
        created = record.get("eventName", "").startswith("ObjectCreated:")
        if created and key.startswith(prefixes) and not key.startswith(OUTPUT_PREFIX):
            change = {
                "bucket": record["s3"].get("bucket", {}).get("name", ""),
                "key": key,
                "version_id": entry.get("versionId", ""),
                "sequencer": entry.get("sequencer", ""),
            }
            changes.append(change)
    return changes


def replicas(urls: list[str]) -> list[Replica]:
    """Resolve each URL to all addresses of its host, IPv4 only if it has any. Unknown hosts are kept; sending reports them."""
    resolved = []
    for url in urls:
        host = urlsplit(url).hostname or ""
        try:
            addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            addresses = []
        ipv4 = sorted({str(address[4][0]) for address in addresses if address[0] == socket.AF_INET})
        ipv6 = sorted({str(address[4][0]) for address in addresses if address[0] == socket.AF_INET6})
        resolved += [Replica(url, address) for address in ipv4 or ipv6 or [host]]
    return list(dict.fromkeys(resolved))


def send(replica: Replica, body: bytes) -> str:
    """Post the notification; return the error, or an empty string on success. After a 401, retry once with a fresh secret."""
    error = _post(replica, body, secret())
    if error == str(UNAUTHORIZED):
        error = _post(replica, body, secret(refresh=True))
    return error


def _post(replica: Replica, body: bytes, key: str) -> str:
    parts = urlsplit(replica.url)
    connection = HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connection.sock = socket.create_connection((replica.address, port), TIMEOUT_SECONDS)
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=parts.hostname)
        connection.request("POST", parts.path or "/", body, signed_headers(body, key, int(time.time())))
        status = connection.getresponse().status
        return "" if 200 <= status < 300 else str(status)
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def secret(refresh: bool = False) -> str:
    """Return the signing key from the environment, or from Secrets Manager with a five-minute cache."""
    global _cached_secret
    name = os.environ.get("PODIUM_REFRESH_SECRET_ID", "")
    if not name:
        return os.environ["PODIUM_REFRESH_SECRET"]
    text, expires = _cached_secret
    if refresh or time.monotonic() > expires:
        import boto3  # part of the Lambda runtime; not needed if the secret is in the environment

        text = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
        _cached_secret = text, time.monotonic() + SECRET_SECONDS
    return text


def signed_headers(body: bytes, key: str, now: int) -> dict[str, str]:
    """Return the Standard Webhooks headers. The id is the digest of the body, so that receivers can detect duplicates."""
    message_id = "msg_" + hashlib.sha256(body).hexdigest()[:32]
    content = b".".join([message_id.encode(), str(now).encode(), body])
    signature = hmac.new(base64.b64decode(key.removeprefix("whsec_")), content, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def _list_variable(variable: str, default: str) -> list[str]:
    return [item.strip() for item in os.environ.get(variable, default).split(",") if item.strip()]

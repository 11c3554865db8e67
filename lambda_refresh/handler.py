"""S3 events to signed hints: "look at the store now", sent to every replica of the service.

A hint is signed in the Standard Webhooks form (https://www.standardwebhooks.com). Replicas believe only the store, so a
hint may be lost, doubled or late. Environment:

PODIUM_REFRESH_TARGETS     URLs of /refresh separated by commas; a host name is asked for all its addresses, each a replica
PODIUM_REFRESH_SECRET      `whsec_` and the key in base64, or instead
PODIUM_REFRESH_SECRET_ID   name or ARN of it in Secrets Manager: read again every five minutes, and when a replica says 401
PODIUM_WATCHED_PREFIXES    prefixes of keys that cause a notification, separated by commas; default `aliases/,inbox/,drop/`
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

WATCHED, OWN = "aliases/,inbox/,drop/", "outbox/"
TIMEOUT_SECONDS = 3.0
SECRET_SECONDS = 300.0
UNAUTHORIZED = 401

_secret: tuple[str, float] = ("", 0.0)


class NotDelivered(Exception):
    """Some replicas did not take the hint; Lambda tries the whole event again."""


class Replica(NamedTuple):
    """A URL and the one address of its host that this replica has."""

    url: str
    address: str

    def __str__(self) -> str:
        return self.url if self.address in self.url else f"{self.url} at {self.address}"


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Send one hint for the watched keys of an S3 event; raises NotDelivered, naming the replicas."""
    changes, found = watched_changes(event), replicas(_listed("PODIUM_REFRESH_TARGETS", ""))
    if not changes or not found:
        return {"changes": len(changes), "delivered": []}
    body = json.dumps({"changes": changes}, sort_keys=True).encode()
    with ThreadPoolExecutor(len(found)) as pool:
        wrong = dict(zip(found, pool.map(lambda replica: send(replica, body), found), strict=True))
    failures = [f"{replica}: {said}" for replica, said in wrong.items() if said]
    if failures:
        raise NotDelivered("; ".join(failures))
    return {"changes": len(changes), "delivered": [str(replica) for replica in found]}


def watched_changes(event: dict[str, Any]) -> list[dict[str, str]]:
    """Bucket, key, version and sequencer of each created object that is watched; keys are form-encoded in events."""
    watched, changes = tuple(_listed("PODIUM_WATCHED_PREFIXES", WATCHED)), []
    for record in event.get("Records", []):  # an s3:TestEvent has none
        entry = record.get("s3", {}).get("object", {})
        key = unquote_plus(entry.get("key", ""))
        created = record.get("eventName", "").startswith("ObjectCreated:")
        if created and key.startswith(watched) and not key.startswith(OWN):
            facts = {
                "bucket": record["s3"].get("bucket", {}).get("name", ""),
                "key": key,
                "version_id": entry.get("versionId", ""),
                "sequencer": entry.get("sequencer", ""),
            }
            changes.append(facts)
    return changes


def replicas(urls: list[str]) -> list[Replica]:
    """Every address of every URL; a host that has none is kept by its name, so that the failure is told."""
    found = []
    for url in urls:
        host = urlsplit(url).hostname or ""
        try:
            addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            addresses = []
        of_four = sorted({str(address[4][0]) for address in addresses if address[0] == socket.AF_INET})
        of_six = sorted({str(address[4][0]) for address in addresses if address[0] == socket.AF_INET6})
        found += [Replica(url, address) for address in of_four or of_six or [host]]
    return list(dict.fromkeys(found))


def send(replica: Replica, body: bytes) -> str:
    """Post the hint; returns what went wrong, or nothing. A secret that was just replaced is asked for once more."""
    said = _post(replica, body, secret())
    if said == str(UNAUTHORIZED):
        said = _post(replica, body, secret(fresh=True))
    return said


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


def secret(fresh: bool = False) -> str:
    """The signing key, from the environment or by reference; remembered for five minutes unless it must be fresh."""
    global _secret
    name = os.environ.get("PODIUM_REFRESH_SECRET_ID", "")
    if not name:
        return os.environ["PODIUM_REFRESH_SECRET"]
    text, until = _secret
    if fresh or time.monotonic() > until:
        import boto3  # comes with the runtime; not needed when the secret is in the environment

        text = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
        _secret = text, time.monotonic() + SECRET_SECONDS
    return text


def signed_headers(body: bytes, key: str, now: int) -> dict[str, str]:
    """Standard Webhooks headers; the id is the body's digest, so that a repeated delivery is known as one."""
    identity = "msg_" + hashlib.sha256(body).hexdigest()[:32]
    content = b".".join([identity.encode(), str(now).encode(), body])
    signature = hmac.new(base64.b64decode(key.removeprefix("whsec_")), content, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(now),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def _listed(variable: str, default: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, default).split(",") if part.strip()]

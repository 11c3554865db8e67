"""S3 events to signed hints: "look at the store now", sent to every replica of the service.

A hint is signed in the Standard Webhooks form (https://www.standardwebhooks.com). Replicas believe only the store, so a
hint may be lost, doubled or late. Environment: PODIUM_REFRESH_TARGETS, URLs separated by commas;
PODIUM_REFRESH_SECRET, `whsec_` and the key in base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_plus

WATCHED = "aliases/"
TIMEOUT_SECONDS = 3.0


class NotDelivered(Exception):
    """Some replicas did not take the hint; Lambda tries the whole event again."""


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Send one hint for the watched keys of an S3 event; raises NotDelivered, naming the targets."""
    changes = watched_changes(event)
    targets = [target.strip() for target in os.environ.get("PODIUM_REFRESH_TARGETS", "").split(",") if target.strip()]
    if not changes or not targets:
        return {"changes": len(changes), "delivered": []}
    body = json.dumps({"changes": changes}, sort_keys=True).encode()
    secret = os.environ["PODIUM_REFRESH_SECRET"]
    with ThreadPoolExecutor(len(targets)) as pool:
        failures = [failure for failure in pool.map(lambda target: send(target, body, secret), targets) if failure]
    if failures:
        raise NotDelivered("; ".join(failures))
    return {"changes": len(changes), "delivered": targets}


def watched_changes(event: dict[str, Any]) -> list[dict[str, str]]:
    """Bucket, key, version and sequencer of each created object under `aliases/`; keys are form-encoded in events."""
    changes = []
    for record in event.get("Records", []):  # an s3:TestEvent has none
        entry = record.get("s3", {}).get("object", {})
        key = unquote_plus(entry.get("key", ""))
        if record.get("eventName", "").startswith("ObjectCreated:") and key.startswith(WATCHED):
            bucket = record["s3"].get("bucket", {}).get("name", "")
            facts = {
                "bucket": bucket,
                "key": key,
                "version_id": entry.get("versionId", ""),
                "sequencer": entry.get("sequencer", ""),
            }
            changes.append(facts)
    return changes


def send(target: str, body: bytes, secret: str) -> str:
    """Post the hint; returns what went wrong, or nothing."""
    request = urllib.request.Request(target, body, signed_headers(body, secret, int(time.time())), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return ""
    except OSError as error:
        return f"{target}: {error}"


def signed_headers(body: bytes, secret: str, now: int) -> dict[str, str]:
    """Standard Webhooks headers; the id is the body's digest, so that a repeated delivery is known as one."""
    identity = "msg_" + hashlib.sha256(body).hexdigest()[:32]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = hmac.new(key, b".".join([identity.encode(), str(now).encode(), body]), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(now),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }

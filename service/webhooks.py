"""Verification of signed notifications (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from service.errors import InvalidSignature

TOLERANCE_SECONDS = 300
MAX_REMEMBERED_IDS = 10_000
MIN_KEY_BYTES = 16


class Webhooks:
    """Verifies signatures against several keys and remembers ids to detect repeated deliveries."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        if any(len(key) < MIN_KEY_BYTES for key in self._keys):
            raise ValueError(f"every key of PODIUM_REFRESH_SECRETS must have at least {MIN_KEY_BYTES} bytes")
        self._seen: OrderedDict[str, None] = OrderedDict()

    def accept(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        """Return whether the notification is new, not a repeated delivery. Raises InvalidSignature."""
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not _is_recent(timestamp, now):
            raise InvalidSignature("webhook-id or webhook-timestamp is missing or too old")
        content = b".".join([message_id.encode("latin-1"), timestamp.encode(), body])
        given = [_decode(part[3:]) for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
        expected = [hmac.new(key, content, hashlib.sha256).digest() for key in self._keys]
        if not any(hmac.compare_digest(a, b) for a in given for b in expected):
            raise InvalidSignature("webhook-signature does not match any configured key")
        if message_id in self._seen:
            return False
        self._seen[message_id] = None
        while len(self._seen) > MAX_REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return True


def _is_recent(timestamp: str, now: float) -> bool:
    return timestamp.isascii() and timestamp.isdigit() and abs(int(timestamp[:15]) - now) <= TOLERANCE_SECONDS


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
